"""Unpack an archive that anybody may have made: zip, or tar with any of the usual compressions.

Regular files alone come out, each below the folder it is unpacked to. What would leave that folder, links, devices,
locked files, two files of one name, and archives that unpack to far more than they hold are refused; nothing of them is
kept.
"""

import lzma
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from anomalens.errors import InputError, one_line
from anomalens.files import make_folder, require_room
from anomalens.images.sources import is_visible_folder

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".txz")

_MOST_FILES = 1_000_000
# Images hardly shrink, masks and tables do: no published set unpacks to more than a few times its archive.
_MOST_TIMES, _ALWAYS_ALLOWED = 50, 2**28
_CHUNK = 2**20
_LONGEST_NAME = 255  # bytes of a file's name on the usual disks
# What the readers of damaged archives raise; a name that is no text is a ValueError.
_DAMAGED = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, ValueError, OverflowError, RuntimeError),
)
_UNPACKING = ".unpacking-"

Progress = Callable[[int, int], object]
"""Called with the bytes read of the archives so far, and the bytes they have in all."""


@dataclass(frozen=True)
class _Member:
    """Describe a file of an archive."""

    name: str
    # Bytes when unpacked, as the archive says.
    size: int
    open: Callable[[], IO[bytes] | None]


def is_archive(path: Path) -> bool:
    """Return whether a file is called as an archive is."""
    return path.name.casefold().endswith(SUFFIXES) and path.is_file()


@contextmanager
def unpacked(archives: list[Path], target: Path, progress: Progress | None = None) -> Iterator[Path]:
    """Give a folder beside `target` with the content of all archives, while the block runs.

    The block moves away what it wants to keep; the rest is removed, also where something goes wrong. What a killed run
    left is removed before.

    Raises:
        InputError: an archive cannot be read, is damaged or hostile, or the disk has no room.
        ConfigError: nothing can be written beside `target`.
    """
    make_folder(target.parent)
    folder = target.parent / f"{_UNPACKING}{target.name}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        sizes = [archive.stat().st_size for archive in archives]
        for number, archive in enumerate(archives):
            unpack(archive, folder, partial(_report, progress, sum(sizes[:number]), sum(sizes)))
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _report(progress: Progress | None, before: int, total: int, done: int) -> None:
    if progress:
        progress(before + done, total)


def unpack(archive: Path, folder: Path, progress: Callable[[int], object] | None = None) -> None:
    """Write the files of an archive below an existing folder; files of the system and hidden ones are left out.

    progress: called with the bytes of the archive that were read, as far as that is known.

    Raises InputError where it cannot be read, is damaged or hostile, or the disk has no room.
    """
    length = archive.stat().st_size
    allowed = _MOST_TIMES * length + _ALWAYS_ALLOWED
    written = count = 0
    try:
        with open(archive, "rb") as stream:
            for member in _members(archive, stream):
                path = _inside(member.name, archive)
                if path is None:
                    continue
                count += 1
                if count > _MOST_FILES:
                    raise InputError(f"{archive}: holds more than {_MOST_FILES:,} files")
                require_room(folder, member.size, "the files of the archive")
                written += _write(member, folder / path, archive, allowed - written)
                if progress:
                    progress(min(stream.tell(), length))
    except InputError:
        raise
    except FileExistsError as error:
        raise InputError(f"{archive}: a file called {Path(error.filename).name!r:.200} is there twice") from error
    except _DAMAGED as error:
        raise InputError(f"{archive}: a damaged archive ({one_line(error)}); get it again") from error
    except OSError as error:
        raise InputError(f"{archive}: cannot be unpacked ({one_line(error)})") from error


def _members(archive: Path, stream: IO[bytes]) -> Iterator[_Member]:
    """Yield the regular files of an archive in its order. Raises InputError for what is neither file nor folder."""
    if zipfile.is_zipfile(stream):
        with zipfile.ZipFile(stream) as container:
            for entry in container.infolist():
                kind = stat.S_IFMT(entry.external_attr >> 16)
                if entry.is_dir():
                    continue
                if kind not in (0, stat.S_IFREG):
                    raise InputError(
                        f"{archive}: {entry.filename!r:.200} is a link or a device, which no data set needs"
                    )
                if entry.flag_bits & 1:
                    raise InputError(f"{archive}: {entry.filename!r:.200} is locked by a password")
                yield _Member(entry.filename, entry.file_size, partial(container.open, entry))
        return
    stream.seek(0)
    with tarfile.open(fileobj=stream, mode="r:*") as tape:
        for info in tape:
            if info.isdir():
                continue
            if not info.isreg() or info.issparse():
                raise InputError(f"{archive}: {info.name!r:.200} is a link or a device; no data set needs any")
            yield _Member(info.name, info.size, partial(tape.extractfile, info))


def _inside(name: str, archive: Path) -> Path | None:
    """Return the path of a file below the folder; None for a hidden file and those that systems make for themselves.

    Raises InputError for a name that leads elsewhere, or that would on another system.
    """
    path = PurePosixPath(name)
    unsafe = not path.parts or path.is_absolute() or ".." in path.parts or any(sign in name for sign in "\\\0:")
    if unsafe or any(len(os.fsencode(part)) > _LONGEST_NAME for part in path.parts):
        raise InputError(f"{archive}: holds a file {name!r:.200}, whose name leads out of the folder or fits no disk")
    parts = [part for part in path.parts if part != "."]
    if parts[-1].startswith(".") or not all(is_visible_folder(part) for part in parts[:-1]):
        return None
    return Path(*parts)


def _write(member: _Member, path: Path, archive: Path, allowed: int) -> int:
    """Write a file of the archive, of at most `allowed` bytes; return how many it has."""
    source = member.open()
    if source is None:
        raise InputError(f"{archive}: {member.name!r:.200} has no content")
    path.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with source, open(path, "xb") as target:
        while chunk := source.read(_CHUNK):
            count += len(chunk)
            if count > min(allowed, member.size):
                raise InputError(
                    f"{archive}: unpacks to far more than an archive of its size can hold, or than it says; nothing is "
                    "kept of it"
                )
            target.write(chunk)
    if count != member.size:
        raise InputError(f"{archive}: {member.name!r:.200} is cut off; get the archive again")
    return count
