"""Keep detectors loaded, each with one Session in front of it that gathers images into batches.

    accepted images ─▶ queue of the lane ─▶ one feeding thread ─▶ Session ─▶ answers

The queue holds names of files, the Session only as many decoded images as keep the processor busy.
"""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from anomalens.detection.detector import Detector
from anomalens.detection.session import Session
from anomalens.detection.tiling import TiledImage, TileScore
from anomalens.engines.contract import Engine, Scored
from anomalens.images.pixel_values import Channels
from anomalens.images.preprocessing import Preprocess
from anomalens.options import LoadOptions
from anomalens.prediction import Result


class BusyError(RuntimeError):
    """Say that there is no room just now; `seconds` later there may be."""

    def __init__(self, message: str, seconds: int) -> None:
        """Keep the message and the seconds."""
        super().__init__(message)
        self.seconds = seconds


@dataclass(frozen=True)
class Judge:
    """Name what judges images: a version of a recipe, or a method and what the images show."""

    recipe: str | None = None
    version: int | None = None
    method: str = "auto"
    object_name: str = "object"


Finish = Callable[[Result | BaseException], None]


@dataclass(frozen=True)
class _Errand:
    """Hold an image on its way to the Session."""

    path: Path
    finish: Finish


class Lane:
    """Judge images with one detector, in the order they come."""

    def __init__(self, detector: Detector, measure: Callable[[int], None]) -> None:
        """Start the thread that feeds the Session.

        Args:
            detector: what judges.
            measure: called with the number of images or tiles of each batch.
        """
        self.detector = detector
        self._session = Session(_Measured(detector, measure))
        self._queue: queue.SimpleQueue[_Errand | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        # Images not answered yet.
        self.load = 0
        self._feeder = threading.Thread(target=self._feed, name="anomalens-feed", daemon=True)
        self._feeder.start()

    def submit(self, path: Path, finish: Finish) -> None:
        """Judge the image in a file some time; `finish` is called with the result, or with what went wrong."""
        with self._lock:
            self.load += 1
        self._queue.put(_Errand(path, finish))

    def close(self) -> None:
        """Answer what was submitted, then end."""
        self._queue.put(None)
        self._feeder.join()
        self._session.close()

    def _feed(self) -> None:
        while errand := self._queue.get():
            try:
                answer = self._session.submit(errand.path)
            except BaseException as error:
                self._settle(errand, error)
                continue
            answer.add_done_callback(partial(self._answered, errand))

    def _answered(self, errand: _Errand, answer: "Future[Result]") -> None:
        self._settle(errand, _outcome(answer))

    def _settle(self, errand: _Errand, outcome: Result | BaseException) -> None:
        with self._lock:
            self.load -= 1
        errand.finish(outcome)


def _outcome(future: "Future[Result]") -> Result | BaseException:
    try:
        return future.result()
    except BaseException as error:
        return error


class _Measured:
    """Tell how many images or tiles each batch has; otherwise a detector."""

    def __init__(self, detector: Detector, measure: Callable[[int], None]) -> None:
        self._detector, self._measure = detector, measure

    @property
    def engine(self) -> Engine:
        """Return what scores batches."""
        return self._detector.engine

    @property
    def options(self) -> LoadOptions:
        """Return batch size and numbers of threads."""
        return self._detector.options

    @property
    def sizes(self) -> Sequence[Preprocess]:
        """Say how images are prepared for each size they are seen at."""
        return self._detector.sizes

    def path_of(self, image: Any) -> str | None:
        """Return what a result's `path` says of an input."""
        return self._detector.path_of(image)

    def prepare(self, image: Any, channels: Channels) -> TiledImage:
        """Decode an input and cut it into tiles."""
        return self._detector.prepare(image, channels)

    def tile_scores(self, raw: Scored, tiles: Sequence[tuple[TiledImage, int]]) -> list[TileScore]:
        """Count a batch, and return the answer for each of its tiles."""
        self._measure(len(tiles))
        return self._detector.tile_scores(raw, tiles)

    def judge(self, image: TiledImage, source: str | None) -> Result:
        """Turn the answers for an image's tiles into its result."""
        return self._detector.judge(image, source)


class Lanes:
    """Keep a few lanes, those used last; load further ones when they are asked for."""

    def __init__(self, load: Callable[[Judge], Detector], measure: Callable[[int], None], most: int) -> None:
        """Keep none yet.

        Args:
            load: returns the detector of a judge, or raises an AnomalensError.
            measure: called with the number of images or tiles of each batch.
            most: lanes kept at a time.
        """
        self._load, self._measure, self._most = load, measure, most
        # The one used last stands last.
        self._lanes: dict[Judge, Lane] = {}
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._closed = False

    def submit(self, judge: Judge, path: Path, finish: Finish) -> None:
        """Judge the image in a file some time; waits for a lane where all are in use.

        Raises AnomalensError where there is no such detector, BusyError once the lanes are closed.
        """
        while True:
            self._loaded(judge, patient=True)
            with self._lock:
                lane = self._lanes.get(judge)
                if lane is not None:
                    # Within the lock, so that the lane is not closed as an idle one meanwhile.
                    lane.submit(path, finish)
                    return

    def require(self, judge: Judge) -> Detector:
        """Load the detector of a judge unless it is loaded, and return it.

        Raises AnomalensError where there is no such detector, BusyError where all lanes are in use.
        """
        return self._loaded(judge, patient=False)

    def _loaded(self, judge: Judge, *, patient: bool) -> Detector:
        """Do the same; `patient` waits until a lane has answered what it was given, where all are in use."""
        with self._lock:
            if judge in self._lanes:
                self._lanes[judge] = self._lanes.pop(judge)
                return self._lanes[judge].detector
        with self._loading:
            with self._lock:
                if judge in self._lanes:
                    return self._lanes[judge].detector
                spare = self._spare(patient)
            if spare is not None:
                spare.close()
            detector = self._load(judge)
            with self._lock:
                self._check_open()
                self._lanes[judge] = Lane(detector, self._measure)
            return detector

    def _spare(self, patient: bool) -> Lane | None:
        """Take away the lane used longest ago where there are too many, an idle one if there is one.

        Raises BusyError where none is idle, unless `patient`, and once the lanes are closed.
        """
        self._check_open()
        if len(self._lanes) < self._most:
            return None
        idle = (judge for judge, lane in self._lanes.items() if not lane.load)
        judge = next(idle, next(iter(self._lanes)) if patient else None)
        if judge is None:
            raise BusyError(f"all {self._most} detectors that may be loaded at a time are at work", 5)
        return self._lanes.pop(judge)

    def _check_open(self) -> None:
        if self._closed:
            raise BusyError("the service is stopping", 5)

    def close(self) -> None:
        """Answer what was submitted, then end all lanes."""
        with self._lock:
            self._closed = True
        # A lane that makes way for another just now has ended when this lock is free.
        with self._loading, self._lock:
            lanes, self._lanes = list(self._lanes.values()), {}
        for lane in lanes:
            with suppress(RuntimeError):
                lane.close()
