"""Read a run of `detect` back, whoever wrote it: every value is checked before a page or a table is made of it.

A row that is damaged is read as the failure of an input, with the reason, so that the others can still be looked at.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from anomalens.errors import AnomalensError, ConfigError, InputError, one_line
from anomalens.extras import optional
from anomalens.names import is_text, name_text
from anomalens.prediction import Label
from anomalens.runs.record import PARTS, RECORD, ROWS
from anomalens.runs.store import Row
from anomalens.typed_values import checked_value
from anomalens.untrusted import json_value, open_regular, read_json

_LONGEST_ROW = 64 * 2**20  # bytes of a line of JSON

_log = logging.getLogger(__name__)

# Fields that a row may have, and their types; what is not named here is passed over.
_COMMON: dict[str, Any] = {"path": str, "frame": int, "time": float}
_FAILURE: dict[str, Any] = _COMMON | {"error": str, "kind": str}
_PREDICTION: dict[str, Any] = _COMMON | {
    "score": float,
    "label": Label,
    "confidence": int,
    "reason": str | None,
    "p_value": float,
    "threshold": float,
    "threshold_source": str,
    "pixel_threshold": float,
    "width": int,
    "height": int,
    "object": str | None,
    "regions": list[dict[str, Any]],
    "method": str,
    "backbone": str,
    "note": str,
    "image": str | None,
    "heatmap": str | None,
    "mask": str | None,
    "map": str | None,
}
_REGION: dict[str, Any] = {
    "box": tuple[int, int, int, int],
    "area": int,
    "peak": float,
    "peak_at": tuple[int, int],
    "width_mm": float,
    "height_mm": float,
    "area_mm2": float,
}
_NEEDED = ("score", "label", "threshold", "width", "height")
_NEEDED_OF_REGION = ("box", "area", "peak", "peak_at")
_RECORD: dict[str, Any] = {"settings": dict[str, Any], "counts": dict[str, Any], "versions": dict[str, Any]}


class Run(Protocol):
    """Describe images that were judged, as pages, tables and annotations are made of them."""

    @property
    def name(self) -> str:
        """Return what people call it."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Return everything that decided the numbers, by name; nothing where it was not the same for all images."""

    @property
    def versions(self) -> Mapping[str, Any]:
        """Return the versions of what computed, by name."""

    @property
    def total(self) -> int:
        """Return how many rows there will be at the end; 0 where nobody knows."""

    def rows(self) -> Iterator[Row]:
        """Yield every row, with the fields that `Prediction.to_dict` gives or those of a failure."""

    def picture(self, row: Row, name: str) -> Path | bytes | None:
        """Return a picture of a row, a file or its bytes: "image" (the original), "heatmap", "mask"; None without one.

        Raises InputError where it cannot be drawn.
        """


