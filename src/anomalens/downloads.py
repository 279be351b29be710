"""Fetch a published file whose size and hash are known, so that a reader never sees half of it, nor another file.

What has arrived waits in PLACE.part, from where a transfer that broke off goes on, in this process or in the next. The
file gets its name when its size and its hash are right. Of several processes one fetches, and the others wait for it.
"""

import hashlib
import http.client
import logging
import math
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from anomalens._version import __version__
from anomalens.errors import AnomalensError, WeightsError, one_line
from anomalens.files import make_folder
from anomalens.locks import locked

TIME_LIMIT = "ANOMALENS_FETCH_SECONDS"
"""Variable with the user's own limit on the seconds that each file may take."""

_MIRRORS = {
    "https://huggingface.co": "HF_ENDPOINT",
    "https://raw.githubusercontent.com": "ANOMALENS_GITHUB",
}
_SECONDS = 3600.0
_SILENCE = 20.0  # seconds without an answer, or without a byte, after which a connection is given up
_TELL = 5.0  # seconds between two lines about how much has arrived
_TRIES = 3  # transfers that may break off, each going on where the one before ended
_CHUNK = 2**16
_NOBODY = (502, 503, 504)  # answers of a gateway or proxy behind which nobody answers
_TOLERANCE = 0.1  # by which a size known only roughly may be wrong

Kind = type[AnomalensError]

_log = logging.getLogger("anomalens.downloads")


@dataclass(frozen=True)
class RemoteFile:
    """Describe a published file and how to know it again."""

    # https://...
    address: str
    # Size in bytes.
    bytes: int
    # sha256 of the content in lower-case hex; "": not known.
    sha256: str = ""
    # sha1 by which git names the content (of "blob SIZE", a NUL character and the content); "": not known.
    git_blob: str = ""
    # Whether the size is exact; else it is known to a tenth.
    exact: bool = True

    @property
    def size(self) -> str:
        """Return the size as text: "22.6 MB"."""
        about = "" if self.exact else "about "
        return about + (f"{self.bytes / 1e9:.2f} GB" if self.bytes >= 1e9 else f"{self.bytes / 1e6:.1f} MB")

    def difference(self, path: Path) -> str | None:
        """Say how the content of `path` differs from this file, in words; None where it does not."""
        length = path.stat().st_size
        if not self.most >= length >= self.least:
            return f"has {length:,} bytes, expected {'' if self.exact else 'about '}{self.bytes:,}"
        for label, expected, start in (
            ("sha256", self.sha256, b""),
            ("git blob id", self.git_blob, f"blob {length}\0".encode()),
        ):
            if expected:
                actual = _hash(path, "sha1" if start else "sha256", start)
                if actual != expected:
                    return f"has {label} {actual[:16]}…, expected {expected[:16]}…"
        return None

    @property
    def least(self) -> int:
        """Return the fewest bytes that it may have."""
        return self.bytes if self.exact else math.floor(self.bytes * (1 - _TOLERANCE))

    @property
    def most(self) -> int:
        """Return the most bytes that it may have."""
        return self.bytes if self.exact else math.ceil(self.bytes * (1 + _TOLERANCE))


def _hash(path: Path, name: str, start: bytes) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.new(name, start, usedforsecurity=False)).hexdigest()


def mirrored(address: str) -> str:
    """Return the address at the mirror that the user names, if any.

    HF_ENDPOINT stands in place of https://huggingface.co, ANOMALENS_GITHUB of https://raw.githubusercontent.com.
    """
    for host, variable in _MIRRORS.items():
        mirror = os.environ.get(variable, "").rstrip("/")
        if mirror and address.startswith(f"{host}/"):
            return mirror + address.removeprefix(host)
    return address


