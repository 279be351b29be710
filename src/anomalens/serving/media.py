"""Keep the bytes of images and maps in files named by their content, so that the same bytes are there once.

    MEDIA/ab/abcd…            a file named by the sha256 of its content
    MEDIA/station.json        who writes here, by which rows of a shared database are told apart

A file is written whole, and is on the disk before any row speaks of it.
"""

import os
import re
import threading
import time
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from anomalens.errors import InputError
from anomalens.files import atomic_write, digest, make_folder, write_json
from anomalens.images.maps import Map
from anomalens.untrusted import read_bytes, read_json

_DIGEST = re.compile(r"[0-9a-f]{64}")
_STATION = "station.json"
# Largest map that is read back, in bytes.
_LARGEST_MAP = 2**30


class MediaFolder:
    """Hold files by their content. Raises ConfigError where the folder cannot be written."""

    def __init__(self, folder: Path) -> None:
        """Open or make `folder`."""
        make_folder(folder)
        self.folder = folder.absolute()
        # Taken while files are put and their rows written, and while files that no row needs are deleted.
        self.guard = threading.Lock()
        self.station = self._read_station()

    def put(self, content: bytes, suffix: str = "") -> str:
        """Store bytes; return their name: 64 hexadecimal digits and `suffix`. Raises OSError for a full disk."""
        name = digest(content) + suffix
        target = self.path(name)
        if target.exists():
            # So that whoever deletes old files sees that it is used again.
            os.utime(target)
            return name
        target.parent.mkdir(exist_ok=True)
        atomic_write(target, content)
        _sync_folder(target.parent)
        return name

    def path(self, name: str) -> Path:
        """Return where the file of a name lies. Raises ValueError for what is no such name."""
        if not _DIGEST.match(name) or "/" in name or "\\" in name or ".." in name:
            raise ValueError(f"{name!r:.100} is no name of a media file")
        return self.folder / name[:2] / name

    def remove(self, name: str) -> None:
        """Delete a file, if it is there."""
        self.path(name).unlink(missing_ok=True)

    def names(self) -> Iterator[tuple[str, float, int]]:
        """Yield the name of every file, its age in seconds and its bytes."""
        now = time.time()
        for folder in sorted(self.folder.glob("[0-9a-f][0-9a-f]")):
            for path in sorted(folder.iterdir()):
                if _DIGEST.match(path.name):
                    status = path.stat()
                    yield path.name, now - status.st_mtime, status.st_size

    @contextmanager
    def adding(self) -> Iterator[None]:
        """Keep files from being deleted between being put and being named by a row."""
        with self.guard:
            yield

    def _read_station(self) -> str:
        path = self.folder / _STATION
        if not path.exists():
            write_json(path, {"station": uuid.uuid4().hex})
        return str(read_json(path, named="station")["station"])


def pack_map(values: Map) -> bytes:
    """Return a map float32 [h, w] as bytes without loss; `unpack_map` is the inverse.

    The lowest bytes of all values stand together, then the next ones. The upper two bytes of neighbours are alike and
    shrink well; the lower two are like noise, and are kept as they are.
    """
    planes = np.ascontiguousarray(values, "<f4").view(np.uint8).reshape(-1, 4).T
    head = np.array(values.shape, "<u4").tobytes()
    return head + _zlib_stream(planes[:2].tobytes(), planes[2:].tobytes())


def unpack_map(path: Path) -> Map:
    """Return the map in a file of `pack_map`. Raises InputError where it is missing or damaged."""
    content = read_bytes(path, named="map", error=InputError, most_bytes=_LARGEST_MAP)
    try:
        height, width = (int(side) for side in np.frombuffer(content[:8], "<u4"))
        count = 4 * height * width
        if count > _LARGEST_MAP:
            raise ValueError("too large")
        raw = zlib.decompressobj().decompress(content[8:], count)
        planes = np.frombuffer(raw, np.uint8).reshape(4, -1)
        return np.ascontiguousarray(planes.T).view("<f4").reshape(height, width).astype(np.float32)
    except (ValueError, zlib.error) as error:
        raise InputError(f"a stored map is damaged ({error}); inspect the image again") from error


def _zlib_stream(kept: bytes, shrunk: bytes) -> bytes:
    """Return a zlib stream (RFC 1950) of `kept`, not compressed, and then `shrunk`, compressed quickly."""
    without, quickly = zlib.compressobj(0, wbits=-zlib.MAX_WBITS), zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    blocks = without.compress(kept) + without.flush(zlib.Z_SYNC_FLUSH) + quickly.compress(shrunk) + quickly.flush()
    return b"\x78\x01" + blocks + zlib.adler32(shrunk, zlib.adler32(kept)).to_bytes(4, "big")


def _sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
