"""Run a detector over a list of files, with one row for each in a file of JSON lines, and pictures next to it.

    DIR/run.json             settings, versions, weights hash, counts, images per second
    DIR/predictions.jsonl    one JSON object an input, in input order; a row is written after its pictures
    DIR/heatmaps/ masks/ maps/

The rows are the record of what is done: a run that stops anywhere, for whatever reason, goes on from the first input
without a row. Pictures are written atomically, rows in one piece; a row cut short by a crash is dropped on resume.
"""

import errno
import json
import os
import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from anomalens.detection.detector import Detector
from anomalens.detection.together import predict_together
from anomalens.errors import ConfigError, InputError, one_line
from anomalens.files import digest, file_digest
from anomalens.images.image_files import quoted
from anomalens.images.pixel_values import Rgb
from anomalens.locks import held_folder
from anomalens.names import name_text
from anomalens.prediction import Failure, Prediction, Result
from anomalens.runs.record import ROWS, open_folder, read_record, write_record
from anomalens.runs.store import Row, RunCounts, RunSummary, fill
from anomalens.threads import map_or_raise
from anomalens.typed_values import checked_value
from anomalens.untrusted import json_value

# Types of what is counted in rows.
_COUNTED: dict[str, Any] = {"score": float, "label": str, "confidence": float, "reason": str | None}

MapFormat = Literal["none", "png", "npy"]


def detect_files(
    inputs: Sequence[Path],
    out: str | os.PathLike[str],
    detector: Detector,
    settings: Mapping[str, Any],
    *,
    maps: MapFormat = "none",
    resume: bool = False,
    progress: Callable[[RunSummary], None] | None = None,
    looked: Callable[[], object] | None = None,
    keep: Callable[[int, Path, Result], object] | None = None,
) -> RunSummary:
    """Detect every input that has no row yet, in this process, and write rows and pictures below `out`.

    A detector that compares images with each other takes all inputs for one set: the run is resumed only with the same
    files, and then looks at all of them again.

    Args:
        inputs: files, as `list_images` gives them.
        out: folder of the run, made if need be.
        settings: everything that decides the numbers, for run.json; a run is resumed only under equal settings.
        maps: also write the raw anomaly maps, in this format.
        resume: go on with the run in `out`.
        progress: called with the summary at the start and after every row.
        looked: called after every image of a set that has been looked at, before the first row.
        keep: called with number, file and result of every input before its row is written, from several threads.

    Raises:
        ConfigError: see `JsonLines`; another run is writing to `out`.
        OSError: the disk is full; rows and pictures written before stay.
    """
    if detector.compares_sets:
        settings = {**settings, "set": set_digest(inputs)}
    with held_folder(Path(out), "detect"):
        store = JsonLines(
            Path(out),
            settings,
            inputs,
            engine=detector.engine.runtime,
            checkpoint=detector.identity.published,
            resume=resume,
        )
        make_folders(store.folder, maps)
        return fill(store, _rows(detector, store, inputs, maps, looked, keep), len(inputs), progress)


