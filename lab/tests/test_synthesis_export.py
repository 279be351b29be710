import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from anomalens.errors import ConfigError, InputError
from anomalens_lab.synthesis import KINDS, SynthesisConfig, scene, synthesize

SIZE = 64


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("set")
    assert synthesize(out, 40, seed=100, size=SIZE) == 40
    return out


def test_layout_masks_and_captions_agree_with_the_scenes(written: Path) -> None:
    lines = [json.loads(x) for x in (written / "captions.jsonl").read_text("utf-8").splitlines()]
    assert [x["seed"] for x in lines] == list(range(100, 140))
    for line in lines:
        s = scene(line["seed"], SynthesisConfig(size=SIZE))
        family, split, state, name = line["image"].split("/")
        assert family == s.family
        assert np.array_equal(np.asarray(Pillow.open(written / line["image"])), s.image)
        assert (line["caption"], line["subject"], line["kinds"]) == (s.caption, s.subject, list(s.kind_names))
        if s.anomalous:
            assert split == "test"
            assert state in s.kind_names
            assert line["mask"] == f"{family}/ground_truth/{state}/{name[:-4]}_mask.png"
            mask = np.asarray(Pillow.open(written / line["mask"]))
            assert np.array_equal(mask, s.mask * np.uint8(255))
        else:
            assert state == "good"
            assert line["mask"] is None
    assert {x["image"].split("/")[1] for x in lines} == {"train", "test"}
    assert {x["image"].split("/")[2] for x in lines} <= {"good", *KINDS[1:]}


def test_an_interrupted_run_goes_on_and_ends_alike(written: Path, tmp_path: Path) -> None:
    seen = []

    def stop(done: int) -> None:
        seen.append(done)
        if done == 15:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesize(tmp_path, 20, seed=100, size=SIZE, progress=stop)
    assert seen == list(range(1, 16))
    synthesize(tmp_path, 20, seed=100, size=SIZE)
    assert synthesize(tmp_path, 20, seed=100, size=SIZE) == 0
    assert synthesize(tmp_path, 40, seed=100, size=SIZE) == 20
    assert tree(tmp_path) == tree(written)


def test_a_torn_line_or_lost_picture_is_done_again(tmp_path: Path) -> None:
    synthesize(tmp_path, 6, size=SIZE)
    whole = tree(tmp_path)
    captions = tmp_path / "captions.jsonl"
    captions.write_text(captions.read_text("utf-8")[:-20], "utf-8")
    assert synthesize(tmp_path, 6, size=SIZE) == 1
    first = json.loads(captions.read_text("utf-8").splitlines()[3])
    (tmp_path / first["image"]).unlink()
    assert synthesize(tmp_path, 6, size=SIZE) == 3
    assert tree(tmp_path) == whole
    lines = [json.loads(line) for line in captions.read_text("utf-8").splitlines()]
    place, faulty = next((i, line) for i, line in enumerate(lines) if line["mask"])
    (tmp_path / faulty["mask"]).unlink()
    assert synthesize(tmp_path, 6, size=SIZE) == 6 - place
    assert tree(tmp_path) == whole


def test_other_settings_and_foreign_folders_are_refused(tmp_path: Path) -> None:
    synthesize(tmp_path / "a", 2, size=SIZE)
    with pytest.raises(InputError, match="other settings"):
        synthesize(tmp_path / "a", 2, seed=1, size=SIZE)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="not empty"):
        synthesize(tmp_path / "b", 2, size=SIZE)
    with pytest.raises(InputError, match="is a file"):
        synthesize(tmp_path / "b" / "mine.txt", 2, size=SIZE)
    (tmp_path / "a" / "synthesis.json").write_text("{")
    with pytest.raises(InputError, match="other settings"):
        synthesize(tmp_path / "a", 2, size=SIZE)


def test_bad_numbers_are_refused(tmp_path: Path) -> None:
    for options in ({"count": 0}, {"count": 1, "seed": -1}, {"count": 1, "train_share": 2.0}, {"count": 1, "size": 10}):
        with pytest.raises(ConfigError):
            synthesize(tmp_path / "x", **options)
    assert not (tmp_path / "x").exists()
