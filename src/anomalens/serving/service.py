"""Accept images, have them judged, and answer: what a service does, without the protocol it does it over.

    inspect ─▶ room in the queue? ─▶ bytes in the media folder, rows in the store ─▶ lane ─▶ keeper ─▶ answer

What is accepted is stored first. A service that was killed judges what it had accepted when it starts again.
"""

import logging
import threading
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

from PIL import Image

from anomalens.detection.detector import Detector
from anomalens.detection.loading import load_detector
from anomalens.errors import AnomalensError, ConfigError, InputError
from anomalens.files import digest
from anomalens.locks import locked
from anomalens.methods.sets.set_method import is_set_method
from anomalens.options import DEFAULT_OBJECT
from anomalens.prediction import Failure, Prediction, Result
from anomalens.serving.answers import inspection_json
from anomalens.serving.database import Database
from anomalens.serving.history import Filters, History, Page, Sort, Verdict
from anomalens.serving.keeper import Finished, Keeper
from anomalens.serving.lanes import BusyError, Judge, Lanes
from anomalens.serving.measures import Measures
from anomalens.serving.media import MediaFolder
from anomalens.serving.recipe_versions import RecipeVersions
from anomalens.serving.retention import Janitor, delete_inspections
from anomalens.serving.schema import Inspection, Upload, now
from anomalens.serving.settings import ServeSettings
from anomalens.serving.stored_predictions import Drawn, original_bytes, original_file, picture_of, prediction_of
from anomalens.serving.teaching_jobs import TeachingJobs
from anomalens.serving.uploads import UploadedImage, check_count, check_size, problem_of
from anomalens.serving.webhooks import Messenger, Webhooks

_log = logging.getLogger("anomalens.serving")

# Seconds after which a sender may try again, at least and at most.
_SOONEST, _LATEST = 1, 60


class UnprocessableError(InputError):
    """Say that none of the images of a request can be inspected."""


