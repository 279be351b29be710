"""Teach recipes in the background, one after the other; what was accepted is taught even after a restart."""

import logging
import tempfile
import threading
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import select, update
from sqlalchemy.exc import InterfaceError, OperationalError

from anomalens.decision.conformal import needed
from anomalens.detection.detector import Detector
from anomalens.detection.loading import load_detector, read_roi
from anomalens.detection.recipe import SUFFIX
from anomalens.errors import AnomalensError, ConfigError, InputError, one_line
from anomalens.names import name_text
from anomalens.prediction import Prediction
from anomalens.serving.history import Filters, NotFoundError, present
from anomalens.serving.recipe_versions import checked_name
from anomalens.serving.schema import Inspection, Job, RecipeVersion
from anomalens.serving.uploads import UploadedImage, problem_of

if TYPE_CHECKING:
    from anomalens.serving.service import Service

_log = logging.getLogger("anomalens.serving")

# Reviewed images that a new version is compared on at most, the latest.
_MOST_COMPARED = 200
# Seconds that a store which does not answer is left alone, at first and at most.
_PAUSE, _LONGEST = 1.0, 30.0
# Photographs of a job at most: what is remembered of each lies in memory.
MOST_PHOTOS = 1000


@dataclass(frozen=True)
class Wish:
    """Say what a recipe is to be taught from; see `Detector.fit`."""

    name: str
    # Photographs that were sent.
    images: Sequence[UploadedImage] = ()
    # Inspections whose images are photographs too.
    inspections: Sequence[str] = ()
    # Learn more: from the photographs of this version too; None begins anew.
    base: int | None = None
    # Also learn from images of the recipe that people have called good.
    reviewed: bool = False
    # A mask as the bytes of an image, white where defects count.
    roi: bytes | None = None
    fpr: float | None = None
    mixed: bool = False
    object_name: str | None = None
    activate: bool = True


