"""Read what anybody may have written, within limits: regular files only, so many bytes, so deep, ordinary numbers.

Python's own readers go as deep and make numbers as large as a file says, and whoever reads a field finds out late that
it is a list where a table was expected. Here such a file is one line of an error instead. What comes back are plain
values; `typed_values.build` makes a dataclass of them.
"""

import errno
import json
import math
import os
import stat
import tomllib
from collections.abc import Callable
from functools import partial
from typing import IO, Any

from anomalens.errors import AnomalensError, ConfigError
from anomalens.names import is_text
from anomalens.typed_values import LARGEST

Path = str | os.PathLike[str]
Kind = type[AnomalensError]

MOST_BYTES = 16 * 2**20  # of a file of JSON
MOST_DEPTH = 32  # of tables and lists within each other
_MOST_HEADER = 4 * 2**20  # bytes of a safetensors header
# Python's reader takes time with the square of the parts of a dotted name, so these are bounded too.
_MOST_TOML, _MOST_DOTS = 2**17, 256
_BEYOND = "a whole number beyond 64 bits"


def open_regular(path: Path) -> IO[bytes]:
    """Open a regular file to read.

    Raises OSError with a `strerror` in plain words: also for a folder, and for a pipe or device, which could keep a
    reader waiting for ever.
    """
    # Without this flag the opening itself waits for the other end of a pipe. Windows has neither.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        reason = "is a folder, not a file" if stat.S_ISDIR(mode) else "is not a regular file"
        raise OSError(errno.EINVAL, reason, os.fspath(path))
    return os.fdopen(descriptor, "rb")


def read_bytes(path: Path, *, named: str = "", error: Kind = ConfigError, most_bytes: int = MOST_BYTES) -> bytes:
    """Return the content of a regular file.

    Args:
        path: the file.
        named: what the file should be ("calibration"); messages begin with it, if it is named, and the path.
        error: class of the error that is raised.
        most_bytes: size above which the file is refused; not more is read.

    Raises `error` where the file is missing, cannot be read, is not regular or too large.
    """
    try:
        with open_regular(path) as stream:
            content = stream.read(most_bytes + 1)
    except (OSError, ValueError) as problem:
        raise error(f"{_title(named, path)}: {_reason(problem)}") from problem
    if len(content) > most_bytes:
        raise error(f"{_title(named, path)}: has more than {most_bytes:,} bytes, the most that is read of such a file")
    return content


def read_json(
    source: Path | bytes,
    *,
    named: str = "",
    error: Kind = ConfigError,
    most_bytes: int = MOST_BYTES,
    most_depth: int = MOST_DEPTH,
    finite: bool = True,
) -> Any:
    """Return the value that a file of JSON, or its content, holds.

    Args:
        source: a path, or the content as bytes.
        named, error, most_bytes: as for `read_bytes`.
        most_depth: how many tables and lists may lie within each other.
        finite: refuse NaN and infinity, which are no JSON, though some programs write them.

    Raises `error` where the file cannot be read, is no JSON in UTF-8, or goes beyond a limit: of size, of depth, of
    whole numbers (64 bits).
    """
    return _read(source, partial(json_value, finite=finite), "JSON", named, error, most_bytes, most_depth)


def read_toml(
    source: Path | bytes, *, named: str = "", error: Kind = ConfigError, most_bytes: int = _MOST_TOML
) -> dict[str, Any]:
    """Return the table that a file of TOML, or its content, holds; arguments and errors as for `read_json`."""
    table: dict[str, Any] = _read(source, _toml_table, "TOML", named, error, most_bytes, MOST_DEPTH)
    return table


