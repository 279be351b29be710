"""ELPV against the package that ships it (part of the development requirements)."""

import sys
from pathlib import Path

import pytest
from PIL import Image

from anomalens.datasets import elpv
from anomalens.datasets.catalog import differences
from anomalens.datasets.layouts import open_dataset
from anomalens.datasets.prepare import prepare
from anomalens.errors import ConfigError, InputError, MissingExtraError


def test_cells_are_those_the_package_documents() -> None:
    cells = elpv.read_cells()
    assert len(cells) == 2624
    assert sorted({round(cell.probability, 4) for cell in cells}) == [0.0, 0.3333, 0.6667, 1.0]
    assert sum(cell.probability == 0 for cell in cells) == 1508
    assert sum(cell.probability == 1 for cell in cells) == 715
    assert sum(cell.module == "mono" for cell in cells) == 1074
    with Image.open(cells[0].image) as image:
        assert (image.size, image.mode) == ((300, 300), "L")


def test_the_cut_decides_which_are_defective() -> None:
    for cut, defective in ((0.0, 1116), (0.5, 821), (0.9, 715)):
        counts = elpv.open_elpv(cut).counts()
        assert list(counts) == ["monocrystalline solar cell", "polycrystalline solar cell"]
        assert sum(c.anomalous for c in counts.values()) == defective
        assert sum(c.normal for c in counts.values()) == 2624 - defective
        assert all(c.normal and c.anomalous and not c.masks for c in counts.values())
    with pytest.raises(ConfigError, match=r"in \[0, 1\), found 1\.5"):
        elpv.open_elpv(1.5)


@pytest.mark.parametrize("count", [2, 7, 40])
def test_demo_is_balanced_certain_and_reproducible(count: int) -> None:
    samples = elpv.demo_samples(count, seed=3)
    probability = {cell.image: cell.probability for cell in elpv.read_cells()}
    assert [s.label for s in samples] == [0] * (count - count // 2) + [1] * (count // 2)
    assert all(probability[s.image] == float(s.label == 1) for s in samples)
    assert len({s.id for s in samples}) == count
    assert all(s.image.is_file() for s in samples)
    assert samples == elpv.demo_samples(count, seed=3)
    assert samples != elpv.demo_samples(count, seed=4)
    assert {s.id for s in samples} < {s.id for s in elpv.demo_samples(count + 2, seed=3)}


@pytest.mark.parametrize("count", [-1, 0, 1, 1432])
def test_demo_count_out_of_range(count: int) -> None:
    with pytest.raises(ConfigError, match="between 2 and 1431"):
        elpv.demo_samples(count)


def test_prepared_manifest_is_as_the_catalogue_states(tmp_path: Path) -> None:
    dataset = open_dataset(prepare("elpv", tmp_path, tmp_path), strict=True)
    assert differences("elpv", dataset) == ()
    assert dataset.name == "elpv"


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "elpv_dataset", None)
    with pytest.raises(MissingExtraError, match=r"anomalens\[elpv\]"):
        elpv.read_cells()


@pytest.mark.parametrize("text", [None, "images/a.png 1.0\n", "images/a.png much mono\n", "images/a.png 1 thin\n"])
def test_damaged_package_says_reinstall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None) -> None:
    (tmp_path / "data").mkdir()
    if text is not None:
        (tmp_path / "data" / "labels.csv").write_text(text)
    package = type(sys)("elpv_dataset")
    package.__path__ = [str(tmp_path)]
    monkeypatch.setitem(sys.modules, "elpv_dataset", package)
    with pytest.raises(InputError, match="reinstall it"):
        elpv.read_cells()
