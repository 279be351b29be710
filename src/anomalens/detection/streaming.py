"""Run a stream of images through a session: results in the order of the inputs, which a thread of their own reads."""

import os
import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

from anomalens.detection.session import Pipeline, Session
from anomalens.errors import ConfigError
from anomalens.images.pixel_values import Channels
from anomalens.images.sources import is_image_input, list_images
from anomalens.prediction import Result

# Seconds between two looks at whether anybody still wants the results.
_POLL = 0.1

_Answers = queue.Queue["Future[Result] | BaseException | None"]


def stream_results(detector: Pipeline, images: Any, channels: Channels) -> Iterator[Result]:
    """Yield the result of each image in order; see `Detector.predict_iter`.

    Raises, at the call, InputError or ConfigError where `images` is nothing that can be listed.
    """
    return _stream(detector, as_items(images), channels)


def as_items(images: Any) -> Iterable[Any]:
    """Return what `images` names as an iterable of single images: a folder's files, a pattern's matches, or itself."""
    if is_image_input(images):
        return [images]
    if isinstance(images, (str, os.PathLike)):
        return list_images([images])
    if not isinstance(images, Iterable):
        raise ConfigError(f"images must be a folder, a pattern or an iterable of images, not {type(images).__name__}")
    return images


def _stream(detector: Pipeline, items: Iterable[Any], channels: Channels) -> Iterator[Result]:
    # What comes from a list is there already, so its batches can be full.
    session = Session(detector, max_wait=None) if isinstance(items, Sequence) else Session(detector)
    answers: _Answers = queue.Queue(session.queue_size)
    stop = threading.Event()
    threading.Thread(
        target=_feed, args=(items, channels, session, answers, stop), name="anomalens-source", daemon=True
    ).start()
    finished = False
    try:
        while (answer := answers.get()) is not None:
            if isinstance(answer, BaseException):
                raise answer
            yield answer.result()
        finished = True
    finally:
        stop.set()
        session.close(finish=finished)


def _feed(items: Iterable[Any], channels: Channels, session: Session, answers: _Answers, stop: threading.Event) -> None:
    """Submit every item; an error of the source itself comes after the results of the items before it."""
    last: BaseException | None = None
    try:
        for item in items:
            if stop.is_set():
                return
            _put(answers, session.submit(item, channels=channels), stop)
        session.flush()
    except BaseException as error:
        last = error
        session.flush()
    _put(answers, last, stop)


def _put(answers: _Answers, answer: "Future[Result] | BaseException | None", stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            answers.put(answer, timeout=_POLL)
            return
        except queue.Full:
            continue
