"""Write and read the history of inspections: what was asked, what was answered, what people said of it."""

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

from sqlalchemy import ColumnElement, Select, delete, func, literal, select, tuple_
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, lazyload

from anomalens.errors import ConfigError, InputError
from anomalens.prediction import Region as FoundRegion
from anomalens.serving.database import Database
from anomalens.serving.schema import Delivery, Inspection, Region, Review, Upload, Webhook, now

Verdict = Literal["right", "false alarm", "missed", "unusable"]
Row = TypeVar("Row")
Sort = Literal["newest", "oldest", "worst"]

# Rows read at a time where all of many are read.
_CHUNK = 500


class NotFoundError(InputError):
    """Say that there is no such inspection, recipe, picture or webhook."""


class ConflictError(ConfigError):
    """Say that something cannot be done in the present state of an inspection or recipe."""


class ReusedKeyError(InputError):
    """Say that a request's own key was used before for another request."""


@dataclass(frozen=True)
class Filters:
    """Say which inspections are meant; None and "" mean all."""

    recipe: str | None = None
    label: str | None = None
    state: str | None = None
    # A verdict, "none" for those without, "any" for those with one.
    review: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    score_min: float | None = None
    score_max: float | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return the filters for a statement."""
        conditions: list[ColumnElement[bool]] = []
        for column, value in (
            (Inspection.recipe, self.recipe),
            (Inspection.label, self.label),
            (Inspection.state, self.state),
        ):
            if value:
                conditions.append(column == value)
        if self.review == "none":
            conditions.append(Inspection.verdict.is_(None))
        elif self.review == "any":
            conditions.append(Inspection.verdict.is_not(None))
        elif self.review:
            conditions.append(Inspection.verdict == self.review)
        if self.since is not None:
            conditions.append(Inspection.created >= in_utc(self.since))
        if self.until is not None:
            conditions.append(Inspection.created < in_utc(self.until))
        if self.score_min is not None:
            conditions.append(Inspection.score >= self.score_min)
        if self.score_max is not None:
            conditions.append(Inspection.score <= self.score_max)
        return conditions


@dataclass(frozen=True)
class Page:
    """Hold some inspections of many, and where the next ones begin."""

    rows: list[Inspection]
    # What `History.page` continues with; None at the end.
    next: str | None


@dataclass(frozen=True)
class Answer:
    """Hold what became of an image: the values of its row, and its regions."""

    id: str
    values: dict[str, Any]
    regions: Sequence[FoundRegion] = ()


class History:
    """Read and write inspections; every change is one transaction."""

    def __init__(self, database: Database) -> None:
        """Keep the inspections of a database."""
        self._database = database

    def add(self, rows: Sequence[Inspection], upload: Upload | None = None) -> list[Inspection]:
        """Store new inspections; return them, or those of an earlier request with the same key.

        Raises ReusedKeyError where that request was another one.
        """
        try:
            with self._database.writing() as session:
                if upload is not None:
                    known = session.get(Upload, upload.key)
                    if known is not None:
                        return self._earlier(session, known, upload)
                    session.add(upload)
                    session.flush()
                session.add_all(rows)
            return list(rows)
        except IntegrityError:
            if upload is None:
                raise
            # Another request with this key was stored in the meantime.
            with self._database.reading() as session:
                known = session.get(Upload, upload.key)
                if known is None:
                    raise
                return self._earlier(session, known, upload)

    def earlier(self, upload: Upload) -> list[Inspection] | None:
        """Return the inspections of an earlier request with the same key; None without one."""
        with self._database.reading() as session:
            known = session.get(Upload, upload.key)
            return None if known is None else self._earlier(session, known, upload)

    @staticmethod
    def _earlier(session: Session, known: Upload, upload: Upload) -> list[Inspection]:
        if known.digest != upload.digest:
            raise ReusedKeyError("this Idempotency-Key was used for another request; send a new key")
        statement = select(Inspection).where(Inspection.upload_key == known.key).order_by(Inspection.place)
        return list(session.scalars(statement))

    def answer(self, answers: Sequence[Answer]) -> None:
        """Store answers, and the messages to webhooks that follow from them, all or none.

        What was deleted in the meantime stays so.
        """
        with self._database.writing() as session:
            hooks = list(session.scalars(select(Webhook)))
            for answer in answers:
                row = session.get(
                    Inspection, answer.id, options=[lazyload(Inspection.regions), lazyload(Inspection.reviews)]
                )
                if row is None or row.state != "waiting":
                    continue
                for name, value in answer.values.items():
                    setattr(row, name, value)
                session.add_all(_regions(answer))
                if row.label == "anomalous":
                    session.add_all(
                        Delivery(webhook_id=hook.id, inspection_id=row.id)
                        for hook in hooks
                        if hook.recipe in (None, row.recipe)
                    )

    def waiting(self, station: str) -> list[Inspection]:
        """Return what a station has accepted and not answered, the oldest first."""
        statement = select(Inspection).where(Inspection.state == "waiting", Inspection.station == station)
        with self._database.reading() as session:
            return list(session.scalars(statement.order_by(Inspection.created, Inspection.id)))

    def get(self, id: str) -> Inspection:
        """Return an inspection. Raises NotFoundError."""
        with self._database.reading() as session:
            return present(session.get(Inspection, id))

    def get_all(self, ids: Sequence[str]) -> list[Inspection]:
        """Return inspections in the order of their ids; those that are not there are left out."""
        with self._database.reading() as session:
            rows = {row.id: row for row in session.scalars(select(Inspection).where(Inspection.id.in_(ids)))}
        return [rows[id] for id in ids if id in rows]

    def page(self, filters: Filters, *, sort: Sort = "newest", limit: int = 50, cursor: str | None = None) -> Page:
        """Return some inspections and where the next ones begin.

        Args:
            filters: which ones.
            sort: by time, or by score, the highest first, where there is one.
            limit: how many at most.
            cursor: `Page.next` of the page before. New inspections do not shift what follows.

        Raises ConfigError for a cursor that no page gave.
        """
        column: Any = Inspection.score if sort == "worst" else Inspection.created
        statement = _selected(filters)
        if sort == "worst":
            statement = statement.where(Inspection.score.is_not(None))
        if cursor is not None:
            place = tuple_(column, Inspection.id)
            value, id = _read_cursor(cursor, sort)
            last = tuple_(literal(value, column.type), literal(id))
            statement = statement.where(place > last if sort == "oldest" else place < last)
        order = (column, Inspection.id) if sort == "oldest" else (column.desc(), Inspection.id.desc())
        with self._database.reading() as session:
            rows = list(session.scalars(statement.order_by(*order).limit(limit + 1)))
        more = len(rows) > limit
        rows = rows[:limit]
        return Page(rows, _cursor(rows[-1], sort) if more else None)

    def count(self, filters: Filters) -> int:
        """Return how many inspections there are."""
        with self._database.reading() as session:
            return session.scalar(select(func.count()).select_from(Inspection).where(*filters.conditions())) or 0

    def each(self, filters: Filters) -> Iterator[Inspection]:
        """Yield all inspections that are meant, the oldest first, in constant memory."""
        cursor: str | None = None
        while True:
            page = self.page(filters, sort="oldest", limit=_CHUNK, cursor=cursor)
            yield from page.rows
            if page.next is None:
                return
            cursor = page.next

    def review(self, id: str, verdict: Verdict, comment: str, mask: str | None = None) -> Inspection:
        """Store what a person says of an answer; the same said again, as by a double click, counts once.

        Raises NotFoundError; ConflictError where there is no answer.
        """
        with self._database.writing() as session:
            row = present(session.get(Inspection, id))
            if row.state == "waiting":
                raise ConflictError("this image is not judged yet; review it once it has an answer")
            latest = row.reviews[-1] if row.reviews else None
            if latest is not None and (latest.verdict, latest.comment, latest.mask) == (verdict, comment, mask):
                return row
            row.reviews.append(Review(verdict=verdict, comment=comment, mask=mask, created=now()))
            row.verdict = verdict
        return row

    def undo_review(self, id: str) -> Inspection:
        """Take back the latest review; the one before it counts again. Raises NotFoundError where there is none."""
        with self._database.writing() as session:
            row = present(session.get(Inspection, id))
            if not row.reviews:
                raise NotFoundError("this inspection has no review")
            row.reviews.pop()
            row.verdict = row.reviews[-1].verdict if row.reviews else None
        return row

    def delete(self, ids: Sequence[str]) -> set[str]:
        """Delete inspections; return the names of media files that nothing needs any more."""
        if not ids:
            return set()
        with self._database.writing() as session:
            names = _media_of(session, ids)
            keys = set(session.scalars(select(Inspection.upload_key).where(Inspection.id.in_(ids)))) - {None}
            for table, column in ((Region, Region.inspection_id), (Review, Review.inspection_id)):
                session.execute(delete(table).where(column.in_(ids)))
            session.execute(delete(Delivery).where(Delivery.inspection_id.in_(ids)))
            session.execute(delete(Inspection).where(Inspection.id.in_(ids)))
            used = select(Inspection.upload_key).where(Inspection.upload_key.in_(keys))
            session.execute(delete(Upload).where(Upload.key.in_(keys), Upload.key.not_in(used)))
            return names - needed_media(session, names)

    def older_than(self, time: datetime, limit: int = _CHUNK) -> list[str]:
        """Return ids of answered inspections from before `time`, the oldest first."""
        statement = select(Inspection.id).where(Inspection.created < time, Inspection.state != "waiting")
        with self._database.reading() as session:
            return list(session.scalars(statement.order_by(Inspection.created).limit(limit)))

    def count_older(self, time: datetime) -> int:
        """Count what `older_than` would return without a limit."""
        statement = select(func.count()).select_from(Inspection)
        with self._database.reading() as session:
            return session.scalar(statement.where(Inspection.created < time, Inspection.state != "waiting")) or 0


def needed_media(session: Session, names: set[str]) -> set[str]:
    """Return those of some names of media files that a row needs."""
    from anomalens.serving.schema import Job, RecipeVersion

    needed: set[str] = set()
    for column in (Inspection.original, Inspection.map, Review.mask, RecipeVersion.file):
        needed |= {name for name in session.scalars(select(column).where(column.in_(names))) if name}
    # Photographs of teachings that are not done.
    for settings in session.scalars(select(Job.settings).where(Job.state.in_(("waiting", "running")))):
        needed |= names & {photo["media"] for photo in settings["photos"]}
        needed |= names & {settings.get("roi")}
    return needed


def _media_of(session: Session, ids: Sequence[str]) -> set[str]:
    pairs = session.execute(select(Inspection.original, Inspection.map).where(Inspection.id.in_(ids)))
    masks = session.scalars(select(Review.mask).where(Review.inspection_id.in_(ids)))
    return {name for names in (*pairs, masks) for name in names if name}


def _selected(filters: Filters) -> Select[Inspection]:
    return select(Inspection).where(*filters.conditions())


def present(row: Row | None, kind: str = "inspection") -> Row:
    """Return a row that was looked for. Raises NotFoundError where there is none."""
    if row is None:
        raise NotFoundError(f"there is no such {kind}")
    return row


def _regions(answer: Answer) -> list[Region]:
    return [
        Region(
            inspection_id=answer.id,
            place=place,
            left=region.box[0],
            top=region.box[1],
            right=region.box[2],
            bottom=region.box[3],
            area=region.area,
            peak=region.peak,
            peak_x=region.peak_at[0],
            peak_y=region.peak_at[1],
            mm_per_px=region.mm_per_px,
        )
        for place, region in enumerate(answer.regions)
    ]


def _cursor(row: Inspection, sort: Sort) -> str:
    value = row.score if sort == "worst" else row.created.isoformat()
    return base64.urlsafe_b64encode(json.dumps([sort, value, row.id]).encode()).decode().rstrip("=")


def _read_cursor(cursor: str, sort: Sort) -> tuple[Any, str]:
    try:
        kind, value, id = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if kind != sort or not isinstance(id, str):
            raise ValueError("another order")
        return (float(value) if sort == "worst" else in_utc(datetime.fromisoformat(value))), id
    except (ValueError, TypeError, RecursionError) as error:
        raise ConfigError("this cursor is not one that a page of this order gave; begin without one") from error


def in_utc(time: datetime) -> datetime:
    """Return a time as it is in UTC: one without a zone is of UTC, one beyond all dates the first or last there is."""
    if time.tzinfo is None:
        return time.replace(tzinfo=UTC)
    try:
        return time.astimezone(UTC)
    except OverflowError:
        return (datetime.min if time.year == 1 else datetime.max).replace(tzinfo=UTC)
