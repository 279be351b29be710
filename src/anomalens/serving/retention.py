"""Delete what is older than it need be: inspections, their pictures, and files that no row needs."""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice

from sqlalchemy.exc import SQLAlchemyError

from anomalens.errors import one_line
from anomalens.serving.database import Database
from anomalens.serving.history import History, needed_media
from anomalens.serving.media import MediaFolder
from anomalens.serving.schema import now

_log = logging.getLogger("anomalens.serving")

# Seconds between two looks at what is too old.
_HOURLY = 3600.0
# Seconds that a file may lie without a row: it may belong to a request that is being stored.
_UNCLAIMED = 3600.0
_CHUNK = 500


@dataclass(frozen=True)
class Pruned:
    """Count what was deleted, or would be."""

    inspections: int
    files: int
    bytes: int


def delete_inspections(history: History, media: MediaFolder, ids: Sequence[str]) -> None:
    """Delete inspections, and the pictures that no other needs."""
    with media.guard:
        for name in history.delete(ids):
            media.remove(name)


def prune(database: Database, media: MediaFolder, days: float | None, *, dry_run: bool = False) -> Pruned:
    """Delete inspections older than so many days, and files that no row needs.

    Args:
        database: of the history.
        media: the folder of pictures; a picture that a newer inspection or a recipe needs stays.
        days: None deletes no inspection, only files.
        dry_run: count alone; files that only old inspections need are not counted then.
    """
    history, inspections = History(database), 0
    if days is not None:
        before = now() - timedelta(days=days)
        if dry_run:
            inspections = history.count_older(before)
        else:
            while ids := history.older_than(before, _CHUNK):
                delete_inspections(history, media, ids)
                inspections += len(ids)
    files, size = _unneeded(database, media, dry_run=dry_run)
    return Pruned(inspections, files, size)


def _unneeded(database: Database, media: MediaFolder, *, dry_run: bool) -> tuple[int, int]:
    """Delete files without a row; return their number and bytes."""
    files = size = 0
    old = ((name, bytes_each) for name, age, bytes_each in media.names() if age > _UNCLAIMED)
    while chunk := list(islice(old, _CHUNK)):
        with media.guard, database.reading() as session:
            needed = needed_media(session, {name for name, _ in chunk})
            for name, bytes_each in chunk:
                if name not in needed:
                    files, size = files + 1, size + bytes_each
                    if not dry_run:
                        media.remove(name)
    return files, size


class Janitor:
    """Prune every hour, in a thread of its own."""

    def __init__(self, database: Database, media: MediaFolder, days: float | None) -> None:
        """Start the thread."""
        self._database, self._media, self._days = database, media, days
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="anomalens-prune", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End after what is being deleted."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                pruned = prune(self._database, self._media, self._days)
                if pruned.inspections or pruned.files:
                    _log.info("deleted %d old inspections and %d files", pruned.inspections, pruned.files)
            except (SQLAlchemyError, OSError) as error:
                _log.error("old inspections cannot be deleted: %s", one_line(error))
            self._stopping.wait(_HOURLY)