class JsonLines:
    """Keep rows, as a RunStore does: in one file of JSON lines, in the order of the inputs.

    Nobody else may write to the folder meanwhile. Raises ConfigError where it cannot be written, holds another run's
    results, or (on resume) results of other settings or inputs.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        inputs: Sequence[Path] | None,
        *,
        engine: str | None = None,
        checkpoint: str | None = None,
        resume: bool = False,
    ) -> None:
        """Open or make a folder.

        Args:
            folder: of the results.
            settings: of the run, see `Detector.settings`.
            inputs: files, in order; None for whatever comes, which is not compared on resume.
            engine: what computes, `Engine.runtime`, for the record.
            checkpoint: what authors published and the detector uses, `Identity.published`, for the record.
            resume: go on with the run that is there.
        """
        self.folder, self.settings, self.inputs = folder, settings, inputs
        self.facts = {"engine": engine} | ({"checkpoint": checkpoint} if checkpoint else {})
        self._counts = RunCounts()
        if open_folder(folder, ROWS, resume=resume):
            self._recover()
        if self._counts.rows:
            read_record(folder, settings)
        total = self._counts.rows if inputs is None else len(inputs)
        self.finish(RunSummary(total, self._counts, resumed=self._counts.rows))

    def done(self) -> RunCounts:
        """Count the rows that are stored."""
        return self._counts

    def append(self, items: Sequence[Row]) -> RunCounts:
        """Write rows. Raises OSError where there is no room; the file then ends with the last whole row."""
        lines = "".join(_line(row) for row in items)
        # Half a surrogate pair, which is no text, is written as JSON's escape.
        data = lines.encode("utf-8", "backslashreplace")
        # One unbuffered write keeps the rows whole; rows cut short by a full disk are cut off.
        with open(self.folder / ROWS, "ab", buffering=0) as stream:
            size = stream.tell()
            try:
                if stream.write(data) < len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                stream.truncate(size)
                raise
        counts = RunCounts.of(*items)
        self._counts += counts
        return counts

    def finish(self, summary: RunSummary) -> None:
        """Write `run.json`."""
        write_record(self.folder, self.settings, summary, **self.facts)

    def _recover(self) -> None:
        """Count the rows written before, and cut off what a crash left of an unfinished last row."""
        path, size = self.folder / ROWS, 0
        with path.open("r+b") as stream:
            for line in stream:
                if not line.endswith(b"\n"):
                    stream.truncate(size)
                    break
                size += len(line)
                self._check_row(line)
        if self.inputs is not None and self._counts.rows > len(self.inputs):
            raise ConfigError(f"cannot resume: the run has {self._counts.rows} rows for {len(self.inputs)} inputs")

    def _check_row(self, line: bytes) -> None:
        """Count a row. Raises ConfigError where it is damaged or not that of the next input."""
        try:
            # Rows of version 0.1 hold names that are no text as raw bytes.
            row = checked_value(
                "a row", json_value(line.decode("utf-8", "surrogateescape"), any_text=True), dict[str, Any]
            )
            path = checked_value("path", row["path"], str)
            for name in _COUNTED.keys() & row.keys():
                checked_value(name, row[name], _COUNTED[name])
        except (ValueError, TypeError, KeyError) as error:
            reason = one_line(error)
            raise ConfigError(f"{self.folder / ROWS} is damaged ({reason}); move it away to start anew") from error
        index = self._counts.rows
        if self.inputs is not None and index < len(self.inputs):
            expected = self.inputs[index]
            if path not in (name_text(expected), str(expected)):
                raise ConfigError(f"cannot resume: the run had {path!r:.300} where there is {quoted(expected)} now")
        self._counts += RunCounts.of(row)


def set_digest(inputs: Sequence[Path]) -> str:
    """Return a short hash of what a set of files holds, whatever their names and order."""
    contents = []
    for path in inputs:
        try:
            # A pipe could block for ever; what is no file fails with a reason of its own.
            contents.append(file_digest(path) if path.is_file() else name_text(path))
        except OSError as error:
            contents.append(f"{name_text(path)}: {error.strerror}")
    return digest("\n".join(sorted(contents)))[:16]


def stored_threshold(folder: Path) -> tuple[float, str] | None:
    """Return the threshold that the first image of a run was decided by, and where it comes from; None without rows."""
    if not (folder / ROWS).exists():
        return None
    with (folder / ROWS).open(encoding="utf-8", errors="surrogateescape") as stream:
        for row in map(json.loads, stream):
            if "threshold" in row:
                return float(row["threshold"]), str(row["threshold_source"])
    return None


def _line(row: Row) -> str:
    """Return a row as a line of JSON, in which nothing but its end is taken for the end of a line by any reader."""
    text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    for separator in "\x85\u2028\u2029":
        text = text.replace(separator, f"\\u{ord(separator):04x}")
    return text + "\n"


def _rows(
    detector: Detector,
    store: JsonLines,
    inputs: Sequence[Path],
    maps: MapFormat,
    looked: Callable[[], object] | None,
    keep: Callable[[int, Path, Result], object] | None,
) -> Generator[Row]:
    """Yield rows in input order. Pictures are drawn and written in background threads while the tower goes on.

    Raises OSError, after the rows before it, where a picture cannot be written.
    """
    first, workers = store.done().rows, detector.options.workers
    if first == len(inputs):
        return
    if detector.compares_sets:
        # The rows that are written count in the scores of the others.
        rest: Iterator[Result] = islice(predict_together(detector, inputs, progress=looked), first, None)
    else:
        rest = detector.predict_iter(inputs[first:])
    results = enumerate(rest, start=first)

    def write(numbered: tuple[int, Result]) -> Row:
        index, result = numbered
        path = inputs[index]
        if keep is not None:
            keep(index, path, result)
        return row_with_pictures(store.folder, result, {"path": name_text(path)}, file_stem(index, path), maps)

    for _, row in map_or_raise(results, write, workers=workers, ahead=2 * workers):
        yield row


def make_folders(folder: Path, maps: MapFormat, *more: str) -> None:
    """Make the folders of a run's pictures, and `more`, inside its own."""
    for name in ("heatmaps", "masks", *(() if maps == "none" else ("maps",)), *more):
        (folder / name).mkdir(exist_ok=True)


def row_with_pictures(
    folder: Path,
    result: Result,
    facts: Row,
    stem: str,
    maps: MapFormat,
    image: Rgb | None = None,
) -> Row:
    """Write the pictures of a result, if it has any, and return its row.

    Args:
        folder: of the run.
        result: a prediction or a failure.
        facts: what the row says beside the result, `path` among it.
        stem, maps, image: see `file_stem`, `write_pictures`.
    """
    if isinstance(result, Failure):
        return result.to_dict() | facts
    try:
        return result.to_dict() | facts | write_pictures(folder, result, stem, maps, image)
    except InputError as error:  # the file vanished or changed since it was read
        return Failure.of(facts["path"], error).to_dict() | facts


def write_pictures(
    folder: Path, result: Prediction, stem: str, maps: MapFormat, image: Rgb | None = None
) -> dict[str, str | None]:
    """Write heatmap, mask and, if asked for, map; return their paths relative to `folder`, by name.

    image: the image that was judged [H, W, 3]; None reads it again from where it came from.
    """
    heatmap, mask = f"heatmaps/{stem}.png", f"masks/{stem}.png"
    raw = None if maps == "none" else f"maps/{stem}.{maps}"
    if image is None:
        result.save_overlay(folder / heatmap)
    else:
        result.save_overlay(folder / heatmap, image)
    result.save_mask(folder / mask)
    if raw:
        result.save_map(folder / raw)
    return {"heatmap": heatmap, "mask": mask, "map": raw}


def file_stem(index: int, path: Path) -> str:
    """Return a file name for input number `index`: unique, in input order, fit for every file system."""
    safe = re.sub(r"[^\w.-]+", "_", path.stem, flags=re.ASCII).strip("._")[:80]
    return f"{index:06d}-{safe}" if safe else f"{index:06d}"