def time_limit(default: float = _SECONDS) -> float:
    """Return how long the fetching of a file may take in all, in seconds. Raises WeightsError for an unfit variable."""
    asked = os.environ.get(TIME_LIMIT, "")
    if not asked:
        return default
    try:
        seconds = float(asked)
    except ValueError:
        seconds = 0.0
    # What a thread can wait for at most.
    if not 0 < seconds < 4e6:
        raise WeightsError(f"{TIME_LIMIT} must be a number of seconds above 0, not {asked!r:.40}")
    return seconds


def is_offline(asked: bool) -> bool:
    """Return whether the network is forbidden, by the caller or by the hub client's own variable."""
    return asked or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def fetch(
    file: RemoteFile,
    place: Path,
    *,
    label: str,
    error: Kind = WeightsError,
    progress: Callable[[int, int], object] | None = None,
) -> Path:
    """Return `place`, which then holds `file`: as it lay there before, or fetched.

    Args:
        file: the file, checked by its size and every hash that is known of it.
        place: where it is kept; its folder is made.
        label: what it is called in messages ("the checkpoint 'crane:visa'").
        error: class of the error that is raised.
        progress: called with the bytes that have arrived and the bytes there are in all; unless given, the logger
            "anomalens.downloads" says how it goes, every few seconds.

    Raises:
        error: no network, no such file, another file, a transfer that broke off three times or takes too long; names
            the address.
        ConfigError: nothing can be written to the folder.
    """
    make_folder(place.parent)
    with locked(place, f"fetching {label}", wait=True):
        if place.is_file() and file.difference(place) is None:
            return place
        partial = place.with_name(f"{place.name}.part")
        address = mirrored(file.address)
        _log.info("fetching %s (%s) from %s", label, file.size, address)
        try:
            _transfer(file, address, partial, progress or _Telling(label))
        except _Refused as reason:
            raise error(f"{label}: cannot be fetched from {address} ({reason})") from reason.__cause__
        if difference := file.difference(partial):
            partial.unlink()
            raise error(f"{label}: what {address} sent {difference}; it was deleted without being read")
        os.replace(partial, place)
    return place


class _Refused(Exception):
    """End a transfer; the message is its reason in a few words."""


class _BrokenOff(Exception):
    """Say that a transfer ended early, so that it may go on."""


class _Telling:
    """Log how much has arrived, every few seconds."""

    def __init__(self, label: str) -> None:
        self.label, self.told = label, time.monotonic()

    def __call__(self, arrived: int, total: int) -> None:
        if time.monotonic() - self.told > _TELL:
            self.told = time.monotonic()
            _log.info("fetching %s: %.1f of %.1f MB", self.label, arrived / 1e6, total / 1e6)


def _transfer(file: RemoteFile, address: str, partial: Path, progress: Callable[[int, int], object]) -> None:
    """Bring the content to `partial`, going on where that ends. Raises _Refused with the reason."""
    limit = time_limit()
    deadline = time.monotonic() + limit
    for attempt in range(_TRIES):
        try:
            _attempt(file, address, partial, progress, deadline)
            return
        except TimeoutError as error:
            raise _Refused(f"not all of it arrived in {limit:.0f} seconds; try again, or set {TIME_LIMIT}") from error
        except _BrokenOff as error:
            if attempt == _TRIES - 1:
                raise _Refused(f"the transfer broke off {_TRIES} times; the next try goes on from there") from error


