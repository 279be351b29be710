"""Read files behind addresses: `s3://`, `gs://`, `file://` and all else that fsspec opens.

S3 and Google Cloud Storage go through the clients that come with pyarrow, as fsspec file systems; they read the usual
environment variables for keys, region and end point. Every other scheme needs the package that fsspec names for it.
"""

import functools
import re
import time
from pathlib import Path
from typing import Any

from anomalens.errors import ConfigError, InputError, one_line
from anomalens.extras import optional
from anomalens.names import at_home, name_path

MAX_BYTES = 2**30  # bytes; more than any image within the decoder's pixel limit, so that one object cannot fill memory
_TRIES = 3  # reads of one object before its row says that it failed
_PAUSE = 0.5  # seconds before the second try; doubled for every further one
_ARROW = ("s3", "gs", "gcs")  # schemes that pyarrow opens by itself
# A scheme has at least two letters, so that C:// is a path.
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+)://(.*)", re.IGNORECASE | re.DOTALL)


def is_address(name: str) -> bool:
    """Return whether `name` is `scheme://...` rather than a path."""
    return _ADDRESS.fullmatch(name) is not None


def locate(address: str) -> tuple[Any, str, str]:
    """Split an address into an fsspec file system, the path inside it and the prefix that makes an address of a path.

    Raises ConfigError for a scheme that nothing installed can open, or a bucket that cannot be reached.
    """
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise ConfigError(f"{address!r} is no address: expected scheme://...")
    scheme, path = match[1].lower(), match[2]
    if not path:
        raise ConfigError(f"{address!r} names no bucket or folder: expected {scheme}://BUCKET/...")
    return _filesystem(scheme, path.split("/", 1)[0] if scheme in _ARROW else ""), path, f"{match[1]}://"


@functools.lru_cache(maxsize=64)
def _filesystem(scheme: str, bucket: str) -> Any:
    fsspec = optional("fsspec", "ray")
    try:
        if scheme not in _ARROW:
            return fsspec.filesystem(scheme)
        # By bucket, because pyarrow asks the bucket for its region.
        client, _ = optional("pyarrow.fs", "ray").FileSystem.from_uri(f"{scheme}://{bucket}")
        return optional("fsspec.implementations.arrow", "ray").ArrowFSWrapper(client)
    except (ImportError, OSError, ValueError, NotImplementedError) as error:
        raise ConfigError(f"{scheme}://{bucket} cannot be opened here ({one_line(error)})") from error


def read(address: str) -> bytes:
    """Return all bytes of one object; a read that fails for a reason that may pass (a lost connection) is repeated.

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
            raise InputError(f"{address!r}: cannot be read ({one_line(error)})") from error
        except OSError as error:
            if attempt + 1 == _TRIES:
                raise InputError(f"{address!r}: cannot be read after {_TRIES} tries ({one_line(error)})") from error
            time.sleep(_PAUSE * 2**attempt)
        else:
            break
    if len(data) > MAX_BYTES:
        raise InputError(f"{address!r}: has more than {MAX_BYTES:,} bytes; no image is that large")
    if not data:
        raise InputError(f"{address!r}: is empty (0 bytes)")
    return data


def fetch(key: str, root: str) -> Path | bytes:
    """Return what a detector reads for `key`: the bytes behind an address, or the path, from `root` if relative.

    A path is in text form (`names.py`), unless there is a file of the very name.
    """
    if is_address(key):
        return read(key)
    path = Path(root, at_home(key))
    return path if "\\" not in key or path.exists() else Path(root, at_home(name_path(key)))
