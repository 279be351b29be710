"""Tests of deleting what is old: rows and pictures go together, and nothing that is needed goes."""

import os
import time
from datetime import timedelta
from pathlib import Path

from anomalens.serving.database import Database
from anomalens.serving.history import Filters, History
from anomalens.serving.media import MediaFolder
from anomalens.serving.retention import prune
from anomalens.serving.schema import Inspection, now


def stored(history: History, media: MediaFolder, id: str, content: bytes, days: float) -> str:
    """Store an inspection of so many days ago; return the name of its picture."""
    original = media.put(content)
    history.add(
        [
            Inspection(
                id=id, created=now() - timedelta(days=days), state="done", station=media.station, name=id, place=0,
                original=original, bytes=1, method="auto", object="object", regions=[], reviews=[],
            )
        ]
    )  # fmt: skip
    return original


def age(media: MediaFolder, name: str) -> None:
    """Make a file look two hours old."""
    os.utime(media.path(name), (time.time() - 7200,) * 2)


def test_old_inspections_go_with_their_pictures(tmp_path: Path) -> None:
    database, media = Database(f"sqlite:///{tmp_path / 'h.db'}"), MediaFolder(tmp_path / "media")
    history = History(database)
    old = stored(history, media, "old", b"old", 10)
    stored(history, media, "shared", b"shared", 10)
    shared = stored(history, media, "new", b"shared", 1)
    assert prune(database, media, 5, dry_run=True).inspections == 2
    assert media.path(old).exists()
    assert prune(database, media, 5).inspections == 2
    assert [row.id for row in history.each(Filters())] == ["new"]
    assert not media.path(old).exists()
    assert media.path(shared).exists()
    assert prune(database, media, 5).inspections == 0
    database.close()


def test_files_without_a_row_go_after_an_hour(tmp_path: Path) -> None:
    database, media = Database(f"sqlite:///{tmp_path / 'h.db'}"), MediaFolder(tmp_path / "media")
    needed = stored(History(database), media, "a", b"needed", 100)
    left, fresh = media.put(b"left by a crash"), media.put(b"being stored")
    for name in (needed, left):
        age(media, name)
    pruned = prune(database, media, None, dry_run=True)
    assert (pruned.files, pruned.bytes) == (1, len(b"left by a crash"))
    assert media.path(left).exists()
    assert prune(database, media, None).files == 1
    assert not media.path(left).exists()
    assert media.path(needed).exists()
    assert media.path(fresh).exists()
    database.close()


def test_the_same_bytes_are_stored_once_and_touched(tmp_path: Path) -> None:
    media = MediaFolder(tmp_path / "media")
    name = media.put(b"image")
    age(media, name)
    assert media.put(b"image") == name
    assert [entry[0] for entry in media.names()] == [name]
    assert next(iter(media.names()))[1] < 60
