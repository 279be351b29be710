"""Let one run at a time write to a place, and say who does to whoever comes second.

The operating system keeps the lock and drops it with the process, however that ends: what a killed run leaves behind
holds nobody up, and is tidied away by the next one. Beside the lock lies a note on who holds it, for people.
"""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from errno import ENOLCK, ENOTSUP
from pathlib import Path
from typing import Any

from anomalens.errors import AnomalensError, ConfigError
from anomalens.files import make_folder, remove_unfinished, write_json
from anomalens.untrusted import read_json

_LOCK, _NOTE = ".lock", ".lock.json"
_LONGEST_WAIT = 600.0  # seconds for another process that computes the same

_log = logging.getLogger("anomalens")


@contextmanager
def locked(place: Path, purpose: str, *, wait: bool = False) -> Iterator[None]:
    """Hold a lock on `place` while the block runs.

    Args:
        place: a folder that exists, or a file to be written, whose folder exists.
        purpose: the command or work, in a word, for whoever comes second ("detect").
        wait: wait for the other to end, ten minutes at most, instead of raising an error.

    Raises:
        ConfigError: another process, or another thread of this one, holds it; the message says who, where, since when.
        OSError: the lock cannot be written.
    """
    from filelock import Timeout

    lock, note = (_beside(place, name) for name in (_LOCK, _NOTE))
    # Whoever ends in good order removes the lock.
    died = lock.exists()
    handle = _acquire(lock, 0.0, Timeout)
    if handle is None and wait:
        _log.warning("%s: waiting for another run (%s)", place, _holder(note))
        handle = _acquire(lock, _LONGEST_WAIT, Timeout)
    if handle is None:
        raise ConfigError(
            f"{place} is being written by another run ({_holder(note)}); wait for its end, or choose another place"
        )
    try:
        if died:
            remove_unfinished(place)
        since = datetime.now().astimezone().isoformat(timespec="seconds")
        write_json(note, {"purpose": purpose, "pid": os.getpid(), "host": socket.gethostname(), "since": since})
        yield
    finally:
        # Before the lock is dropped, while both are nobody else's. Windows does not remove what is open.
        for leftover in (note, lock):
            with suppress(OSError):
                leftover.unlink()
        handle.release()


@contextmanager
def held_folder(folder: Path, purpose: str) -> Iterator[None]:
    """Make the folder of a run if need be, and hold a lock on it while the block runs.

    Raises ConfigError where it cannot be written, or another run writes to it; OSError as `locked`.
    """
    make_folder(folder)
    with locked(folder, purpose):
        yield


def is_lock(name: str) -> bool:
    """Return whether a file name is that of a lock or of its note."""
    return name.endswith((_LOCK, _NOTE))


def _beside(place: Path, name: str) -> Path:
    return place / name if place.is_dir() else place.with_name(f".{place.name}{name}")


def _acquire(path: Path, seconds: float, timeout: type[Exception]) -> Any:
    """Return the lock that was taken; None where another holds it."""
    from filelock import FileLock, SoftFileLock

    for kind in (FileLock, SoftFileLock):
        try:
            lock = kind(path, timeout=seconds)
            lock.acquire()
            return lock
        except timeout:
            return None
        except OSError as error:
            # Some network file systems keep no locks: there the file itself is the lock, known by its process number.
            if error.errno not in (ENOLCK, ENOTSUP) or kind is SoftFileLock:
                raise
    return None


def _holder(note: Path) -> str:
    """Say who holds a lock, as far as the note beside it can be read."""
    try:
        holder = read_json(note, named="lock", most_bytes=4096)
        return f"{holder['purpose']}, process {holder['pid']} on {holder['host']}, since {holder['since']}"
    except (AnomalensError, KeyError, TypeError):
        return "it has just begun"
