"""Keep a detector busy: decode in threads, gather tiles into batches, score them, answer each image in its own Future.

    submit ─▶ decoding threads ─▶ batcher (one thread, in order) ─▶ scoring threads ─▶ Future[Prediction | Failure]

`Detector.predict_iter` and a server both use it. A batch is sent when it is full, or when waiting for more would leave
a scoring thread idle.
"""

import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

from anomalens.detection.batching import Batch, Batcher
from anomalens.detection.tiling import TiledImage, TileScore
from anomalens.engines.contract import Engine, Scored
from anomalens.images.pixel_values import Channels
from anomalens.images.preprocessing import Preprocess
from anomalens.options import LoadOptions
from anomalens.prediction import Failure, Result

# Seconds without a new image and without a running batch after which an unfilled batch is sent all the same.
_STALLED = 0.25
# Seconds between two looks at whether a scoring thread has become free while an image is decoded.
_POLL = 0.05


class Pipeline(Protocol):
    """Hold the stages of a detector that a session runs."""

    @property
    def engine(self) -> Engine:
        """Return what scores batches."""

    @property
    def options(self) -> LoadOptions:
        """Return batch size and numbers of threads."""

    @property
    def sizes(self) -> Sequence[Preprocess]:
        """Say how images are prepared for each size they are seen at."""

    def path_of(self, image: Any) -> str | None:
        """Return what a result's `path` says of an input."""

    def prepare(self, image: Any, channels: Channels) -> TiledImage:
        """Decode an input and cut it into preprocessed tiles."""

    def tile_scores(self, raw: Scored, tiles: Sequence[tuple[TiledImage, int]]) -> list[TileScore]:
        """Turn an engine's answer for a batch into one for each tile, named by its image and number."""

    def judge(self, image: TiledImage, source: str | None) -> Result:
        """Turn the answers for an image's tiles into its result."""


@dataclass
class _Job:
    """Hold an image on its way."""

    source: str | None
    answer: "Future[Result]"
    decoding: "Future[TiledImage]"


@dataclass(frozen=True)
class _Signal:
    """Wake the batcher, so that it looks again at what is due; `send`: all of it is; `end`: and nothing follows."""

    send: bool = False
    end: bool = False