class TeachingJobs:
    """Accept, run and list jobs."""

    def __init__(self, service: "Service") -> None:
        """Go on with what an earlier service has accepted and not taught."""
        self._service = service
        self._worker = ThreadPoolExecutor(1, "anomalens-teach")
        self._closing = threading.Event()
        unfinished = select(Job.id).where(Job.state.in_(("waiting", "running")), Job.station == service.media.station)
        with service.database.reading() as session:
            for id in session.scalars(unfinished.order_by(Job.created)):
                self._worker.submit(self._run, id)

    def submit(self, wish: Wish) -> Job:
        """Accept a wish; it is taught in the background.

        Raises:
            ConfigError: names, rate or base do not go together.
            InputError: no photograph, or one that is no image.
            NotFoundError: an inspection or the base is not there.
        """
        service = self._service
        checked_name(wish.name)
        if wish.base is not None:
            service.recipes.get(wish.name, wish.base)
            if wish.roi is not None or wish.mixed or wish.object_name:
                raise ConfigError("a recipe that learns more keeps its object and region; leave out object, roi, mixed")
        photos = [(row.original, row.name) for row in service.history.get_all(wish.inspections)]
        if len(photos) < len(set(wish.inspections)):
            raise NotFoundError("one of the inspections is not there")
        if wish.reviewed:
            photos += [
                (row.original, row.name) for filters in _called_good(wish.name) for row in service.history.each(filters)
            ]
        count = len({name for name, _ in photos}) + len(wish.images)
        if not count:
            raise InputError("no photo to learn from: send images, name inspections, or have reviewed ones")
        if count > MOST_PHOTOS:
            raise InputError(f"{count} photos, above the limit of {MOST_PHOTOS:,} a recipe")
        self._check_rate(wish, count)
        problems = [problem for image in wish.images if (problem := problem_of(image, service.settings))]
        if wish.roi is not None and (problem := problem_of(UploadedImage("roi", wish.roi), service.settings)):
            problems.append(problem)
        if problems:
            raise InputError("; ".join(problems))
        with service.media.adding():
            photos += [(service.media.put(image.content), image.name) for image in wish.images]
            plain = asdict(replace(wish, images=(), roi=None))
            settings = {
                **plain,
                # The same image once.
                "photos": [{"media": media, "name": name} for media, name in dict(photos).items()],
                "roi": None if wish.roi is None else service.media.put(wish.roi),
            }
            job = Job(
                id=uuid.uuid4().hex,
                name=wish.name,
                station=service.media.station,
                settings=settings,
                total=len(settings["photos"]) * (2 if wish.mixed else 1),
                state="waiting",
                done=0,
            )
            with service.database.writing() as session:
                session.add(job)
        self._worker.submit(self._run, job.id)
        return job

    def get(self, id: str) -> Job:
        """Return a job. Raises NotFoundError."""
        with self._service.database.reading() as session:
            return present(session.get(Job, id), "job")

    def all(self, limit: int = 50) -> list[Job]:
        """Return the latest jobs, the newest first."""
        with self._service.database.reading() as session:
            return list(session.scalars(select(Job).order_by(Job.created.desc()).limit(limit)))

    def close(self) -> None:
        """Stop as soon as can be; what is not taught yet is taught after the next start."""
        self._closing.set()
        self._worker.shutdown(cancel_futures=True)

    def count_called_good(self, name: str) -> int:
        """Count the images of a recipe that it can learn from because people have called them good."""
        return sum(self._service.history.count(filters) for filters in _called_good(name))

    def _check_rate(self, wish: Wish, count: int) -> None:
        if wish.fpr is None:
            return
        if wish.mixed:
            raise ConfigError("no rate of false alarms can be promised of unsorted photos; leave out fpr or mixed")
        known = 0
        if wish.base is not None:
            known = len(self._service.recipes.get(wish.name, wish.base).facts["photos"])
        if count + known < needed(wish.fpr):
            raise InputError(
                f"a rate of {wish.fpr:g} needs at least {needed(wish.fpr)} good photos, {count + known} were given; "
                "add photos or raise the rate"
            )

    def _run(self, id: str) -> None:
        """Do a job; where the store does not answer meanwhile, begin anew once it does."""
        pause = _PAUSE
        while not self._closing.is_set():
            try:
                self._do(id)
                return
            except (InterfaceError, OperationalError) as error:
                _log.error("teaching waits for the store, again in %g s: %s", pause, one_line(error))
            self._closing.wait(pause)
            pause = min(2 * pause, _LONGEST)

    def _do(self, id: str) -> None:
        job = self.get(id)
        try:
            self._update(id, state="running", done=0)
            version, comparison = self._teach(job)
            self._update(id, state="done", done=job.total, version=version.version, comparison=comparison)
        except _StoppedError:
            _log.warning("teaching %s goes on after the next start", job.name)
        except (InterfaceError, OperationalError):
            raise
        except AnomalensError as error:
            self._update(id, state="failed", error=self._without_paths(job, one_line(error)))
        except Exception as error:
            _log.exception("teaching failed")
            self._update(id, state="failed", error=one_line(error))

    def _teach(self, job: Job) -> tuple[RecipeVersion, list[Any]]:
        service, settings = self._service, job.settings
        done = 0

        def step() -> None:
            nonlocal done
            if self._closing.is_set():
                raise _StoppedError
            done += 1
            self._update(job.id, done=min(done, job.total))

        detector, before = self._beginning(job)
        paths = [str(service.media.path(photo["media"])) for photo in settings["photos"]]
        taught = detector.fit(
            paths, fpr=settings["fpr"], mixed=settings["mixed"], seed=service.settings.options.seed, progress=step
        )
        taught = _named(
            taught, {name_text(path): photo["name"] for path, photo in zip(paths, settings["photos"], strict=True)}
        )
        left_out = [self._without_paths(job, line) for line in taught.lesson.left_out] if taught.lesson else []
        comparison = self._compare(job.name, before, taught)
        with tempfile.TemporaryDirectory(dir=service.media.folder, prefix=".teaching-") as folder:
            path = Path(folder) / f"recipe{SUFFIX}"
            taught.save(path)
            version = service.recipes.add(job.name, path, activate=settings["activate"], left_out=left_out)
        return version, comparison

    def _beginning(self, job: Job) -> tuple[Detector, Detector | None]:
        """Return the detector that learns, and the one whose answers the taught one is compared with."""
        service, settings = self._service, job.settings
        options = service.settings.options
        if settings["base"] is not None:
            base = load_detector(options.replace(recipe=str(service.recipes.file(job.name, settings["base"]))))
            return base, base
        detector = service.words(options.method)
        detector = detector.for_object(settings["object_name"] or options.object_name)
        if settings["roi"] is not None:
            detector = detector.replace(roi=read_roi(str(service.media.path(settings["roi"])), options.max_pixels))
        return detector, None

    def _compare(self, name: str, before: Detector | None, after: Detector) -> list[Any]:
        """Judge the reviewed images of a recipe anew, to show what changes."""
        service = self._service
        if before is None:
            return []
        rows = [
            row
            for row in service.history.page(Filters(recipe=name, review="any"), limit=_MOST_COMPARED).rows
            if row.label in ("normal", "anomalous") and row.verdict != "unusable"
        ]
        paths = [str(service.media.path(row.original)) for row in rows]
        results = zip(rows, before.predict_iter(paths), after.predict_iter(paths), strict=True)
        return [
            {"id": row.id, "name": row.name, "truth": _truth(row), "before": _brief(old), "after": _brief(new)}
            for row, old, new in results
            if isinstance(old, Prediction) and isinstance(new, Prediction)
        ]

    def _update(self, id: str, **values: Any) -> None:
        with self._service.database.writing() as session:
            session.execute(update(Job).where(Job.id == id).values(**values))

    def _without_paths(self, job: Job, text: str) -> str:
        """Return a message with the names of photographs in the place of their files."""
        for photo in job.settings["photos"]:
            text = text.replace(str(self._service.media.path(photo["media"])), photo["name"])
        roi = job.settings["roi"]
        return text.replace(str(self._service.media.path(roi)), "roi") if roi else text


class _StoppedError(Exception):
    """End a job that goes on later."""


def _called_good(name: str) -> tuple[Filters, Filters]:
    """Select the images of a recipe that people have called good: normal and right, or false alarms."""
    return Filters(recipe=name, label="normal", review="right"), Filters(recipe=name, review="false alarm")


def _named(detector: Detector, names: dict[str, str]) -> Detector:
    """Return a taught detector whose photographs bear the names that people gave them."""
    lesson = detector.lesson
    if lesson is None:
        return detector
    photos = tuple(replace(photo, name=names.get(photo.name, photo.name)) for photo in lesson.photos)
    return detector.replace(lesson=replace(lesson, photos=photos))


def _truth(row: Inspection) -> str:
    """Say what an image is, by its answer and what a person said of that."""
    told = {"false alarm": "normal", "missed": "anomalous"}
    return told.get(row.verdict or "", row.label or "")


def _brief(prediction: Prediction) -> dict[str, Any]:
    return {"label": prediction.label, "score": prediction.score}
