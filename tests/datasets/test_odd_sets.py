"""Data sets with odd names, layouts, masks and files."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import odd_files as odd
from anomalens.datasets.layouts import open_dataset, read_mask, read_truth, truth_at
from anomalens.datasets.layouts.folders import is_normal_name
from anomalens.datasets.layouts.masks import reduce_mask


def picture(path: Path, value: int = 0, size: tuple[int, int] = (8, 6)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path)
    return path


@pytest.mark.parametrize("name", ["healthy", "no_defect", "No-Defects", "pass", "0", "OK", "defect free", "intact"])
def test_words_for_sound(name: str, tmp_path: Path) -> None:
    assert is_normal_name(name)
    picture(tmp_path / "nut" / "test" / name / "0.png")
    picture(tmp_path / "nut" / "test" / "crack" / "0.png")
    dataset = open_dataset(tmp_path)
    assert (dataset.counts()["nut"].normal, dataset.counts()["nut"].anomalous) == (1, 1)
    said = any("taken for normal images by the name of their folder" in note for note in dataset.notes)
    assert said == (name != "OK")


def test_a_class_without_sound_images_is_said(tmp_path: Path) -> None:
    for kind in ("gut", "riss"):
        picture(tmp_path / "mutter" / "test" / kind / "0.png")
    (note,) = [note for note in open_dataset(f"mvtec:{tmp_path}").notes if "--normal-name" in note]
    assert "'gut', 'riss'" in note
    dataset = open_dataset(f"mvtec:{tmp_path}", normal_names=["Gut"])
    assert dataset.counts()["mutter"].normal == 1
    assert not any("--normal-name" in note for note in dataset.notes)


def test_normal_and_defects_by_other_names(tmp_path: Path) -> None:
    for name in ("0", "1", "notes"):
        picture(tmp_path / name / "a.png")
    dataset = open_dataset(tmp_path)
    assert dataset.layout == "folders"
    assert [(sample.id, sample.label) for sample in dataset.samples()] == [("0/a.png", 0), ("1/a.png", 1)]
    assert any("not read, neither normal nor anomalous by name: 'notes'" in note for note in dataset.notes)
    for name in ("2", "3"):
        picture(tmp_path / "frames" / name / "a.png")
    assert not is_normal_name("2")


def test_all_but_the_folder_that_a_user_named_are_defects(tmp_path: Path) -> None:
    for name in ("良品", "不良品", "きず", "masks/きず"):
        picture(tmp_path / "nut" / name / "a.png", 255)
    dataset = open_dataset(tmp_path / "nut", normal_names=["良品"])
    assert [(sample.kind, sample.mask is not None) for sample in dataset.samples()] == [
        ("good", False),
        ("きず", True),
        ("不良品", False),
    ]
    assert not any("not read" in note for note in dataset.notes)


def test_a_summary_keeps_to_its_lines(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text('image,label,class\n"a\n\x1b[31m.png",0,nut\nb.png,0,nut\n')
    picture(tmp_path / "b.png")
    summary = open_dataset(tmp_path).summary()
    assert "\x1b" not in summary
    assert "a\\n\\x1b[31m.png: no such file" in summary


def test_labels_in_a_manifest(tmp_path: Path) -> None:
    labels = ["healthy", "no defect", "pass", "0", "gut", "fail", "NG", "1.0"]
    rows = [f"{number}.png,{label}" for number, label in enumerate(labels)]
    for number in range(len(labels)):
        picture(tmp_path / f"{number}.png")
    (tmp_path / "manifest.csv").write_text("\n".join(["image,label", *rows]))
    dataset = open_dataset(tmp_path, normal_names=["gut"])
    assert [sample.label for sample in dataset.samples()] == [0, 0, 0, 0, 0, 1, 1, 1]
    assert [fault.kind for fault in open_dataset(tmp_path).faults] == ["bad_label"]


def test_mvtec_3d(tmp_path: Path) -> None:
    for split, kind in (("train", "good"), ("test", "good"), ("test", "crack"), ("validation", "good")):
        for number in range(2):
            picture(tmp_path / "bagel" / split / kind / "rgb" / f"{number:03d}.png", 90)
            (tmp_path / "bagel" / split / kind / "xyz").mkdir(exist_ok=True)
            if split == "test":
                picture(tmp_path / "bagel" / split / kind / "gt" / f"{number:03d}.png", 255 * (kind == "crack"))
    for spec in (tmp_path, f"mvtec3d:{tmp_path}", tmp_path / "bagel"):
        dataset = open_dataset(spec, deep=True)
        assert dataset.layout == "mvtec3d"
        assert dataset.faults == ()
        counts = dataset.counts()["bagel"]
        assert (counts.normal, counts.anomalous, counts.masks) == (2, 2, 2)
        assert len(list(dataset.samples("train"))) == 2
    assert next(dataset.samples()).id == "bagel/test/crack/rgb/000.png"


def test_a_thin_scratch_does_not_vanish(tmp_path: Path) -> None:
    scratch = np.zeros((2048, 2048), bool)
    scratch[np.arange(200, 1251), np.arange(300, 1351)] = True
    scratch[np.arange(200, 1251), np.arange(301, 1352)] = True
    truth = reduce_mask(scratch, (518, 518))
    assert truth.tiny
    share = truth.marks.mean() / scratch.mean()
    assert 0.98 < share < 1.02
    assert truth.marks[int(700 * 518 / 2048), int(800 * 518 / 2048) - 2 : int(800 * 518 / 2048) + 3].any()
    corner = np.zeros((4000, 3000), bool)
    corner[3999, 2999] = True
    assert np.argwhere(reduce_mask(corner, (10, 10)).marks).tolist() == [[9, 9]]


def test_ordinary_masks_are_reduced_as_the_papers_do(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = np.kron(rng.random((6, 8)) > 0.7, np.ones((20, 20))).astype(bool)
        mask[5, 7] ^= True
        grey = Image.fromarray(mask.astype(np.uint8) * 255)
        expected = np.asarray(grey.resize((50, 40), Image.Resampling.BILINEAR)) > 127
        truth = reduce_mask(mask, (40, 50))
        np.testing.assert_array_equal(truth.marks, expected)
        assert not truth.tiny
    assert not reduce_mask(np.zeros((50, 50), bool), (10, 10)).tiny


def test_tiny_masks_are_said_and_no_fault(tmp_path: Path) -> None:
    for kind in ("good", "crack"):
        picture(tmp_path / "test" / kind / "0.png", 90, (2000, 1500))
    mask = np.zeros((1500, 2000), np.uint8)
    mask[700, 900] = 255
    (tmp_path / "ground_truth" / "crack").mkdir(parents=True)
    Image.fromarray(mask).save(tmp_path / "ground_truth" / "crack" / "0_mask.png")
    dataset = open_dataset(tmp_path, deep=True)
    assert dataset.faults == ()
    assert any("1 mask marks less than one pixel at 518 x 518" in note for note in dataset.notes)
    (sample,) = [sample for sample in dataset.samples() if sample.label]
    truth = truth_at(sample, (518, 518))
    assert truth is not None
    assert truth.tiny
    marks = read_truth(sample, (518, 518))
    assert marks is not None
    assert marks.sum() == 1


def test_separators_of_lines_inside_json(tmp_path: Path) -> None:
    names = ["a\u2028b.png", "c\x85d.png", "e\x0cf.png"]
    for name in names:
        picture(tmp_path / name)
    rows = [json.dumps({"image": name, "label": 0}, ensure_ascii=False) for name in names]
    (tmp_path / "manifest.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    assert sorted(sample.image.name for sample in open_dataset(tmp_path).samples()) == sorted(names)


def test_names_that_are_no_text(tmp_path: Path) -> None:
    raw = os.fsencode(tmp_path) + b"/pi\xe8ce.png"
    try:
        os.rename(picture(tmp_path / "a.png"), raw)
    except OSError:
        pytest.skip("this file system has no such names")
    (sample,) = open_dataset(f"flat:{tmp_path}").samples()
    assert sample.id == "pi\\udce8ce.png"
    assert sample.image.is_file()
    (tmp_path / "manifest.csv").write_text("image,label\npi\\udce8ce.png,0\n")
    (sample,) = open_dataset(tmp_path).samples()
    assert os.fsencode(sample.image) == raw


def test_flat_reads_what_detect_reads(tmp_path: Path) -> None:
    for name in ("1.png", ".ipynb_checkpoints/1-checkpoint.png", "@eaDir/1.png", "out/heatmaps/0.png"):
        picture(tmp_path / name)
    for name in ("run.json", "predictions.jsonl"):
        (tmp_path / "out" / name).write_text("")
    (tmp_path / "film.mp4").write_bytes(b"")
    dataset = open_dataset(f"flat:{tmp_path}", exclude=["nothing"])
    assert [sample.id for sample in dataset.samples()] == ["1.png"]
    assert any("1 x video" in note for note in dataset.notes)
    assert any("1 x image in a folder of results" in note for note in dataset.notes)


def test_photos_that_are_not_read_are_counted_in_every_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anomalens.images.sources.reads_heif", lambda: False)
    for folder in ("a/nut/test/good", "b/normal"):
        picture(tmp_path / folder / "1.png")
        (tmp_path / folder / "2.HEIC").touch()
        (tmp_path / folder / "3.mp4").touch()
        notes = "\n".join(open_dataset(tmp_path / folder[0]).notes)
        assert "1 x HEIC photo (to read them: pip install 'anomalens[heif]')" in notes
        assert "1 x video" in notes


def test_exclude_and_the_limit(tmp_path: Path) -> None:
    for name in ("normal/1.png", "normal/2.png", "anomalous/1.png", "anomalous/bad_2.png"):
        picture(tmp_path / name)
    dataset = open_dataset(tmp_path, exclude=["bad_*", "normal/2.png"])
    assert [sample.id for sample in dataset.samples()] == ["normal/1.png", "anomalous/1.png"]
    assert "left out: 2 x image by --exclude" in dataset.notes
    assert len(open_dataset(tmp_path).faults) == 0
    with pytest.raises(ValueError, match="above the limit of 47"):
        open_dataset(tmp_path, max_pixels=47)


def test_masks_of_palettes_with_transparency(tmp_path: Path) -> None:
    indexed = Image.fromarray(odd.GREY // 64).convert("P")
    indexed.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    indexed.save(tmp_path / "m.png", transparency=2)
    index = np.asarray(Image.open(tmp_path / "m.png"))
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), (index == 1) | (index == 3))