@dataclass(frozen=True)
class StoredRun:
    """Hold the folder of a run of `detect`; its rows are read when they are asked for, however many there are."""

    folder: Path
    # The content of run.json.
    record: Mapping[str, Any]
    # What was said of damaged rows, so that it is said once however often the rows are read.
    _said: set[str] = field(default_factory=set, init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        """Return the name of the folder."""
        return self.folder.resolve().name

    @property
    def settings(self) -> Mapping[str, Any]:
        """Return everything that decided the numbers, by name."""
        settings: Mapping[str, Any] = self.record["settings"]
        return settings

    @property
    def versions(self) -> Mapping[str, Any]:
        """Return the versions of what computed, by name."""
        versions: Mapping[str, Any] = self.record["versions"]
        return versions

    @property
    def total(self) -> int:
        """Return the number of inputs; 0 where the record does not say."""
        inputs = self.record["counts"].get("inputs")
        return inputs if isinstance(inputs, int) else 0

    def rows(self) -> Iterator[Row]:
        """Yield every row in the order of the inputs, checked, with the fields that `Prediction.to_dict` gives.

        A damaged row is the failure of an input that is called after its place; one line of the log tells how many
        there are. A last row that is not whole, of a run that goes on or was killed, is left out.

        Raises InputError where no row is whole or the rows cannot be read; MissingExtraError where rows are Parquet and
        pyarrow is not installed.
        """
        whole, damaged, first = 0, 0, ""
        for place, row in self._parts() if (self.folder / PARTS).is_dir() else self._lines():
            try:
                if isinstance(row, Exception):
                    raise row
                checked = _checked_row(row)
                whole += 1
            except (AnomalensError, KeyError, ValueError, TypeError) as error:
                reason = one_line(error)
                damaged, first = damaged + 1, first or f"{place}: {reason}"
                checked = {"path": place, "error": f"this row is damaged ({reason})", "kind": "InputError"}
            yield checked
        if damaged and not whole:
            raise self._damaged(first)
        if damaged:
            self._say(f"{self.folder}: {damaged} of {whole + damaged} rows are damaged ({first}); the others are shown")

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            _log.warning("%s", text)

    def picture(self, row: Row, name: str) -> Path | None:
        """Return the path of a picture of a row: "image" (the original), "heatmap", "mask" or "map"; None without one.

        A row names files of its own run by paths relative to the folder; one that leads out of the folder, also by a
        link, is none.
        """
        inside = row.get(name)
        if inside is None:
            return None
        path = self.folder / inside
        try:
            whole = path.resolve()
        except (OSError, ValueError):
            return None
        return path if whole.is_relative_to(self.folder.resolve()) else None

    def _lines(self) -> Iterator[tuple[str, Any]]:
        """Yield the place of every line, and its value or why it has none. Raises InputError."""
        number = 0
        try:
            with open_regular(self.folder / ROWS) as stream:
                while line := stream.readline(_LONGEST_ROW):
                    number += 1
                    if line.endswith(b"\n"):
                        yield f"row {number}", _json_or_error(line)
                    elif len(line) == _LONGEST_ROW:
                        yield f"row {number}", ValueError(f"a row of more than {_LONGEST_ROW:,} bytes")
                        while line and not line.endswith(b"\n"):
                            line = stream.readline(_LONGEST_ROW)
        except OSError as error:
            raise self._damaged(one_line(error)) from error

    def _parts(self) -> Iterator[tuple[str, Any]]:
        """Yield the place of every row of Parquet, and the row; a file that cannot be read on counts as one."""
        pa, pq = optional("pyarrow", "data"), optional("pyarrow.parquet", "data")
        for path in sorted((self.folder / PARTS).glob("part=*/*.parquet")):
            place = path.relative_to(self.folder).as_posix()
            try:
                with pq.ParquetFile(path) as stored:
                    rows = (row for batch in stored.iter_batches() for row in batch.to_pylist())
                    for number, row in enumerate(rows, start=1):
                        yield f"row {number} of {place}", _without_nulls(row)
            except (OSError, pa.ArrowException) as error:
                yield place, ValueError(one_line(error))

    def _damaged(self, reason: str) -> InputError:
        return InputError(f"{self.folder}: this run is damaged ({reason}); run detect again")


def holds_run(folder: str | os.PathLike[str]) -> bool:
    """Return whether a folder is that of a run of `detect`."""
    path = Path(folder)
    return (path / RECORD).is_file() and ((path / ROWS).is_file() or (path / PARTS).is_dir())


def read_run(folder: str | os.PathLike[str]) -> StoredRun:
    """Open the folder of a run. Raises InputError where it holds none, or a damaged `run.json`."""
    path = Path(folder)
    if not holds_run(path):
        raise InputError(f"{path}: no run in this folder ({RECORD} and its rows are missing); run detect first")
    try:
        record = checked_value(RECORD, read_json(path / RECORD), dict[str, Any])
        parts = {name: checked_value(name, record.get(name, {}), hint) for name, hint in _RECORD.items()}
    except ConfigError as error:
        raise InputError(f"{path}: this run is damaged ({one_line(error)}); run detect again") from error
    return StoredRun(path, record | parts)


def _json_or_error(line: bytes) -> Any:
    """Return the value of a line of JSON, or why it has none."""
    try:
        # Rows of version 0.1 hold names that are no text as raw bytes.
        return json_value(line.decode("utf-8", "surrogateescape"), any_text=True)
    except ValueError as error:
        return error


def _without_nulls(row: Row) -> Row:
    """Return a row of Parquet, whose columns all rows have, with the fields of its own alone."""
    if row.get("regions") is not None:
        row["regions"] = [_without_nulls(region) for region in row["regions"]]
    return {name: value for name, value in row.items() if value is not None}


def _checked_row(value: Any) -> Row:
    """Return the known fields of a row, each of its type. Raises ConfigError, KeyError where one is missing."""
    table = checked_value("a row", value, dict[str, Any])
    row = _picked(table, _FAILURE if "error" in table else _PREDICTION)
    if not isinstance(row["path"], str):
        raise ConfigError("path must be text")
    if "error" in row:
        return {"kind": "InputError"} | row
    for name in _NEEDED:
        row[name]
    if min(row["width"], row["height"]) < 1:
        raise ConfigError("an image without pixels")
    row["regions"] = [_checked_region(region) for region in row.get("regions", [])]
    return row


def _checked_region(table: dict[str, Any]) -> dict[str, Any]:
    region = _picked(table, _REGION)
    for name in _NEEDED_OF_REGION:
        region[name]
    return region | {"box": list(region["box"]), "peak_at": list(region["peak_at"])}


def _picked(table: Mapping[str, Any], hints: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of a table that have a hint, each of its type and every text as valid Unicode."""
    values = {name: checked_value(name, table[name], hint) for name, hint in hints.items() if name in table}
    return {
        name: name_text(value) if isinstance(value, str) and not is_text(value) else value
        for name, value in values.items()
    }