class Service:
    """Inspect images and remember everything; safe to use from any number of threads.

    Raises ConfigError where the store or the media folder cannot be used, or another service uses the folder.
    """

    def __init__(self, settings: ServeSettings) -> None:
        """Open the store and go on with what an earlier service has accepted and not answered."""
        self.settings = settings
        with ExitStack() as opened:
            self.database = Database(settings.store)
            opened.callback(self.database.close)
            self.media = MediaFolder(settings.media_folder)
            opened.enter_context(locked(self.media.folder / "service", "serve"))
            self.history = History(self.database)
            self.recipes = RecipeVersions(self.database, self.media)
            for path in settings.recipes:
                self.recipes.bring(path)
            self.measures = Measures(lambda: self.queued)
            self.lanes = Lanes(self._load, self.measures.batch, settings.max_detectors)
            opened.callback(self.lanes.close)
            self._opened = opened.pop_all()
        self._words: dict[str, Detector] = {}
        self._lock, self._loading = threading.Lock(), threading.Lock()
        # Images accepted and not answered, and what waits for their answers, by inspection.
        self._queued = 0
        self._awaited: dict[str, list[Future[None]]] = {}
        # Images answered a second, a running mean; for `Retry-After`.
        self._rate, self._last = 1.0, time.monotonic()
        self.closing = False
        self.keeper = Keeper(self.history, self.media)
        self.teaching = TeachingJobs(self)
        self.webhooks, self._messenger = Webhooks(self.database), Messenger(self.database)
        self._janitor = Janitor(self.database, self.media, settings.retention_days)
        self._resume()

    def close(self) -> None:
        """Answer what was accepted, then end."""
        if self.closing:
            return
        self.closing = True
        self.teaching.close()
        self.lanes.close()
        self.keeper.close()
        self._messenger.close()
        self._janitor.close()
        self._opened.close()

    @property
    def queued(self) -> int:
        """Return how many images are accepted and not answered."""
        return self._queued

    def judge(self, recipe: str | None, method: str | None, object_name: str | None) -> Judge:
        """Return what judges by the names in a request.

        Raises ConfigError for names that do not go together, NotFoundError for an unknown recipe.
        """
        if recipe:
            if method or object_name:
                raise ConfigError("a recipe settles method and object; leave these out, or leave out the recipe")
            version = self.recipes.active(recipe)
            return Judge(recipe, version.version, version.facts["method"], version.facts["object"])
        name = method or self.settings.options.method
        if method and not method.replace("+", "").replace("-", "").replace("_", "").isalnum():
            raise ConfigError(f"{method!r:.100} is no name of a method; see `anomalens methods`")
        if is_set_method(name):
            raise ConfigError(
                f"{name} compares the images of a folder with each other; a service judges each by itself"
            )
        return Judge(None, None, name, object_name or self.settings.options.object_name)

    def inspect(
        self, images: Sequence[UploadedImage], judge: Judge, key: str | None = None
    ) -> tuple[list[str], list["Future[None]"]]:
        """Accept images: store them, and have them judged.

        Args:
            images: as they were sent.
            judge: what judges them.
            key: the sender's own key of the request; the same request under the same key is accepted once.

        Returns the ids of the inspections, and a Future for each that ends when its answer is stored.

        Raises:
            UnprocessableError: no image can be read; the others are inspections that failed.
            BusyError: the queue is full; nothing was accepted.
            ReusedKeyError: the key was used for another request.
        """
        check_count(len(images), self.settings)
        for image in images:
            check_size(image.name, len(image.content), self.settings)
        upload = None if key is None else Upload(key=key, digest=_request_digest(images, judge))
        if upload is not None and (rows := self.history.earlier(upload)) is not None:
            return self._await_earlier(rows)
        problems = [problem_of(image, self.settings) for image in images]
        if all(problems):
            raise UnprocessableError("; ".join(problem for problem in problems if problem))
        # Before anything is stored: it says whether there is such a detector.
        self.lanes.require(self._lane(judge))
        good = problems.count(None)
        self._take(good)
        try:
            with self.media.adding():
                rows = [
                    self._row(place, image, problem, judge, key)
                    for place, (image, problem) in enumerate(zip(images, problems, strict=True))
                ]
                stored = self.history.add(rows, upload)
        except BaseException:
            self._give_back(good)
            raise
        if stored and stored[0] is not rows[0]:
            # The same request came twice at the same time, and the other one was first.
            self._give_back(good)
            return self._await_earlier(stored)
        answer = self._await(rows)
        for row in rows:
            if row.state == "waiting":
                self._send(row, judge)
        return answer

    def inspection(self, id: str) -> Inspection:
        """Return an inspection. Raises NotFoundError."""
        return self.history.get(id)

    def inspections(
        self, filters: Filters, *, sort: Sort = "newest", limit: int = 50, cursor: str | None = None
    ) -> Page:
        """Return some inspections; see `History.page`."""
        return self.history.page(filters, sort=sort, limit=limit, cursor=cursor)

    def inspection_json(self, row: Inspection) -> dict[str, object]:
        """Return what the service says of an inspection, ready for JSON."""
        return inspection_json(row)

    def prediction(self, row: Inspection) -> Prediction:
        """Return the prediction of an inspection, map included. Raises NotFoundError without one, InputError."""
        return prediction_of(row, self.media)

    def original(self, row: Inspection) -> Path:
        """Return the file that holds an image's bytes. Raises InputError where it is not on this machine."""
        return original_file(row, self.media)

    def original_bytes(self, row: Inspection) -> bytes:
        """Return an image's bytes. Raises InputError where they are not on this machine."""
        return original_bytes(row, self.media)

    def picture(
        self, row: Inspection, picture: Drawn, side: int | None = None, **thresholds: float | None
    ) -> Image.Image:
        """Draw a picture of an inspection, see `stored_predictions.picture_of`. Raises NotFoundError, InputError."""
        return picture_of(row, self.media, picture, side, **thresholds)

    def review(self, id: str, verdict: Verdict, comment: str = "", mask: bytes | None = None) -> Inspection:
        """Store what a person says of an answer, with a corrected mask if there is one.

        Raises NotFoundError; ConflictError where there is no answer; InputError where the mask is no picture.
        """
        if mask is None:
            return self.history.review(id, verdict, comment)
        problem = problem_of(UploadedImage("mask", mask), self.settings)
        if problem:
            raise InputError(problem)
        with self.media.adding():
            return self.history.review(id, verdict, comment, self.media.put(mask))

    def delete(self, ids: Sequence[str]) -> None:
        """Delete inspections, and the pictures that no other needs."""
        delete_inspections(self.history, self.media, ids)

    def _load(self, judge: Judge) -> Detector:
        """Load the detector of a judge. Raises AnomalensError."""
        if judge.recipe is not None and judge.version is not None:
            return load_detector(
                self.settings.options.replace(recipe=str(self.recipes.file(judge.recipe, judge.version)))
            )
        return self.words(judge.method).for_object(judge.object_name)

    def words(self, method: str = "auto") -> Detector:
        """Return the detector of a method that has learned nothing, loaded once. Raises AnomalensError."""
        with self._loading:
            if method not in self._words:
                detector = load_detector(self.settings.options.replace(method=method))
                detector.require_taught()
                self._words[method] = detector
            return self._words[method]

    def _lane(self, judge: Judge) -> Judge:
        """Return the judge whose lane is used: one for all objects where their names change no score."""
        if judge.recipe is None and self.words(judge.method).identity.ignores_object:
            return replace(judge, object_name=DEFAULT_OBJECT)
        return judge

    def _row(self, place: int, image: UploadedImage, problem: str | None, judge: Judge, key: str | None) -> Inspection:
        """Store an image's bytes, and return its row."""
        return Inspection(
            id=uuid.uuid4().hex,
            created=now(),
            state="failed" if problem else "waiting",
            answered=now() if problem else None,
            error=problem,
            station=self.media.station,
            upload_key=key,
            place=place,
            name=image.name,
            original=self.media.put(image.content),
            bytes=len(image.content),
            recipe=judge.recipe,
            version=judge.version,
            method=judge.method,
            object=judge.object_name,
            regions=[],
            reviews=[],
        )

    def _take(self, count: int) -> None:
        """Take room in the queue. Raises BusyError where there is none."""
        with self._lock:
            if self.closing:
                raise BusyError("the service is stopping", _SOONEST)
            if self._queued + count > self.settings.max_queue:
                ahead = self._queued + count - self.settings.max_queue
                seconds = min(_LATEST, max(_SOONEST, round(ahead / self._rate)))
                raise BusyError(
                    f"{self._queued} images are waiting already, of {self.settings.max_queue} at most", seconds
                )
            self._queued += count

    def _give_back(self, count: int) -> None:
        with self._lock:
            self._queued -= count

    def _await(self, rows: Sequence[Inspection]) -> tuple[list[str], list["Future[None]"]]:
        """Return ids, and Futures that end when the answers are stored."""
        answers: list[Future[None]] = []
        with self._lock:
            for row in rows:
                answer: Future[None] = Future()
                if row.state == "waiting":
                    self._awaited.setdefault(row.id, []).append(answer)
                else:
                    answer.set_result(None)
                answers.append(answer)
        return [row.id for row in rows], answers

    def _await_earlier(self, rows: Sequence[Inspection]) -> tuple[list[str], list["Future[None]"]]:
        """Do the same for inspections that may have been answered between the reading of their rows and now."""
        ids, answers = self._await(rows)
        for row in self.history.get_all([row.id for row in rows if row.state == "waiting"]):
            if row.state != "waiting":
                self._settle(row.id)
        return ids, answers

    def _settle(self, id: str) -> None:
        with self._lock:
            answers = self._awaited.pop(id, [])
        for answer in answers:
            if not answer.done():
                answer.set_result(None)

    def _send(self, row: Inspection, judge: Judge) -> None:
        """Have an accepted image judged; waits where all detectors that may be loaded at a time are at work."""
        finish = partial(self._finished, row)
        try:
            self.lanes.submit(self._lane(judge), self.media.path(row.original), finish)
        except AnomalensError as error:
            finish(error)
        except BusyError:
            # The service is stopping, and judges the image when it starts again.
            self._settle(row.id)

    def _finished(self, row: Inspection, outcome: Result | BaseException) -> None:
        """Take a result from a scoring thread."""
        if isinstance(outcome, AnomalensError):
            outcome = Failure.of(None, outcome)
        label = outcome.label if isinstance(outcome, Prediction) else "failed"
        self.keeper.put(Finished(row.id, row.name, outcome, partial(self._stored, row, label)))

    def _stored(self, row: Inspection, label: str) -> None:
        self.measures.answer(label, row.recipe)
        with self._lock:
            self._queued -= 1
            time_now = time.monotonic()
            self._rate = 0.9 * self._rate + 0.1 / max(time_now - self._last, 1e-3)
            self._last = time_now
        self._settle(row.id)

    def _resume(self) -> None:
        """Have images judged that an earlier service accepted and did not answer."""
        rows = self.history.waiting(self.media.station)
        if rows:
            _log.warning("%d images were accepted before the last stop and are judged now", len(rows))
        with self._lock:
            self._queued += len(rows)
        threading.Thread(target=self._send_all, args=(rows,), name="anomalens-resume", daemon=True).start()

    def _send_all(self, rows: Sequence[Inspection]) -> None:
        for row in rows:
            if self.closing:
                return
            self._send(row, Judge(row.recipe, row.version, row.method, row.object or DEFAULT_OBJECT))


def _request_digest(images: Sequence[UploadedImage], judge: Judge) -> str:
    """Return a hash of what a request asks for: images, names and what judges."""
    parts = [repr((judge.recipe, judge.method, judge.object_name))]
    parts += [f"{image.name!r} {digest(image.content)}" for image in images]
    return digest("\n".join(parts))
