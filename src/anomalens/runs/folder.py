"""A detection run on disk: one row an input in input order, heatmaps and masks beside it, resumable at any moment.

    DIR/run.json             settings, versions, weights hash, counts, images per second
    DIR/predictions.jsonl    one JSON object an input, in input order; a row is written after its pictures
    DIR/heatmaps/ masks/ maps/

The rows are the record of what is done: a run that stops anywhere, for whatever reason, goes on from the first input
without a row. Pictures are written atomically, rows in one piece; a row cut short by a crash is dropped on resume.
"""

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from anomalens.detection.detector import Detector, Result
from anomalens.engines.contract import versions
from anomalens.errors import ConfigError, InputError
from anomalens.files import write_json
from anomalens.prediction import Failure, Prediction
from anomalens.threads import map_ordered

MapFormat = Literal["none", "png", "npy"]
ROWS, RUN = "predictions.jsonl", "run.json"
PARTS = "rows"  # folder of the partitioned rows that the engine "ray" writes instead of ROWS


@dataclass
class RunSummary:
    """What a run came to."""

    total: int  # inputs asked for
    done: int = 0  # rows written, failures included
    failed: int = 0
    anomalous: int = 0
    resumed: int = 0  # rows that were there already
    seconds: float = 0.0  # of this run, without the resumed part
    scores: list[float] = field(default_factory=list)  # of this run

    @property
    def rate(self) -> float:
        """Images per second of this run."""
        return (self.done - self.resumed) / self.seconds if self.seconds else 0.0


class RunFolder:
    """The folder of one run.

    Raises:
        ConfigError: the folder cannot be written, holds another run's results, or (on resume) results of other
            settings or inputs.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], inputs: Sequence[Path], *, resume: bool = False) -> None:
        self.folder, self.settings, self.inputs = folder, settings, inputs
        open_folder(folder)
        rows = folder / ROWS
        if (folder / PARTS).is_dir():
            raise ConfigError(f"{folder} holds a run of the engine 'ray'; choose another --out, or that engine")
        if rows.exists() and not resume:
            raise already_there(folder)
        self.rows = self._recover(rows) if rows.exists() else []
        if self.rows:
            self._check_same_run()

    def _recover(self, path: Path) -> list[dict[str, Any]]:
        """Rows already written; whatever a crash left of an unfinished last row is cut off."""
        raw = path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        try:
            rows = [json.loads(line) for line in whole.splitlines()]
        except json.JSONDecodeError as error:
            raise ConfigError(f"{path} is damaged ({error}); move it away to start anew") from error
        if len(whole) < len(raw):
            with path.open("r+b") as stream:
                stream.truncate(len(whole))
        return rows

    def _check_same_run(self) -> None:
        check_settings(self.folder, self.settings)
        for row, path in zip(self.rows, self.inputs, strict=False):
            if row["path"] != str(path):
                raise ConfigError(f"cannot resume: the run had {row['path']!r} where there is {str(path)!r} now")
        if len(self.rows) > len(self.inputs):
            raise ConfigError(f"cannot resume: the run has {len(self.rows)} rows for {len(self.inputs)} inputs")

    def write(
        self, detector: Detector, maps: MapFormat = "none", progress: Callable[[RunSummary], None] | None = None
    ) -> RunSummary:
        """Detect every input that has no row yet. `run.json` is written at the start and, with counts, at the end.

        Raises OSError where the disk is full; rows and pictures written before stay.
        """
        for name in ("heatmaps", "masks", *(["maps"] if maps != "none" else [])):
            (self.folder / name).mkdir(exist_ok=True)
        summary = RunSummary(len(self.inputs), len(self.rows), resumed=len(self.rows))
        summary.failed = sum("error" in row for row in self.rows)
        summary.anomalous = sum(row.get("label") == "anomalous" for row in self.rows)
        self._describe(summary)
        begin = time.perf_counter()
        try:
            for row in self._rows(detector, maps):
                self._append(row)
                summary.done += 1
                summary.failed += "error" in row
                summary.anomalous += row.get("label") == "anomalous"
                if "score" in row:
                    summary.scores.append(row["score"])
                summary.seconds = time.perf_counter() - begin
                if progress:
                    progress(summary)
        finally:
            summary.seconds = time.perf_counter() - begin
            self._describe(summary)
        return summary

    def _rows(self, detector: Detector, maps: MapFormat) -> Iterator[dict[str, Any]]:
        """Rows in input order. Pictures are drawn and written in background threads while the tower goes on."""
        begin = len(self.rows)
        found = enumerate(detector.predict_iter(iter(self.inputs[begin:])), start=begin)
        workers = detector.config.workers
        for _, row in map_ordered(found, lambda one: self._row(*one, maps), workers=workers, ahead=2 * workers):
            if isinstance(row, Exception):
                raise row  # pictures that cannot be written stop the run; what was written stays
            yield row

    def _row(self, index: int, found: Result, maps: MapFormat) -> dict[str, Any]:
        row = found.to_dict() | {"path": str(self.inputs[index])}
        if isinstance(found, Failure):
            return row
        try:
            return row | self._pictures(found, file_stem(index, self.inputs[index]), maps)
        except InputError as error:  # the file vanished or changed since it was read
            return Failure(str(self.inputs[index]), str(error)).to_dict()

    def _pictures(self, found: Prediction, stem: str, maps: MapFormat) -> dict[str, str | None]:
        heatmap, mask = f"heatmaps/{stem}.png", f"masks/{stem}.png"
        found.save_overlay(self.folder / heatmap)
        found.save_mask(self.folder / mask)
        written: str | None = None
        if maps != "none":
            written = f"maps/{stem}.{maps}"
            found.save_map(self.folder / written)
        return {"heatmap": heatmap, "mask": mask, "map": written}

    def _append(self, row: dict[str, Any]) -> None:
        line = json.dumps(row, ensure_ascii=False, allow_nan=False).encode("utf-8", "surrogateescape") + b"\n"
        # One write call a row; O_APPEND keeps rows whole, and a row cut short by a full disk is cut off here.
        handle = os.open(self.folder / ROWS, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            size = os.fstat(handle).st_size
            try:
                if os.write(handle, line) < len(line):
                    raise OSError(28, "no space left on device")
            except OSError:
                os.ftruncate(handle, size)
                raise
        finally:
            os.close(handle)

    def _describe(self, summary: RunSummary) -> None:
        write_record(self.folder, self.settings, summary)


def open_folder(folder: Path) -> None:
    """Make `folder` if need be. Raises ConfigError where it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"cannot write to {folder}: {error.strerror or error}; choose another --out") from error


