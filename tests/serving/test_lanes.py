"""Test that accepted images are judged, whichever detectors are loaded just then."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import toys
from anomalens.backbones.tower import Clip
from anomalens.detection.session import Session
from anomalens.prediction import Prediction, Result
from anomalens.serving.lanes import BusyError, Judge, Lanes

_NUTS, _TILES = Judge(object_name="nut"), Judge(object_name="tile")


@pytest.fixture
def lanes(tiny_clip: Clip) -> Iterator[Lanes]:
    """Return lanes of which one is kept at a time."""
    lanes = Lanes(lambda judge: toys.make(tiny_clip, object_name=judge.object_name), lambda count: None, most=1)
    yield lanes
    lanes.close()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Return the path of an image."""
    Image.fromarray(toys.grey(200)).save(tmp_path / "grey.png")
    return tmp_path / "grey.png"


class Answers:
    """Gather results until there are as many as expected."""

    def __init__(self, count: int) -> None:
        """Expect so many."""
        self.results: list[Result | BaseException] = []
        self._left = threading.Semaphore(0)
        self._count = count

    def __call__(self, result: Result | BaseException) -> None:
        """Take a result."""
        self.results.append(result)
        self._left.release()

    def wait(self) -> list[Result | BaseException]:
        """Return all of them once they are there."""
        assert all(self._left.acquire(timeout=30) for _ in range(self._count))
        return self.results


def test_images_wait_for_a_lane_where_all_are_at_work(
    lanes: Lanes, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, submit = threading.Event(), Session.submit

    def held(self: Session, *arguments: Any, **options: Any) -> Any:
        gate.wait(30)
        return submit(self, *arguments, **options)

    monkeypatch.setattr(Session, "submit", held)
    answers = Answers(6)
    for _ in range(2):
        lanes.submit(_NUTS, picture, answers)
    # What is not accepted yet is refused, so that its sender tries again.
    with pytest.raises(BusyError, match="1 detectors"):
        lanes.require(_TILES)

    def submit_further() -> None:
        for judge in (_TILES, _NUTS, _TILES, _NUTS):
            lanes.submit(judge, picture, answers)

    further = threading.Thread(target=submit_further)
    further.start()
    gate.set()
    assert all(isinstance(result, Prediction) for result in answers.wait())
    further.join()


def test_closed_lanes_take_nothing(lanes: Lanes, picture: Path) -> None:
    answers = Answers(1)
    lanes.submit(_NUTS, picture, answers)
    lanes.close()
    assert len(answers.wait()) == 1
    for judge in (_NUTS, _TILES):
        with pytest.raises(BusyError, match="stopping"):
            lanes.submit(judge, picture, answers)
