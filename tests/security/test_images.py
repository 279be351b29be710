"""Pictures that claim or take too much: refused in one line, or read within the memory that all threads share."""

import multiprocessing
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import hostile
from anomalens.errors import InputError
from anomalens.images.decoding import decode
from anomalens.images.maps import Box, resize_map
from anomalens.images.memory_budget import MemoryBudget
from anomalens.prediction import Prediction
from anomalens.threads import map_ordered

BUDGET = 12 * 10**7

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is measured as Linux counts it")


def memory_of(task: Callable[[], object]) -> int:
    """Do a task in a fork; return by how many bytes its memory grew."""

    def measured() -> None:
        before = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        task()
        pipe[1].send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)

    pipe = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=measured)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    grown: int = pipe[0].recv()
    return grown


@pytest.mark.parametrize("name", hostile.REFUSED)
def test_claims_are_refused_before_anything_is_decoded(name: str) -> None:
    content = hostile.REFUSED[name]()

    def attempt() -> None:
        with pytest.raises(InputError, match=r"limit of|more than") as caught:
            decode(content)
        assert "\n" not in str(caught.value)

    assert memory_of(attempt) < 2 * 10**7


def test_many_large_pictures_at_once_share_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading, regions, overlays and masks of six pictures of 9 megapixels, 108 MB each."""
    side = 3000
    content = hostile.blank(side, "TIFF")
    for number in range(6):
        (tmp_path / f"{number}.tif").write_bytes(content)
    monkeypatch.setattr("anomalens.images.memory_budget._LARGE", 10**7)
    monkeypatch.setattr("anomalens.images.decoding.memory", budget := MemoryBudget(BUDGET))
    monkeypatch.setattr("anomalens.prediction.memory", budget)
    map_ = np.outer(*[np.hanning(15).astype(np.float32)] * 2)

    def write(number: int) -> int:
        path = tmp_path / f"{number}.tif"
        prediction = Prediction(str(path), side, side, 0.9, 0.5, "x", 0.5, map_, (0.0, 1.0), None, "x", "x")
        prediction.save(tmp_path / "out")
        return len(prediction.regions)

    def attempt() -> None:
        counts = [count for _, count in map_ordered(range(6), write, 6, 6)]
        assert counts == [1] * 6

    assert memory_of(attempt) < 3 * BUDGET
    assert len(list((tmp_path / "out").iterdir())) == 18


def test_a_part_of_a_large_map_is_that_of_the_whole() -> None:
    map_ = np.random.default_rng(0).random((15, 11), np.float32)
    whole = resize_map(map_, (1500, 1401))
    part = Box(200, 333, 1401, 1199)
    np.testing.assert_allclose(resize_map(map_, (1500, 1401), part), whole[part.slices], atol=2e-6)


def test_regions_do_not_depend_on_how_much_is_worked_on_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    map_ = np.random.default_rng(0).random((15, 11), np.float32)
    whole, parts = (
        Prediction(None, 90, 130, 0.9, 0.5, "x", 0.5, map_, (0.0, 1.0), None, "x", "x", min_area=40) for _ in range(2)
    )
    assert len(whole.regions) > 2
    assert sum(region.area for region in whole.regions) == whole.mask.sum()
    monkeypatch.setattr("anomalens.images.maps._BAND", 700)
    assert [region.box for region in parts.regions] == [region.box for region in whole.regions]
    assert [region.peak_at for region in parts.regions] == [region.peak_at for region in whole.regions]
    np.testing.assert_array_equal(parts.mask, whole.mask)
    picture = np.random.default_rng(1).integers(0, 256, (130, 90, 3), np.uint8)
    other = np.asarray(parts.overlay(picture), np.int16)
    monkeypatch.undo()
    assert np.abs(np.asarray(whole.overlay(picture), np.int16) - other).max() <= 2
