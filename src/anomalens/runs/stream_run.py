"""Run a detector over what comes one after the other: frames of a video, of a camera, images that arrive in a folder.

The folder is that of any run (`folder`). Rows of frames hold the video's name as `path`, and also

    frame, time     number of the frame from 0, seconds since the first one
    image           the frame as it was judged, DIR/frames/NAME.png
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from anomalens.detection.detector import Detector
from anomalens.errors import ConfigError
from anomalens.files import atomic_write
from anomalens.images.encoding import encode_image
from anomalens.images.pixel_values import Rgb
from anomalens.images.video import Video
from anomalens.locks import held_folder
from anomalens.names import name_text
from anomalens.prediction import Result
from anomalens.runs.folder import JsonLines, MapFormat, file_stem, make_folders, row_with_pictures
from anomalens.runs.record import ROWS
from anomalens.runs.store import Row, RunSummary, fill
from anomalens.threads import map_or_raise

Keep = Callable[[int, Path, Result], object]

# What `encode_image` spends on a frame: nearly the size of the best, in a tenth of the time.
_COMPRESSION = 1


@dataclass(frozen=True, eq=False)
class Arrival:
    """Describe an image that came."""

    # A file, or the pixels of a frame.
    image: Path | Rgb
    # What its row calls it.
    path: str
    # What else its row says.
    facts: dict[str, Any] = field(default_factory=dict)


def detect_videos(
    videos: Iterable[Video],
    out: Path,
    detector: Detector,
    settings: Mapping[str, Any],
    *,
    maps: MapFormat = "none",
    resume: bool = False,
    progress: Callable[[RunSummary], None] | None = None,
    keep: Keep | None = None,
) -> RunSummary:
    """Detect the wanted frames of videos, one video after the other, into the folder of a run.

    An interrupt ends a live source as its end would; a run over files is then not finished and can be resumed.

    Args:
        videos: files; or one live source.
        out: folder of the run.
        settings: everything that decides the numbers, for run.json; a run is resumed only under equal settings.
        maps: also write the raw anomaly maps, in this format.
        resume: go on with the run over files in `out`.
        progress: called with the summary at the start and after every row.
        keep: called with number, file (of a frame: the one in `frames/`) and result of every image before its row is
            written, from several threads.

    Raises:
        InputError: a video cannot be opened, or has no frame that can be read.
        ConfigError: the detector compares images of a set; a live source cannot be resumed, or is one of several;
            see `JsonLines`.
        OSError: the disk is full; rows and pictures written before stay.
    """
    videos = list(videos)
    live = any(video.live for video in videos)
    if live and len(videos) > 1:
        raise ConfigError("a camera or stream never ends: name one of them and nothing else")
    if live and resume:
        raise ConfigError(
            "a camera or stream cannot be resumed: what was shown meanwhile is gone; choose another --out"
        )
    # Opened before anything is written.
    total = sum(video.expected() for video in videos)
    frames = (
        Arrival(frame.rgb, name_text(video.shown), {"frame": frame.number, "time": frame.time})
        for video in videos
        for frame in video.frames()
    )
    return detect_arrivals(
        frames, out, detector, settings, live=live, total=total, maps=maps, resume=resume, progress=progress, keep=keep
    )


def detect_arrivals(
    arrivals: Iterable[Arrival],
    out: Path,
    detector: Detector,
    settings: Mapping[str, Any],
    *,
    live: bool,
    total: int = 0,
    maps: MapFormat = "none",
    resume: bool = False,
    progress: Callable[[RunSummary], None] | None = None,
    keep: Keep | None = None,
    answered: Callable[[Row], None] | None = None,
) -> RunSummary:
    """Detect images as they come, in order, into the folder of a run; return how far it came.

    Args:
        arrivals: the images. Where they are files or frames of files, and the run is resumed, the first ones are those
            that have their rows.
        live: images come by themselves: each is answered before the next is asked for, and an interrupt is the end.
        total: about how many images will come; 0 where nobody knows.
        answered: called with every row once it is stored.
        out, settings, maps, resume, progress, keep: see `detect_videos`.

    Raises as `detect_videos`.
    """
    if detector.compares_sets:
        raise ConfigError("images that come one by one are no set to be compared; choose another --method")
    with held_folder(out, "detect"):
        engine, checkpoint = detector.engine.runtime, detector.identity.published
        store = JsonLines(out, settings, None, engine=engine, checkpoint=checkpoint, resume=resume)
        make_folders(out, maps, "frames")
        first = store.done().rows
        rows = _rows(detector, store, islice(arrivals, 0 if live else first, None), live, maps, keep)
        summary = RunSummary(total, store.done(), resumed=first)

        def step(current: RunSummary) -> None:
            nonlocal summary
            summary = current
            if progress:
                progress(current)

        try:
            summary = fill(store, _told(rows, answered), max(total, first), step)
        except KeyboardInterrupt:
            if not live:
                raise
        # Now it is known how many there were.
        summary = replace(summary, total=summary.counts.rows)
        # A run to which nothing came is a run too, of which there are pages and tables.
        (out / ROWS).touch()
        store.finish(summary)
    return summary


def _told(rows: Generator[Row], answered: Callable[[Row], None] | None) -> Generator[Row]:
    """Pass rows on, and tell of each once the next is asked for: it is stored by then."""
    for row in rows:
        yield row
        if answered:
            answered(row)


def _rows(
    detector: Detector,
    store: JsonLines,
    arrivals: Iterator[Arrival],
    live: bool,
    maps: MapFormat,
    keep: Keep | None,
) -> Generator[Row]:
    """Yield the rows of images in order; pictures of files are written in background threads.

    Raises OSError, after the rows before it, where a picture cannot be written.
    """
    workers = detector.options.workers
    judged = _judged(detector, arrivals, live)
    numbered = enumerate(judged, start=store.done().rows)

    def write(item: tuple[int, tuple[Arrival, Result]]) -> Row:
        index, (arrival, result) = item
        return _written(store.folder, index, arrival, result, maps, keep)

    # A row of a live source waits for nothing that comes after it.
    for _, row in map_or_raise(numbered, write, workers=workers, ahead=1 if live else 2 * workers):
        yield row


def _judged(detector: Detector, arrivals: Iterator[Arrival], live: bool) -> Iterator[tuple[Arrival, Result]]:
    if live:
        for arrival in arrivals:
            [result] = detector.predict_many([arrival.image])
            yield arrival, result
        return
    waiting: deque[Arrival] = deque()

    def images() -> Iterator[Path | Rgb]:
        for arrival in arrivals:
            waiting.append(arrival)
            yield arrival.image

    for result in detector.predict_iter(images()):
        yield waiting.popleft(), result


def _written(folder: Path, index: int, arrival: Arrival, result: Result, maps: MapFormat, keep: Keep | None) -> Row:
    """Write the pictures of an image and return its row."""
    facts = {"path": arrival.path} | arrival.facts
    stem = file_stem(index, Path(arrival.path))
    if isinstance(arrival.image, Path):
        file, pixels = arrival.image, None
    else:
        facts["image"] = f"frames/{stem}.png"
        file, pixels = folder / facts["image"], arrival.image
        content = encode_image(Image.fromarray(pixels), compress_level=_COMPRESSION)
        atomic_write(file, content, durable=False)
    if keep is not None:
        keep(index, file, result)
    return row_with_pictures(folder, result, facts, stem, maps, pixels)
