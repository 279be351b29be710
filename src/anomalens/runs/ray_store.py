"""Files behind addresses: `s3://`, `gs://`, `file://` and all else that pyarrow or fsspec opens, under one interface.

S3 and Google Cloud Storage go through pyarrow, which brings its own clients and reads the usual environment variables
for keys, region and end point; every other scheme goes through fsspec and the package it names for that scheme.
"""

import functools
import re
import time
from pathlib import Path
from typing import Any

from anomalens.errors import ConfigError, InputError
from anomalens.extras import optional

MAX_BYTES = 2**30  # bytes; more than any image within the decoder's pixel limit, so that one object cannot fill memory
_TRIES = 3  # reads of one object before its row says that it failed
_PAUSE = 0.5  # seconds before the second try; doubled for every further one
_NATIVE = ("s3", "gs", "gcs")
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+)://(.*)", re.IGNORECASE | re.DOTALL)  # two letters: C:// is no scheme


def is_address(name: str) -> bool:
    """Whether `name` is `scheme://...` rather than a path."""
    return _ADDRESS.fullmatch(name) is not None


def locate(address: str) -> tuple[Any, str, str]:
    """Split an address into an fsspec file system, the path inside it and the prefix that makes an address of a path.

    Raises ConfigError for a scheme that nothing installed can open, or a bucket that cannot be reached.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise ConfigError(f"{address!r} is no address: expected scheme://...")
    scheme, rest = found[1].lower(), found[2]
    if not rest:
        raise ConfigError(f"{address!r} names no bucket or folder: expected {scheme}://BUCKET/...")
    return _filesystem(scheme, rest.split("/", 1)[0] if scheme in _NATIVE else ""), rest, f"{found[1]}://"


@functools.lru_cache(maxsize=64)
def _filesystem(scheme: str, bucket: str) -> Any:
    if scheme in _NATIVE:
        arrow, wrapper = optional("pyarrow.fs", "ray"), optional("fsspec.implementations.arrow", "ray")
        try:
            # By bucket, because pyarrow asks the bucket for its region.
            found, _ = arrow.FileSystem.from_uri(f"{scheme}://{bucket}")
        except (OSError, ValueError, NotImplementedError) as error:
            raise ConfigError(f"{scheme}://{bucket} cannot be opened ({_line(error)})") from error
        return wrapper.ArrowFSWrapper(found)
    fsspec = optional("fsspec", "ray")
    try:
        return fsspec.filesystem(scheme)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"addresses of {scheme}:// cannot be opened here ({_line(error)})") from error


def read(address: str) -> bytes:
    """All bytes of one object; what may pass by itself (a lost connection) is tried again.

    Raises InputError, naming the address, when it cannot be read or has more than MAX_BYTES bytes.
    """
    try:
        system, path, _ = locate(address)
    except ConfigError as error:
        raise InputError(f"{address!r}: {error}") from error
    for attempt in range(_TRIES):
        try:
            with system.open(path, "rb") as stream:
                data: bytes = stream.read(MAX_BYTES + 1)
        except FileNotFoundError:
            raise InputError(f"{address!r}: no such object") from None
        except (PermissionError, IsADirectoryError) as error:
            raise InputError(f"{address!r}: cannot be read ({_line(error)})") from error
        except OSError as error:
            if attempt + 1 == _TRIES:
                raise InputError(f"{address!r}: cannot be read after {_TRIES} tries ({_line(error)})") from error
            time.sleep(_PAUSE * 2**attempt)
        else:
            break
    if len(data) > MAX_BYTES:
        raise InputError(f"{address!r}: has more than {MAX_BYTES:,} bytes; no image is that large")
    if not data:
        raise InputError(f"{address!r}: is empty (0 bytes)")
    return data


def fetch(key: str, root: str) -> Path | bytes:
    """What a detector reads for `key`: the bytes behind an address, or the path, counted from `root` if relative."""
    return read(key) if is_address(key) else Path(root, key)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