class Session:
    """Score images from any number of threads with one detector.

    Args:
        detector: what scores; it is not changed.
        max_wait: seconds that a tile may wait for its batch to fill while a scoring thread is free. None waits for a
            full batch as long as images are on their way, so that a list of images is always batched alike.
        queue_size: images accepted and not answered yet; `submit` waits for room beyond that.
    """

    def __init__(self, detector: Pipeline, *, max_wait: float | None = 0.01, queue_size: int | None = None) -> None:
        self._detector, self._max_wait = detector, max_wait
        self._parallel = detector.engine.parallel
        # Enough to keep all threads busy: a batch for each scoring thread, and one that fills.
        self.queue_size = queue_size or detector.options.batch_size * (1 + self._parallel)
        self._room = threading.BoundedSemaphore(self.queue_size)
        self._inbox: queue.SimpleQueue[_Job | _Signal] = queue.SimpleQueue()
        self._batcher: Batcher[_Job] = Batcher(len(detector.sizes), detector.options.batch_size)
        # Guards the four values below and the results of images.
        self._lock = threading.Lock()
        self._closed = self._dropping = False
        # Images submitted and not in a batch yet; batches sent and not scored yet.
        self._coming = self._running = 0
        self._decoders = ThreadPoolExecutor(detector.options.workers, "anomalens-decode")
        self._scorers = ThreadPoolExecutor(self._parallel, "anomalens-score")
        self._thread = threading.Thread(target=self._gather, name="anomalens-batch", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Session":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(finish=kind is None)

    def submit(
        self, image: Any, *, name: str | None = None, channels: Channels = "rgb", timeout: float | None = None
    ) -> "Future[Result]":
        """Accept an image; its Future gives a Prediction, or a Failure where the image cannot be read.

        Args:
            image: anything that `Detector.predict` takes.
            name: what the result's `path` says; None takes the image's own path where it has one.
            channels: "rgb", or "bgr" for arrays as OpenCV gives them.
            timeout: seconds to wait for room in the queue; None waits as long as it takes, 0 not at all.

        Raises:
            queue.Full: there was no room in time.
            RuntimeError: the session is closed.
        """
        if not self._room.acquire(timeout=timeout):
            raise queue.Full(f"{self.queue_size} images are waiting already")
        answer: Future[Result] = Future()
        answer.add_done_callback(lambda _: self._room.release())
        with self._lock:
            if self._closed:
                answer.cancel()
                raise RuntimeError("the session is closed")
            self._coming += 1
            decoding = self._decoders.submit(self._detector.prepare, image, channels)
            self._inbox.put(_Job(name or self._detector.path_of(image), answer, decoding))
        return answer

    def flush(self) -> None:
        """Send what has been submitted so far without waiting for full batches."""
        self._inbox.put(_Signal(send=True))

    def close(self, *, finish: bool = True) -> None:
        """Stop accepting images and end all threads.

        Args:
            finish: answer what was accepted; False cancels what has not begun.
        """
        with self._lock:
            if self._closed:
                return
            self._closed, self._dropping = True, not finish
        self._inbox.put(_Signal(send=True, end=True))
        if not finish:
            self._decoders.shutdown(wait=False, cancel_futures=True)
        self._thread.join()
        self._decoders.shutdown()
        self._scorers.shutdown()

    def _gather(self) -> None:
        """Run the batcher's thread: put images into batches in order, send the batches that are full or due."""
        while True:
            try:
                message: _Job | _Signal = self._inbox.get(timeout=self._patience())
            except queue.Empty:
                self._send_all()
                continue
            if isinstance(message, _Job):
                self._take(message)
                continue
            if message.send:
                self._send_all()
            if message.end:
                return

    def _take(self, job: _Job) -> None:
        """Put an image's tiles into batches once it is decoded; others that become due meanwhile are sent."""
        while not job.decoding.done():
            # Not `concurrent.futures.wait`, which a future that was cancelled before never wakes.
            with suppress(TimeoutError, CancelledError):
                job.decoding.exception(timeout=_POLL if self._batcher else None)
            if self._patience() == 0:
                self._send_all()
        with self._lock:
            self._coming -= 1
            dropping = self._dropping
        if dropping or job.decoding.cancelled():
            job.answer.cancel()
        elif error := job.decoding.exception():
            _answer(job, Failure.of(job.source, error))
        else:
            full = list(self._batcher.add(job, job.decoding.result()))
            for position, batch in enumerate(full, start=1):
                self._send(batch, last=position == len(full) and not self._batcher)

    def _patience(self) -> float | None:
        """Return for how many seconds the gathered tiles may wait for the next event; None: for as long as it takes."""
        if not self._batcher:
            return None
        with self._lock:
            coming, running = self._coming, self._running
        if self._max_wait is None:
            due = None if coming or running else self._batcher.last + _STALLED
        else:
            due = None if running >= self._parallel else self._batcher.first + self._max_wait
        return None if due is None else max(0.0, due - time.monotonic())

    def _send_all(self) -> None:
        batches = list(self._batcher.flush())
        for position, batch in enumerate(batches, start=1):
            self._send(batch, last=position == len(batches))

    def _send(self, batch: Batch[_Job], *, last: bool) -> None:
        with self._lock:
            if self._dropping:
                for job in batch.owners:
                    job.answer.cancel()
                return
            # A batch that is alone may use all cores.
            alone = last and not self._coming and not self._running
            self._running += 1
        self._scorers.submit(self._score, batch, 1 if alone else self._parallel)

    def _score(self, batch: Batch[_Job], sharing: int) -> None:
        """Run in a scoring thread: score a batch, and answer the images that are complete with it."""
        complete: list[tuple[_Job, TiledImage]] = []
        try:
            raw = self._detector.engine.score_batch(*batch.stacked(), sharing)
            scores = self._detector.tile_scores(raw, [(tile.image, tile.number) for tile in batch.tiles])
            with self._lock:
                for tile, score in zip(batch.tiles, scores, strict=True):
                    tile.image.results[batch.size][tile.number] = score
                    if tile.image.complete:
                        complete.append((tile.owner, tile.image))
            for job, image in complete:
                _answer(job, self._detector.judge(image, job.source))
        except BaseException as error:
            for job in batch.owners:
                _answer(job, error)
        finally:
            with self._lock:
                self._running -= 1
            self._inbox.put(_Signal())


def _answer(job: _Job, result: Result | BaseException) -> None:
    """Settle a job's Future, unless its owner has cancelled it or an earlier batch has failed."""
    try:
        if isinstance(result, BaseException):
            job.answer.set_exception(result)
        else:
            job.answer.set_result(result)
    except InvalidStateError:
        pass