def _attempt(
    file: RemoteFile, address: str, partial: Path, progress: Callable[[int, int], object], deadline: float
) -> None:
    """Ask once for what is missing and append it.

    Raises:
        _Refused: no network, or an answer that is an error.
        _BrokenOff: the connection ended early.
        TimeoutError: the deadline has passed.
    """
    present = partial.stat().st_size if partial.is_file() else 0
    if present > file.most:
        partial.unlink()
        present = 0
    headers = {"User-Agent": f"anomalens/{__version__}", "Accept-Encoding": "identity"}
    if present:
        headers["Range"] = f"bytes={present}-"
    try:
        answer = _opener().open(urllib.request.Request(address, headers=headers), timeout=_SILENCE)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and present:  # nothing is left to be sent: the bytes that are there decide
                return
            raise _Refused(_status_in_words(error.code)) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        # URLError is an OSError, and so is a connection that is closed without an answer.
        reason = getattr(error, "reason", None) or error
        words = "no answer" if isinstance(reason, TimeoutError) else str(reason).strip() or type(reason).__name__
        raise _Refused(f"no connection: {' '.join(words.split()):.200}") from error
    with answer:
        resumed = answer.status == 206 and _start_of(answer.headers.get("Content-Range", "")) == present
        with open(partial, "ab" if resumed else "wb") as stream:
            arrived = present if resumed else 0
            while chunk := _read(answer, deadline):
                stream.write(chunk)
                arrived += len(chunk)
                progress(arrived, file.bytes)
                if arrived > file.most:  # another file: its size will say so
                    return
    declared = answer.headers.get("Content-Length", "")
    total = int(declared) + (present if resumed else 0) if declared.isdecimal() else file.least
    if arrived < total:
        raise _BrokenOff


def _read(answer: http.client.HTTPResponse, deadline: float) -> bytes:
    """Return some of the bytes that come next, none at the end. Raises as `_attempt`."""
    if time.monotonic() > deadline:
        raise TimeoutError
    try:
        # Not as many as are asked for, so that a server that sends a byte now and then cannot hold up the check above.
        return answer.read1(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOff from error


def _start_of(content_range: str) -> int:
    """Return the first byte of "bytes 100-199/200"; -1 for anything else."""
    match = re.match(r"bytes (\d{1,18})-", content_range)
    return int(match[1]) if match else -1


def _status_in_words(code: int) -> str:
    words = {404: "there is no such file any more", 401: "access is by permission", 403: "access is by permission"}
    return words.get(code, f"the server answers {code}")


def _opener() -> urllib.request.OpenerDirector:
    """Return a client that follows redirects over HTTP and HTTPS, proxies of the environment included, nothing else."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPErrorProcessor,
    ):
        opener.add_handler(handler())
    return opener


def refuse_unreachable(address: str, label: str, error: Kind = WeightsError) -> None:
    """Raise `error` where nobody answers at an address, or a gateway says that nobody does; any other answer will do.

    For clients of other packages, which would try again for half a minute.

    label: how the message begins ("the hub cannot be reached").
    """
    try:
        _opener().open(urllib.request.Request(address, method="HEAD"), timeout=_SILENCE).close()
    except urllib.error.HTTPError as answer:
        answer.close()
        if answer.code in _NOBODY:
            raise error(f"{label} at {address} (it answers {answer.code})") from answer
    except (OSError, http.client.HTTPException, ValueError) as problem:
        reason = getattr(problem, "reason", None) or problem
        raise error(f"{label} at {address} ({' '.join(str(reason).split()):.200})") from problem


def described(address: str, *, label: str, error: Kind = WeightsError) -> RemoteFile:
    """Return a file whose size its server states, where nothing else is known of it.

    label, error: as for `fetch`. Raises `error` where nobody answers, there is no such file, or no size is stated.
    """
    try:
        with _opener().open(urllib.request.Request(mirrored(address), method="HEAD"), timeout=_SILENCE) as answer:
            length = answer.headers.get("Content-Length", "")
    except urllib.error.HTTPError as problem:
        with problem:
            raise error(f"{label}: cannot be fetched from {address} ({_status_in_words(problem.code)})") from problem
    except (OSError, http.client.HTTPException, ValueError) as problem:
        reason = getattr(problem, "reason", None) or problem
        raise error(f"{label}: cannot be fetched from {address} (no connection: {one_line(reason)})") from problem
    if not length.isdecimal() or not int(length):
        raise error(f"{label}: {address} does not say how large it is; get it by hand")
    return RemoteFile(address, int(length))
