"""What counts as an input and what does not: results, junk, links, patterns, exclusions, names."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalens.datasets.layouts import open_dataset
from anomalens.errors import InputError
from anomalens.images.decoding import decode, decode_mask
from anomalens.images.sources import find_images, is_image_input, list_images


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def listed(root: Path, *inputs: object, **options: object) -> list[str]:
    named = [root / str(name) if not os.path.isabs(str(name)) else str(name) for name in inputs or (root,)]
    return [path.relative_to(root).as_posix() for path in find_images(named, **options).images]  # type: ignore[arg-type]


def run_folder(folder: Path, rows: str = "predictions.jsonl") -> None:
    touch(folder, "run.json", rows, "heatmaps/0.png", "masks/0.png", "maps/0.png")


def test_results_are_no_inputs(tmp_path: Path) -> None:
    touch(tmp_path, "1.png", "2.png", "day/3.png", "day/masks/own.png")
    run_folder(tmp_path / "results")
    run_folder(tmp_path / "day" / "scaled", "rows/part=0/a.parquet")
    touch(tmp_path, "measured/metrics.json", "measured/report.json", "measured/gallery/0-image.jpg", "new/left.png")
    inputs = ["1.png", "2.png", "day/3.png", "day/masks/own.png"]
    assert listed(tmp_path, out=tmp_path / "new") == inputs
    assert listed(tmp_path) == [*inputs, "new/left.png"]
    assert listed(tmp_path, "**/*.png", out=tmp_path / "new") == inputs
    assert listed(tmp_path, "*", out=tmp_path / "new") == inputs
    remarks = "\n".join(find_images([tmp_path], out=tmp_path / "new").remarks())
    assert "left out: 3 x image in a folder of results" in remarks
    assert "left out: 1 x image in a folder of results" in remarks


def test_results_written_among_their_inputs(tmp_path: Path) -> None:
    touch(tmp_path, "1.png", "day/2.png")
    assert listed(tmp_path, out=tmp_path) == ["1.png", "day/2.png"]
    run_folder(tmp_path)
    for out in (tmp_path, None):
        assert listed(tmp_path, out=out) == ["1.png", "day/2.png"]
    touch(tmp_path, "1_overlay.png", "1_mask.png", "1.json", "other_mask.png")
    for name in (".", "*.png", "**"):
        assert listed(tmp_path, name)[-1] == "other_mask.png"
        assert "left out: 2 x picture that Prediction.save wrote" in find_images([tmp_path / name]).remarks()


def test_a_folder_of_nothing_but_results_says_so(tmp_path: Path) -> None:
    run_folder(tmp_path / "results")
    with pytest.raises(InputError, match="it holds results: its rows name the images"):
        list_images([tmp_path / "results"])
    with pytest.raises(InputError, match="these are results"):
        list_images([tmp_path / "results" / "heatmaps"])
    with pytest.raises(InputError, match="image in a folder of results"):
        list_images([tmp_path])


def test_what_was_left_out_is_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(
        tmp_path,
        "1.png",
        "film.mp4",
        "film.MOV",
        "raw.dng",
        "photo.psd",
        "notes.txt",
        "@eaDir/1.png",
        "__MACOSX/._1.png",
    )
    touch(tmp_path, "lost+found/2.png", ".ipynb_checkpoints/1-checkpoint.png", "__MACOSX/1.png")
    assert list_images([tmp_path]) == [tmp_path / "1.png"]
    text = caplog.text
    for line in ("2 x video", "1 x camera raw file", "1 x picture of a kind that is not read"):
        assert f"left out: {line}" in text
    assert "notes" not in text
    with pytest.raises(InputError) as caught:
        list_images([tmp_path / "[pr]*.*"])
    for kind in ("camera raw file", "picture of a kind that is not read"):
        assert f"left out: 1 x {kind}" in str(caught.value)
    with pytest.raises(InputError, match="an empty name"):
        list_images([tmp_path, ""])


def test_heic_is_counted_where_it_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "1.HEIC", "2.heif")
    monkeypatch.setattr("anomalens.images.sources.reads_heif", lambda: False)
    with pytest.raises(InputError, match=r"2 x HEIC photo.*anomalens\[heif\]"):
        find_images([tmp_path])
    monkeypatch.setattr("anomalens.images.sources.reads_heif", lambda: True)
    assert len(find_images([tmp_path]).images) == 2


def test_real_files_count_once(tmp_path: Path) -> None:
    touch(tmp_path, "x/1.png", "y/2.png")
    for name in ("self", "again"):
        (tmp_path / "x" / name).symlink_to(".")
    (tmp_path / "x" / "0.png").symlink_to("1.png")
    (tmp_path / "x" / "up").symlink_to(tmp_path)
    assert listed(tmp_path) == ["x/1.png", "y/2.png"]
    assert listed(tmp_path, "**/*.png") == ["x/1.png", "y/2.png"]
    assert listed(tmp_path, "**") == ["x/1.png", "y/2.png"]
    assert listed(tmp_path, "x/0.png", "x/1.png") == ["x/0.png", "x/1.png"]


def test_a_folder_whose_name_looks_like_a_pattern_is_none(tmp_path: Path) -> None:
    touch(tmp_path, "lot [7]/a.JPG", "lot [7]/b.png", "lot 7/c.JPG", "lot [8]/[1].png")
    assert listed(tmp_path, "lot [7]/*.JPG") == ["lot [7]/a.JPG"]
    assert listed(tmp_path, "lot [78]/*.JPG") == ["lot 7/c.JPG"]
    assert listed(tmp_path, "lot [8]/[1].png") == ["lot [8]/[1].png"]
    assert listed(tmp_path, "lot*/*.JPG") == ["lot 7/c.JPG", "lot [7]/a.JPG"]


def test_exclude(tmp_path: Path) -> None:
    touch(tmp_path, "1.png", "1_mask.png", "old/2.png", "new/3.png", "new/old/4.png", "new/5.png")
    assert listed(tmp_path, exclude=["*_mask.png"]) == ["1.png", "new/3.png", "new/5.png", "new/old/4.png", "old/2.png"]
    assert listed(tmp_path, exclude=["old"]) == ["1.png", "1_mask.png", "new/3.png", "new/5.png"]
    assert listed(tmp_path, exclude=["new/*", "1*"]) == ["old/2.png"]
    assert listed(tmp_path, exclude=["/old/"]) == ["1.png", "1_mask.png", "new/3.png", "new/5.png", "new/old/4.png"]
    assert listed(tmp_path, "1_mask.png", "1.png", exclude=["*_mask.*"]) == ["1.png"]
    assert listed(tmp_path, "**/*.png", exclude=["old", "1*"]) == ["new/3.png", "new/5.png"]
    assert find_images([tmp_path], exclude=["*_mask.png", "old"]).left_out == {
        "image by --exclude": 1,
        "folder by --exclude": 2,
    }
    assert listed(tmp_path, exclude=["./old", "./1.png"]) == ["1_mask.png", "new/3.png", "new/5.png", "new/old/4.png"]
    (remark,) = find_images([tmp_path], exclude=[f"{tmp_path}/old"]).remarks()
    assert "/old' fits nothing: a pattern is compared with names" in remark
    with pytest.raises(InputError, match="left out: 6 x image by --exclude"):
        find_images([tmp_path], exclude=["*.png"])


def test_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "photos/1.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert list_images(["~/photos"]) == list_images(["~/photos/*"]) == [tmp_path / "photos" / "1.png"]
    assert not is_image_input("~/photos")
    Image.new("L", (4, 3), 255).save(tmp_path / "photos" / "1.png")
    assert decode("~/photos/1.png").rgb.shape == (3, 4, 3)
    assert decode_mask("~/photos/1.png").all()
    (tmp_path / "manifest.csv").write_text("image,label\n~/photos/1.png,0\n")
    (sample,) = open_dataset("~/manifest.csv").samples()
    assert sample.image == tmp_path / "photos" / "1.png"


def test_arrays_of_names_are_several_inputs() -> None:
    assert not is_image_input(np.array(["a.png", "b.png"]))
    assert is_image_input(np.array("a.png"))


def test_absurd_numbers_in_names_sort(tmp_path: Path) -> None:
    touch(tmp_path, "9" * 200 + ".png", "10.png")
    assert listed(tmp_path)[0] == "10.png"


@pytest.mark.parametrize("what", ["pipe", "device"])
def test_what_could_block_for_ever_is_refused(what: str, tmp_path: Path) -> None:
    Image.new("L", (4, 4), 255).save(tmp_path / "1.png")
    if what == "pipe":
        os.mkfifo(tmp_path / "2.png")
    else:
        (tmp_path / "2.png").symlink_to("/dev/zero")
    (tmp_path / "manifest.csv").write_text("image,label,mask\n1.png,1,2.png\n2.png,0,\n")
    faults = {fault.kind: fault.detail for fault in open_dataset(tmp_path).faults}
    for kind in ("unreadable_image", "unreadable_mask"):
        assert "not a regular file" in faults[kind]
