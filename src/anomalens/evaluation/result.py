"""Hold the result of an evaluation, and write and read its files.

DIR/metrics.json    numbers per class in per cent, their mean, 95 % intervals, the protocol
DIR/metrics.csv     the same numbers as a table
DIR/scores.csv      one row an image: path, class, kind, label, score, decision, error
DIR/scores.parquet  the same rows, where pyarrow is installed
DIR/report.json     what `anomalens report` draws: curves of at most 200 points a class, thresholds, example cases
DIR/gallery/        pictures of the example cases (see gallery.py)
"""

import csv
import importlib.util
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from anomalens.errors import InputError
from anomalens.evaluation.gallery import Gallery
from anomalens.extras import optional
from anomalens.files import atomic_write, make_folder, write_json

ClassNumbers = dict[str, float | int | None]
"""Numbers of a class: `n_normal` and `n_anomalous` images, and metrics in per cent (None: not defined)."""

Intervals = dict[str, list[float] | None]
"""95 % interval [low, high] of each metric, in per cent; None where it is not defined."""

_COUNTS = ("n_normal", "n_anomalous")


@dataclass
class ImageRow:
    """Describe one image: what is known of it and what the detector said."""

    path: str
    class_name: str
    # Kind of defect; "good" for normal images.
    kind: str
    # 0 normal, 1 anomalous.
    label: int
    # None where the image could not be read.
    score: float | None = None
    decision: str | None = None
    # Why there is no score, or why the mask was left out.
    error: str | None = None


_ROW_COLUMNS = [column.name for column in fields(ImageRow)]


@dataclass
class Evaluation:
    """Hold the numbers of one detector on one data set, per class and per image, and the protocol that made them."""

    dataset: str
    method: str
    backbone: str
    protocol: dict[str, Any]
    classes: dict[str, ClassNumbers] = field(default_factory=dict)
    intervals: dict[str, Intervals] = field(default_factory=dict)
    rows: list[ImageRow] = field(default_factory=list)
    # Curves and thresholds of each class, for the report.
    curves: dict[str, dict[str, Any]] = field(default_factory=dict)
    gallery: Gallery = field(default_factory=lambda: Gallery(0))

    @property
    def metrics(self) -> tuple[str, ...]:
        """Return the names of the metrics, in the order of the tables."""
        return tuple(key for key in next(iter(self.classes.values()), {}) if key not in _COUNTS)

    @property
    def mean(self) -> dict[str, float | None]:
        """Return the unweighted mean of each metric over the classes where it is defined, in per cent."""
        defined = {
            key: [value for numbers in self.classes.values() if (value := numbers[key]) is not None]
            for key in self.metrics
        }
        return {key: sum(values) / len(values) if values else None for key, values in defined.items()}

    @property
    def failed(self) -> list[ImageRow]:
        """Return the images without a score."""
        return [row for row in self.rows if row.score is None]

    def to_dict(self) -> dict[str, Any]:
        """Return the content of metrics.json."""
        return {
            "dataset": self.dataset,
            "method": self.method,
            "backbone": self.backbone,
            "protocol": self.protocol,
            "classes": self.classes,
            "mean": self.mean,
            "intervals": self.intervals,
        }

    def write(self, folder: Path) -> None:
        """Write the files that the module's head lists, metrics.json last.

        Raises ConfigError or OSError when the folder cannot be written.
        """
        make_folder(folder)
        rows = [asdict(row) for row in self.rows]
        atomic_write(folder / "scores.csv", _to_csv(_ROW_COLUMNS, rows))
        if importlib.util.find_spec("pyarrow") is not None:
            parquet = io.BytesIO()
            table = optional("pyarrow", "data").Table.from_pylist(rows)
            optional("pyarrow.parquet", "data").write_table(table, parquet)
            atomic_write(folder / "scores.parquet", parquet.getvalue())
        numbers = [{"class": name, **values} for name, values in (*self.classes.items(), ("mean", self.mean))]
        atomic_write(folder / "metrics.csv", _to_csv(["class", *_COUNTS, *self.metrics], numbers))
        write_json(folder / "report.json", {"curves": self.curves, "gallery": self.gallery.write(folder / "gallery")})
        write_json(folder / "metrics.json", self.to_dict())


@dataclass(frozen=True)
class StoredEvaluation:
    """Hold an evaluation as its files hold it."""

    folder: Path
    # The content of metrics.json.
    metrics: dict[str, Any]
    # Per class: curves and thresholds.
    curves: dict[str, dict[str, Any]]
    # One row an example case: its facts, and names of files in gallery/.
    cases: list[dict[str, Any]]
    rows: list[ImageRow]


def read_evaluation(folder: Path) -> StoredEvaluation:
    """Read the files of an evaluation.

    Raises InputError where `folder` holds no evaluation, or a damaged one; MissingExtraError where its rows are kept as
    scores.parquet alone (anomalens 0.1) and pyarrow is missing.
    """
    if not (folder / "metrics.json").is_file():
        below = sorted(path.parent for path in folder.glob("**/metrics.json")) if folder.is_dir() else []
        hint = f"; there is one in: {', '.join(map(str, below[:5]))}" if below else ""
        raise InputError(f"{folder}: no evaluation in this folder (metrics.json is missing){hint}; run evaluate first")
    try:
        metrics, report = (json.loads((folder / name).read_text("utf-8")) for name in ("metrics.json", "report.json"))
        return StoredEvaluation(folder, metrics, report["curves"], report["gallery"], _read_rows(folder))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder}: this evaluation is damaged ({error}); run evaluate again") from error


def _read_rows(folder: Path) -> list[ImageRow]:
    if not (folder / "scores.csv").is_file():
        table = optional("pyarrow.parquet", "data").read_table(folder / "scores.parquet")
        return [ImageRow(**row) for row in table.to_pylist()]
    rows = []
    with (folder / "scores.csv").open(encoding="utf-8", newline="") as lines:
        reader = csv.DictReader(lines)
        if reader.fieldnames != _ROW_COLUMNS:
            raise ValueError(f"scores.csv has columns {reader.fieldnames}")
        for line in reader:
            label, score = int(line.pop("label")), line.pop("score")
            decision, error = line.pop("decision") or None, line.pop("error") or None
            rows.append(
                ImageRow(**line, label=label, score=float(score) if score else None, decision=decision, error=error)
            )
    return rows


def _to_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Return a table of comma-separated values; None and what a row lacks are empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: "" if value is None else value for key, value in row.items()} for row in rows)
    return text.getvalue()