def already_there(folder: Path) -> ConfigError:
    """What to say about a folder with results in it where nobody asked to resume."""
    return ConfigError(f"{folder} already holds a run; add --resume to go on with it, or choose another --out")


def check_settings(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """What `run.json` in `folder` holds. Raises ConfigError where it is missing or of other settings."""
    try:
        record: dict[str, Any] = json.loads((folder / RUN).read_text(encoding="utf-8"))
        before = record["settings"]
    except (OSError, json.JSONDecodeError, KeyError) as error:
        raise ConfigError(f"{folder / RUN} is missing or damaged, so the run cannot go on") from error
    now = json.loads(json.dumps(settings))
    changed = sorted(k for k in before.keys() | now.keys() if before.get(k) != now.get(k))
    if changed:
        was = ", ".join(f"{k} was {before.get(k)!r}" for k in changed)
        raise ConfigError(f"cannot resume {folder} with other settings ({was}); choose another --out")
    return record


def write_record(folder: Path, settings: dict[str, Any], summary: RunSummary, **more: Any) -> None:
    """Write `run.json`: settings, counts, rate and versions, and whatever `more` an engine has to say."""
    counts = {
        "inputs": summary.total,
        "done": summary.done,
        "failed": summary.failed,
        "anomalous": summary.anomalous,
        "normal": summary.done - summary.failed - summary.anomalous,
    }
    write_json(
        folder / RUN,
        {
            "settings": settings,
            "counts": counts,
            "seconds": round(summary.seconds, 3),
            "images_per_second": round(summary.rate, 3),
            "finished": summary.done == summary.total,
            **more,
            "versions": versions(),
        },
    )


def file_stem(index: int, path: Path) -> str:
    """A file name for input number `index`: unique, in input order, fit for every file system."""
    safe = re.sub(r"[^\w.-]+", "_", path.stem, flags=re.ASCII).strip("._")[:80]
    return f"{index:06d}-{safe}" if safe else f"{index:06d}"
