"""A session: results as soon as they can be had, bounded queues, threads that end, detectors that are shared."""

import pickle
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anomalens import load_detector
from anomalens.backbones.tower import Clip
from anomalens.detection.detector import Detector
from anomalens.detection.session import Session
from anomalens.engines.contract import Engine, Floats, Scored
from anomalens.prediction import Failure, Prediction
from toys import grey, make, predictions

PATIENCE = 20  # seconds after which a test that waits for a thread fails


class Gate:
    """Score only while the gate is open, with the engine behind it, and keep the sizes of the batches."""

    parallel = 1
    runtime = "numpy"

    def __init__(self, inner: Engine) -> None:
        self.inner, self.open = inner, threading.Event()
        self.sizes: list[int] = []
        self.identity = inner.identity
        self.open.set()

    def for_object(self, name: str) -> "Gate":
        return self

    def score_batch(self, pixels: Floats, keys: Sequence[int], sharing: int = 1) -> Scored:
        assert self.open.wait(PATIENCE)
        self.sizes.append(len(pixels))
        return self.inner.score_batch(pixels, keys, sharing)


def gated(tiny_clip: Clip, **options: Any) -> tuple[Detector, Gate]:
    detector = make(tiny_clip, **options)
    gate = Gate(detector.engine)
    return detector.replace(engine=gate), gate


def anomalens_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("anomalens")]


def test_a_live_source_gets_each_answer_before_the_next_image(tiny_clip: Clip) -> None:
    answered = threading.Event()

    def camera() -> Iterator[np.ndarray]:
        for value in (10, 20, 30):
            answered.clear()
            yield grey(value)
            assert answered.wait(PATIENCE), "no answer although nothing more was on its way"

    scores = []
    for result in make(tiny_clip, batch_size=8).predict_iter(camera()):
        assert isinstance(result, Prediction)
        scores.append(result.score * 255)
        answered.set()
    assert scores == pytest.approx([10, 20, 30], abs=1e-3)


def test_a_list_is_batched_alike_every_time(tiny_clip: Clip) -> None:
    detector, gate = gated(tiny_clip, batch_size=4)
    for _ in range(3):
        gate.sizes.clear()
        detector.predict_many([grey(value) for value in range(10)])
        assert gate.sizes == [4, 4, 2]


def test_failures_that_fill_the_queue_do_not_stop_the_images_before_them(tiny_clip: Clip) -> None:
    detector = make(tiny_clip, batch_size=4)
    results = detector.predict_many([grey(51), *["missing.png"] * 40, grey(204)])
    assert [type(result) for result in results] == [Prediction, *[Failure] * 40, Prediction]


def test_an_error_of_the_source_comes_after_the_results_before_it(tiny_clip: Clip) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield grey(51)
        raise RuntimeError("the camera is gone")

    results = make(tiny_clip).predict_iter(broken())
    assert isinstance(next(results), Prediction)
    with pytest.raises(RuntimeError, match="camera is gone"):
        next(results)
    assert anomalens_threads() == []


def test_an_error_of_the_engine_reaches_whoever_waits(tiny_clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    detector, gate = gated(tiny_clip)

    def broken(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(gate, "score_batch", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        detector.predict(grey(1))
    with pytest.raises(RuntimeError, match="out of memory"):
        detector.predict_many([grey(1), grey(2)])
    assert anomalens_threads() == []


def test_submit_gives_futures_and_refuses_when_the_queue_is_full(tiny_clip: Clip) -> None:
    detector, gate = gated(tiny_clip, batch_size=2)
    gate.open.clear()
    with Session(detector, queue_size=3) as session:
        answers = [session.submit(grey(value), name=f"{value}.png") for value in (10, 20, 30)]
        with pytest.raises(queue.Full, match="3 images"):
            session.submit(grey(40), timeout=0)
        gate.open.set()
        results = [answer.result(PATIENCE) for answer in answers]
        assert [result.path for result in results] == ["10.png", "20.png", "30.png"]
        assert isinstance(session.submit("missing.png").result(PATIENCE), Failure)
    with pytest.raises(RuntimeError, match="closed"):
        session.submit(grey(1))


def test_closing_answers_what_was_accepted_or_drops_it(tiny_clip: Clip) -> None:
    detector, gate = gated(tiny_clip, batch_size=2)
    session = Session(detector, max_wait=None)
    answers = [session.submit(grey(value)) for value in (10, 20, 30)]
    session.close()
    assert [scored.score * 255 for scored in predictions(answer.result(0) for answer in answers)] == pytest.approx(
        [10, 20, 30], abs=1e-3
    )
    gate.sizes.clear()
    session = Session(detector, max_wait=None)
    answer = session.submit(grey(10))
    session.close(finish=False)
    assert answer.cancelled()
    assert gate.sizes == []
    assert anomalens_threads() == []


def test_leaving_while_images_are_decoded_ends_all_threads(tiny_clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    decoding, go_on, prepare = threading.Event(), threading.Event(), Detector.prepare

    def slow(self: Detector, *arguments: Any) -> object:
        decoding.set()
        assert go_on.wait(PATIENCE)
        return prepare(self, *arguments)

    monkeypatch.setattr(Detector, "prepare", slow)
    session = Session(make(tiny_clip, workers=1), max_wait=None)
    answers = [session.submit(grey(value)) for value in (10, 20, 30)]
    assert decoding.wait(PATIENCE)
    # The first image is being decoded, so the others are cancelled before anybody waits for them.
    leaving = threading.Thread(target=session.close, kwargs={"finish": False}, daemon=True)
    leaving.start()
    while not session._decoders._shutdown or session._decoders._work_queue.qsize() > 1:
        time.sleep(0.01)
    go_on.set()
    leaving.join(PATIENCE)
    assert not leaving.is_alive()
    assert all(answer.cancelled() for answer in answers)
    assert anomalens_threads() == []


def test_threads_may_share_a_detector(tiny_weights: Path) -> None:
    images = [np.random.default_rng(i).integers(0, 256, (70, 80, 3), dtype=np.uint8) for i in range(8)]
    for method in ("anoclip", "anoclip+"):
        detector = load_detector(method, str(tiny_weights), size=64, views=1)
        want = [detector.predict(image).score for image in images]
        with ThreadPoolExecutor(4) as pool:
            scores = list(pool.map(lambda image, shared=detector: shared.predict(image).score, images))
        assert scores == pytest.approx(want, abs=1e-6)
        with Session(detector) as session, ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(session.submit, images))
            scored = predictions(answer.result(PATIENCE) for answer in answers)
        assert [prediction.score for prediction in scored] == pytest.approx(want, abs=1e-5)


def test_a_detector_can_be_sent_to_another_process_and_is_never_changed(tiny_weights: Path) -> None:
    detector = load_detector("anoclip", str(tiny_weights), size=64, views=1, object_name="bottle")
    copied = pickle.loads(pickle.dumps(detector))
    assert copied.settings == detector.settings
    assert copied.predict(grey(77)).score == detector.predict(grey(77)).score
    with pytest.raises(AttributeError):
        detector.calibration = detector.calibration  # type: ignore[misc]


def test_opencv_frames_are_read_in_their_own_order(tiny_clip: Clip) -> None:
    frame = np.zeros((64, 64, 3), np.uint8)
    frame[..., 2] = 204  # red, in OpenCV's order
    detector = make(tiny_clip)
    assert detector.predict(frame, channels="bgr").score == pytest.approx(0.8)
    assert detector.predict(frame).score == pytest.approx(0.0)
    (result,) = predictions(detector.predict_many([frame], channels="bgr"))
    assert result.score == pytest.approx(0.8)
