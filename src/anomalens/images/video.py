"""Read frames of video files, cameras and network streams, each with its number and its time.

A file is read as fast as its frames are used. A live source is read as fast as it comes: where frames are used more
slowly, older ones are dropped, so that an answer is always about the present.
"""

import logging
import math
import os
import re
import threading
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import numpy as np

from anomalens.errors import ConfigError, InputError, one_line
from anomalens.extras import optional
from anomalens.images.image_files import MAX_PIXELS, quoted
from anomalens.images.pixel_values import Rgb
from anomalens.names import at_home
from anomalens.untrusted import open_regular

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".wmv", ".mpg", ".mpeg", ".mts", ".m2ts", ".ts", ".3gp", ".flv"}
)
"""Suffixes (in lower case) that tell a video file that is named itself; inside a folder videos are left out."""

_LIVE = re.compile(r"(rtsps?|rtmps?|https?|udp|tcp|srt|rtp)://", re.IGNORECASE)
_CAMERA = re.compile(r"/dev/video\d+")
_DURATION = re.compile(r"(\d+(?:\.\d+)?|\.\d+)(ms|s|m|h)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
# Seconds without anything from a live source after which it counts as gone.
_PATIENCE = 20.0
# Seconds that a live source gets to send another frame when no more are wanted.
_FAREWELL = 2.0
# Seconds by which a frame may come early: times of frames are rounded.
_EARLY = 1e-4
# Seconds that may be missing at the end of a file before that is said: sound may go on longer than pictures.
_MISSING = 1.0

_log = logging.getLogger("anomalens")


@dataclass(frozen=True, eq=False)
class Frame:
    """Hold one frame of a video."""

    # Of all frames of the video, from 0.
    number: int
    # Seconds since the first frame.
    time: float
    # Upright, uint8 [H, W, 3].
    rgb: Rgb


@dataclass(frozen=True)
class Video:
    """Describe a video and which of its frames are wanted; it is opened when frames are asked for."""

    # As the user named it.
    source: str
    # Least seconds from one wanted frame to the next; 0 for all frames.
    every: float = 0.0
    # Seconds after which frames are not wanted any more; None for all.
    until: float | None = None

    @property
    def live(self) -> bool:
        """Return whether the source is a camera or a network stream, which does not wait."""
        return is_live(self.source)

    @property
    def shown(self) -> str:
        """Return the source without the name and password that an address may hold."""
        if not _LIVE.match(self.source):
            return self.source
        parts = urlsplit(self.source)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

    @property
    def size(self) -> int | None:
        """Return the bytes of a file; None for a live source, or where there is none."""
        path = at_home(self.source)
        return None if self.live or not path.is_file() else path.stat().st_size

    def expected(self) -> int:
        """Return about how many frames are wanted; 0 where the video does not say.

        Raises as `frames` does, and InputError where a file has no frame that can be decoded.
        """
        if self.live:
            return 0
        with closing(self._opened()) as container:
            stream = container.streams.video[0]
            if next(self._decoded(container, stream), None) is None:
                raise InputError(f"{quoted(self.shown)}: holds no frame that can be read")
            seconds = float(container.duration or 0) / 1e6
            if self.until is not None:
                seconds = min(seconds, self.until)
            rate = float(stream.average_rate or 0)
            return math.ceil(seconds * min(rate, 1 / self.every if self.every else rate))

    def frames(self) -> Generator[Frame]:
        """Yield the wanted frames.

        Raises InputError where the source cannot be opened, holds no video or is too large; MissingExtraError where
        PyAV is not installed. Damaged parts of a video are passed over; a live source that ends, ends the frames. A
        file that ends before its time is logged as a warning, after its last frame.
        """
        return newest(self._wanted()) if self.live else self._wanted()

    def _wanted(self) -> Generator[Frame]:
        due = 0.0
        with closing(self._opened()) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            start, time = None, 0.0
            for number, decoded in enumerate(self._decoded(container, stream)):
                moment = decoded.time if decoded.time is not None else number / float(stream.average_rate or 25)
                start = moment if start is None else start
                time = max(0.0, moment - start)
                if self.until is not None and time >= self.until:
                    return
                if time < due - _EARLY:
                    continue
                # Multiples of the interval, so that what came late does not move what follows.
                due = (math.floor((time + _EARLY) / self.every) + 1) * self.every if self.every else 0.0
                self._check_size(decoded)
                yield Frame(number, round(time, 6), _upright(decoded))
            if start is not None and not self.live:
                self._check_end(container, stream, time + float((decoded.duration or 0) * decoded.time_base))

    def _check_end(self, container: Any, stream: Any, end: float) -> None:
        """Log a warning where the last frame ends, `end` seconds after the first began, long before the file says."""
        seconds = float((stream.duration or 0) * stream.time_base) or float(container.duration or 0) / 1e6
        if seconds - end > _MISSING:
            _log.warning(
                "%s: pictures end after %.1f of %.1f s; the file may be cut off", quoted(self.shown), end, seconds
            )

    def _decoded(self, container: Any, stream: Any) -> Iterator[Any]:
        """Yield every frame that can be decoded."""
        av = optional("av", "video")
        try:
            for packet in container.demux(stream):
                try:
                    yield from packet.decode()
                except av.error.InvalidDataError:
                    continue
        except av.error.FFmpegError as error:
            if not self.live:
                raise InputError(f"{self.shown}: {one_line(error)}") from error

    def _opened(self) -> Any:
        av = optional("av", "video")
        name = quoted(self.shown)
        try:
            if self.live:
                kind = "v4l2" if _CAMERA.fullmatch(self.source) else None
                # Streams of cameras over TCP, where nothing is lost on the way.
                options = {"rtsp_transport": "tcp"} if self.source.lower().startswith("rtsp") else {}
                container = av.open(self.source, format=kind, options=options, timeout=_PATIENCE)
            else:
                # A video may name further files and addresses; none of them is opened.
                container = av.open(open_regular(at_home(self.source)), io_open=_refuse)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or one_line(error)
            raise InputError(f"{name}: cannot be opened as a video ({reason})") from error
        if not container.streams.video:
            container.close()
            raise InputError(f"{name}: holds no video")
        try:
            self._check_size(container.streams.video[0])
        except InputError:
            container.close()
            raise
        return container

    def _check_size(self, picture: Any) -> None:
        if picture.width * picture.height > MAX_PIXELS:
            raise InputError(
                f"{quoted(self.shown)}: frames of {picture.width} x {picture.height} pixels are larger than the "
                f"{MAX_PIXELS:,} that are read"
            )


def is_live(source: str | os.PathLike[str]) -> bool:
    """Return whether a name is that of a camera (/dev/video0) or the address of a stream (rtsp://...)."""
    text = os.fspath(source)
    return bool(_LIVE.match(text) or _CAMERA.fullmatch(text))


def is_video(source: str | os.PathLike[str]) -> bool:
    """Return whether a name is that of a live source, or of a file with the suffix of a video."""
    return is_live(source) or (Path(source).suffix.lower() in VIDEO_SUFFIXES and at_home(source).is_file())


def is_missing_video(source: str | os.PathLike[str]) -> bool:
    """Return whether a name has the suffix of a video, and there is nothing of that name."""
    return not is_live(source) and Path(source).suffix.lower() in VIDEO_SUFFIXES and not at_home(source).exists()


def seconds_of(text: str) -> float:
    """Return the seconds of a duration such as "1s", "250ms", "1.5m" or "2h". Raises ConfigError."""
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None or not float(match[1]):
        raise ConfigError(f"{text!r} is no duration: write a number and a unit, such as 1s, 250ms, 5m or 2h")
    return float(match[1]) * _UNITS[match[2]]


def interval_of(text: str) -> float:
    """Return the seconds between two wanted frames; "frame" is every frame, 0. Raises ConfigError."""
    return 0.0 if text.strip().lower() == "frame" else seconds_of(text)


def newest(frames: Generator[Frame]) -> Generator[Frame]:
    """Yield frames of a generator that a thread of its own reads; one that was not taken in time is dropped."""
    # At most one frame, and at the end the reason why there are no more: None, or what went wrong.
    waiting: deque[Frame | Exception | None] = deque()
    changed = threading.Condition()
    stopped = threading.Event()

    def put(item: Frame | Exception | None) -> None:
        with changed:
            if isinstance(item, Frame):
                waiting.clear()
            waiting.append(item)
            changed.notify()

    def read() -> None:
        try:
            with closing(frames):
                for frame in frames:
                    put(frame)
                    if stopped.is_set():
                        break
            put(None)
        except Exception as error:
            put(error)

    reader = threading.Thread(target=read, name="anomalens-video", daemon=True)
    reader.start()
    try:
        while True:
            with changed:
                changed.wait_for(lambda: waiting)
                item = waiting.popleft()
            if item is None:
                return
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        stopped.set()
        # A source that sends nothing keeps its thread, which ends with the process at the latest.
        reader.join(_FAREWELL)


def _upright(decoded: Any) -> Rgb:
    """Return a decoded frame as RGB [H, W, 3], turned and mirrored as its video says."""
    rgb: Rgb = decoded.to_ndarray(format="rgb24")
    said = decoded.side_data.get("DISPLAYMATRIX")
    if said is not None:
        # (x, y) is shown at (right[0] x + right[1] y, down[0] x + down[1] y).
        right, down, _ = np.frombuffer(said, np.int32).reshape(3, 3).T
        if abs(right[1]) > abs(right[0]):
            rgb, right, down = rgb.transpose(1, 0, 2), right[[1, 0, 2]], down[[1, 0, 2]]
        rgb = rgb[:: -1 if down[1] < 0 else 1, :: -1 if right[0] < 0 else 1]
    return np.ascontiguousarray(rgb)


def _refuse(url: str, flags: int, options: Any) -> Any:
    raise PermissionError(f"a video may not open {url!r:.100}")