def read_header(source: Path | bytes, *, named: str = "", error: Kind = ConfigError) -> dict[str, str]:
    """Return the texts in the header of a safetensors file, or of its content; arguments and errors as for `read_json`.

    The tensors are not looked at.
    """
    name = _title(named, source)
    if isinstance(source, bytes):
        start, length = source[:8], int.from_bytes(source[:8], "little")
        content = source[8 : 8 + min(length, _MOST_HEADER)]
    else:
        try:
            with open_regular(source) as stream:
                start = stream.read(8)
                length = int.from_bytes(start, "little")
                content = stream.read(min(length, _MOST_HEADER))
        except (OSError, ValueError) as problem:
            raise error(f"{name}: {_reason(problem)}") from problem
    if len(start) < 8 or len(content) < length:
        raise error(f"{name}: not a safetensors file, or cut off; get it again")
    header = read_json(content, named=f"header of {name}", error=error, most_bytes=_MOST_HEADER)
    texts = header.get("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise error(f"{name}: its header is not that of a safetensors file; get it again")
    return texts


def json_value(text: str, most_depth: int = MOST_DEPTH, *, finite: bool = True, any_text: bool = False) -> Any:
    """Return the value of a JSON text. Raises ValueError in one line where it is none, or goes beyond a limit.

    `any_text`: allow half characters, by which JSON can spell the name of a file that is no text.
    """
    number = _finite if finite else float
    try:
        value = json.loads(text, parse_int=_whole, parse_float=number, parse_constant=number)
    except RecursionError:
        raise ValueError(_too_deep(most_depth)) from None
    parts = _check_depth(value, most_depth)
    if not any_text and "\\u" in text and not all(is_text(part) for part in parts if isinstance(part, str)):
        raise ValueError("text that is no Unicode")
    return value


def _read(
    source: Path | bytes,
    parse: Callable[[str, int], Any],
    language: str,
    named: str,
    error: Kind,
    most_bytes: int,
    most_depth: int,
) -> Any:
    name = _title(named, source)
    if isinstance(source, bytes):
        content = source
        if len(content) > most_bytes:
            raise error(f"{name}: has more than {most_bytes:,} bytes")
    else:
        content = read_bytes(source, named=named, error=error, most_bytes=most_bytes)
    try:
        return parse(content.decode("utf-8-sig"), most_depth)
    except UnicodeDecodeError as problem:
        raise error(f"{name}: is no {language}: not text in UTF-8 (byte {problem.start})") from problem
    except ValueError as problem:
        raise error(f"{name}: is no {language} that can be read ({' '.join(str(problem).split())})") from problem


def _toml_table(text: str, most_depth: int) -> dict[str, Any]:
    """Return the table of a TOML text. Raises ValueError."""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.count(".") > _MOST_DOTS:
            raise ValueError(f"line {number} has more than {_MOST_DOTS} dots")
    try:
        table = tomllib.loads(text, parse_float=_finite)
    except RecursionError:
        raise ValueError(_too_deep(most_depth)) from None
    except ValueError as problem:
        # Python's own words for a whole number of thousands of digits advise to lift the limit.
        reason = _BEYOND if str(problem).startswith("Exceeds the limit") else str(problem)
        raise ValueError(reason) from problem
    for number in _check_depth(table, most_depth):
        if type(number) is int and abs(number) > LARGEST:
            raise ValueError(_BEYOND)
    return table


def _whole(digits: str) -> int:
    if len(digits) > 20 or abs(int(digits)) > LARGEST:
        raise ValueError(_BEYOND)
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits[:20]} is no finite number")
    return number


def _too_deep(most_depth: int) -> str:
    return f"more than {most_depth} tables and lists within each other"


def _check_depth(value: Any, most_depth: int) -> list[Any]:
    """Return all keys, and all values that are neither table nor list.

    Raises ValueError where values lie deeper than `most_depth`.
    """
    plain: list[Any] = []
    level = [value]
    for _ in range(most_depth + 1):
        below: list[Any] = []
        for part in level:
            if isinstance(part, dict):
                plain.extend(part)
                below.extend(part.values())
            elif isinstance(part, list):
                below.extend(part)
            else:
                plain.append(part)
        if not below:
            return plain
        level = below
    raise ValueError(_too_deep(most_depth))


def _reason(problem: Exception) -> str:
    """Say why a file cannot be opened; a name with a NUL character in it is a ValueError."""
    if isinstance(problem, FileNotFoundError):
        return "No such file or directory"
    return f"cannot be read ({getattr(problem, 'strerror', None) or problem})"


def _title(named: str, source: Path | bytes) -> str:
    return named if isinstance(source, bytes) else f"{named} {os.fsdecode(source)}".strip()
