"""Make a video of a run over a video: every judged frame with what stands out in it, at its own time."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from anomalens.errors import ConfigError
from anomalens.extras import optional
from anomalens.files import atomic_stream
from anomalens.reporting.rendering import Progress
from anomalens.reporting.thumbnails import original, stored_picture
from anomalens.runs.store import Row
from anomalens.runs.stored_run import Run

# Longest side in pixels; every player shows it.
_SIDE = 1920
_TICKS = 1000  # units of time in a second
# Frames a second that the file says it has, beside the times of its frames.
_RATE = 25
# H.264 where this build of PyAV has an encoder of it, else MPEG-4.
_CODECS = ("libx264", "libopenh264", "mpeg4")
_COLOURS = {"anomalous": "#f2a065", "unusable": "#f08a83", "normal": "#6db3f8"}


def write_overlay_video(run: Run, folder: Path, progress: Progress | None = None) -> list[Path]:
    """Write overlay.mp4 into `folder`, atomically; `progress` is called with frames done and rows of the run.

    Raises ConfigError where the run is not about a video, OSError.
    """
    rows = (row for row in run.rows() if "time" in row and "error" not in row)
    first = next(rows, None)
    if first is None:
        raise ConfigError(f"{run.name}: this run is not about a video, so there is no video to make of it")
    path = folder / "overlay.mp4"
    total = run.total
    with atomic_stream(path) as stream:
        _encode(run, first, rows, stream, lambda done: progress(done, max(done, total)) if progress else None)
    return [path]


def _encode(run: Run, first: Row, rows: Iterator[Row], stream: Any, step: Callable[[int], object]) -> None:
    """Encode the first row of a run and all others into an open file."""
    av = optional("av", "video")
    codec = next(name for name in _CODECS if name in av.codecs_available)
    scale = min(1.0, _SIDE / max(first["width"], first["height"]))
    # The encoders want sides that can be halved.
    size = tuple(max(2, round(side * scale) // 2 * 2) for side in (first["width"], first["height"]))
    source, begin, last = first["path"], 0, -1
    with av.open(stream, "w", format="mp4") as container:
        video = container.add_stream(codec, rate=_RATE)
        video.width, video.height = size
        video.pix_fmt = "yuv420p"
        video.codec_context.time_base = Fraction(1, _TICKS)
        for number, row in enumerate(chain((first,), rows), start=1):
            if row["path"] != source:
                # Several videos follow each other.
                source, begin = row["path"], last + _TICKS // _RATE
            last = max(last + 1, begin + round(row["time"] * _TICKS))
            frame = av.VideoFrame.from_image(_picture(run, row, size))
            frame.pts, frame.time_base = last, Fraction(1, _TICKS)
            container.mux(video.encode(frame))
            step(number)
        container.mux(video.encode(None))


def _picture(run: Run, row: Row, size: tuple[int, ...]) -> Image.Image:
    """Return a frame with its heatmap, its label, its score and its time, in the size of the video."""
    width, height = size
    picture = stored_picture(run, row, "heatmap", _SIDE) or original(run, row, _SIDE)
    shown = Image.new("RGB", (width, height))
    if picture is not None:
        shown.paste(picture.resize((width, height), Image.Resampling.BICUBIC))
    score = "" if row["label"] == "unusable" else f" {row['score']:.3f}"
    text = f"{row['label']}{score}  {row['time']:.2f} s"
    font = ImageFont.load_default(max(10.0, height / 24))
    pen = ImageDraw.Draw(shown)
    edge = height / 60
    box = pen.textbbox((edge, edge), text, font=font)
    pen.rectangle((0, 0, box[2] + edge, box[3] + edge), fill="black")
    pen.text((edge, edge), text, fill=_COLOURS[row["label"]], font=font)
    return shown
