"""Write files so that a reader never sees half of one; name contents by their hash."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from anomalens.errors import ConfigError, InputError

# Beginning of the names of temporary files.
_UNFINISHED = ".writing-"


def atomic_write(path: str | os.PathLike[str], data: bytes | str, *, durable: bool = True) -> None:
    """Write `data` to `path` (text as UTF-8), whole or not at all; arguments and errors as for `atomic_stream`."""
    with atomic_stream(path, durable=durable) as stream:
        stream.write(data.encode("utf-8") if isinstance(data, str) else data)


@contextmanager
def atomic_stream(path: str | os.PathLike[str], *, durable: bool = True) -> Iterator[IO[bytes]]:
    """Open a temporary file in the folder of `path`, which takes that name when the context ends without an exception.

    A link at `path` is replaced, not followed. `durable`: have the content on the disk before it gets its name, so
    that not even a loss of power leaves half of it; that takes some milliseconds.

    Raises OSError (disk full, read-only folder); whatever stood at `path` before is then untouched.
    """
    target = Path(path)
    # The same folder, because a rename is atomic only within one file system.
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=_unfinished(target))
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def flush(path: str | os.PathLike[str]) -> None:
    """Have the content of a file, which some other program wrote, on the disk."""
    with open(path, "rb+") as stream:
        os.fsync(stream.fileno())


def remove_unfinished(place: str | os.PathLike[str]) -> None:
    """Remove the temporary files of `atomic_write` whose process was killed: in a folder and below it, or of a file.

    Only for a place that nobody else is writing to.
    """
    path = Path(place)
    leftovers = path.rglob(f"{_UNFINISHED}*") if path.is_dir() else path.parent.glob(f"{_unfinished(path)}*")
    for leftover in leftovers:
        leftover.unlink(missing_ok=True)


def _unfinished(target: Path) -> str:
    """Return how the names of temporary files of `target` begin: with a digest, because its name may be a long one."""
    return f"{_UNFINISHED}{digest(os.fsencode(target.name))[:8]}-"


def make_folder(folder: str | os.PathLike[str], remedy: str = "choose another --out") -> None:
    """Make `folder` if need be; raise ConfigError where nothing can be written to it: to be known before the work.

    remedy: what to do then, at the end of the message.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        handle, probe = tempfile.mkstemp(dir=folder, prefix=_UNFINISHED)
        os.close(handle)
        os.unlink(probe)
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the name
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot write to {os.fsdecode(folder)}: {reason}; {remedy}") from error


def cache_folder() -> Path:
    """Return the folder for what can be computed or fetched again: $ANOMALENS_CACHE, else in the user's cache."""
    root = os.environ.get("ANOMALENS_CACHE")
    if root:
        return Path(root)
    return Path(os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))) / "anomalens"


def stamp(path: str | os.PathLike[str] | None) -> list[Any] | None:
    """Return size and time of a file, or of every file below a folder, ready for JSON; None where there is nothing.

    Versions under one name are told apart by it without being read.
    """
    if path is None or not Path(path).exists():
        return None
    if Path(path).is_dir():
        return [[entry.name, stamp(entry)] for entry in sorted(Path(path).iterdir())]
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns]


def require_room(folder: str | os.PathLike[str], wanted: int, contents: str) -> None:
    """Raise InputError unless the disk of an existing `folder` has `wanted` bytes free for `contents` (a plural)."""
    free = shutil.disk_usage(folder).free
    if wanted > free:
        raise InputError(
            f"{os.fspath(folder)}: {contents} take {wanted / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; use another"
            " folder, or make fewer"
        )


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as indented JSON, atomically. NaN and infinity are refused (they are not JSON)."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # Half a surrogate pair, as in a name that is no text, is written as JSON's escape.
    atomic_write(path, text.encode("utf-8", "backslashreplace"))


def json_ready(value: Any) -> Any:
    """Return `value` as JSON would give it back: tuples become lists, keys become text."""
    return json.loads(json.dumps(value))


def digest(content: bytes | str) -> str:
    """Return the sha256 of `content` (text as UTF-8), as 64 hexadecimal digits."""
    return hashlib.sha256(content.encode("utf-8") if isinstance(content, str) else content).hexdigest()


def file_digest(path: str | os.PathLike[str]) -> str:
    """Return the sha256 of a file's content, as 64 hexadecimal digits, without holding the file in memory."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def file_key(path: str | os.PathLike[str]) -> int:
    """Return a 63-bit number of a file's bytes, small enough to keep for each image of a training set."""
    with open(path, "rb") as stream:
        key = hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=8)).digest()
    return int.from_bytes(key, "big") >> 1
