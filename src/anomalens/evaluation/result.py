"""Hold the result of an evaluation, and write its files.

DIR/metrics.json    numbers and decisions per class, their mean, 95 % intervals, the protocol (docs/evaluation.md)
DIR/metrics.csv     the same numbers as a table
DIR/scores.csv      one row an image (and draw): path, class, kind, label, score, decision, error, unusable, draw
DIR/scores.parquet  the same rows, where pyarrow is installed
DIR/report.json     what `anomalens report` draws: curves of at most 200 points a class, thresholds, example cases
DIR/gallery/        pictures of the example cases (see gallery.py)
"""

import importlib.util
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from anomalens.csv_tables import to_csv
from anomalens.evaluation.decisions import Decisions
from anomalens.evaluation.gallery import Gallery
from anomalens.extras import optional
from anomalens.files import atomic_write, make_folder, write_json
from anomalens.metrics.summary import SUMMARY_KEYS

ClassNumbers = dict[str, float | int | None]
"""Numbers of a class: `n_normal` and `n_anomalous` images, and metrics in per cent (None: not defined)."""

Intervals = dict[str, list[float] | None]
"""95 % interval [low, high] of each metric, in per cent; None where it is not defined."""

COUNTS = ("n_normal", "n_anomalous")


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
    # Why the image cannot be judged; None where it can.
    unusable: str | None = None
    # Seed of the draw of good photographs that the part was taught from; None where there were no draws.
    draw: int | None = None


ROW_COLUMNS = [column.name for column in fields(ImageRow)]
COLUMNS_BEFORE = ROW_COLUMNS[: ROW_COLUMNS.index("error") + 1]
"""Columns of scores.csv as versions wrote it that knew of no unusable images."""


@dataclass(frozen=True)
class Taught:
    """Say what a class was taught from in one draw."""

    # Of the taught part, as `Detector.method_name` has it.
    method: str
    seed: int
    # `Sample.id` of the photographs drawn, and why some were left out.
    photos: tuple[str, ...]
    left_out: tuple[str, ...]
    # Of the reference method, with what the photographs decided.
    options: dict[str, Any]
    threshold: float


@dataclass(frozen=True)
class ClassOutcome:
    """Hold what came of measuring a class once."""

    numbers: ClassNumbers
    intervals: Intervals
    decisions: Decisions
    # Curves and thresholds, for the report.
    curves: dict[str, Any]
    rows: list[ImageRow]
    # Ids of images whose mask would have vanished at the size of the evaluation.
    tiny: frozenset[str] = frozenset()
    # None where nothing was drawn to learn from.
    taught: Taught | None = None


@dataclass
class Evaluation:
    """Hold the numbers of one detector on one data set, per class and per image, and the protocol that made them."""

    dataset: str
    method: str
    backbone: str
    protocol: dict[str, Any]
    # Of several draws the means.
    classes: dict[str, ClassNumbers] = field(default_factory=dict)
    # Empty where there are draws: their deviation says more.
    intervals: dict[str, Intervals] = field(default_factory=dict)
    rows: list[ImageRow] = field(default_factory=list)
    # Curves and thresholds of each class, of the first draw, for the report.
    curves: dict[str, dict[str, Any]] = field(default_factory=dict)
    gallery: Gallery = field(default_factory=lambda: Gallery(0))
    # Of several draws the means.
    decisions: dict[str, Decisions] = field(default_factory=dict)
    # Of each draw, in order; one entry where nothing is drawn.
    by_draw: dict[str, list[ClassNumbers]] = field(default_factory=dict)
    # What classes were taught from, an entry a draw.
    taught: dict[str, list[Taught]] = field(default_factory=dict)
    # Why classes have no numbers.
    reasons: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, outcomes: Sequence[ClassOutcome], reason: str = "") -> None:
        """Add a class: the outcomes of its draws (one without draws), or the reason why there is none."""
        if not outcomes:
            self.reasons[name] = reason
            return
        if learned := [outcome.taught for outcome in outcomes if outcome.taught is not None]:
            self.taught[name] = learned
            self.method = learned[0].method
        self.by_draw[name] = [outcome.numbers for outcome in outcomes]
        self.classes[name] = {key: _mean(_values(self.by_draw[name], key)) for key in outcomes[0].numbers}
        for key in COUNTS:
            self.classes[name][key] = outcomes[0].numbers[key]
        self.decisions[name] = Decisions.mean([outcome.decisions for outcome in outcomes])
        self.intervals[name] = {} if learned else outcomes[0].intervals
        self.curves[name] = outcomes[0].curves
        for outcome in outcomes:
            self.rows += outcome.rows

    @property
    def metrics(self) -> tuple[str, ...]:
        """Return the names of the metrics, in the order of the tables."""
        return tuple(key for key in next(iter(self.classes.values()), SUMMARY_KEYS) if key not in COUNTS)

    @property
    def mean(self) -> dict[str, float | None]:
        """Return the unweighted mean of each metric over the classes where it is defined, in per cent."""
        return {key: _mean(_values(self.classes.values(), key)) for key in self.metrics}

    @property
    def drawn(self) -> bool:
        """Return whether classes were taught from photographs drawn for it."""
        return bool(self.taught)

    @property
    def mean_deviation(self) -> dict[str, float | None]:
        """Return the standard deviation over the draws of `mean`; None for a single draw."""
        draws = list(zip(*self.by_draw.values(), strict=True))
        means = [{key: _mean(_values(draw, key)) for key in self.metrics} for draw in draws]
        return {key: _deviation(_values(means, key)) for key in self.metrics}

    @property
    def failed(self) -> list[ImageRow]:
        """Return the images without a score."""
        return [row for row in self.rows if row.score is None]

    def class_row(self, name: str) -> dict[str, Any]:
        """Return all that is told of a class, JSON-ready: numbers, deviations over draws, decisions, or the reason."""
        if name in self.reasons:
            nothing = dict.fromkeys((*COUNTS, *self.metrics))
            return nothing | {"decisions": None, "reason": self.reasons[name]}
        row: dict[str, Any] = dict(self.classes[name])
        if self.drawn:
            row |= {f"{key}_std": _deviation(_values(self.by_draw[name], key)) for key in self.metrics}
        return row | {"decisions": self.decisions.get(name, Decisions()).to_dict()}

    @property
    def names(self) -> list[str]:
        """Return the names of all classes, those without numbers last."""
        return [*self.classes, *self.reasons]

    def to_dict(self) -> dict[str, Any]:
        """Return the content of metrics.json."""
        content = {
            "dataset": self.dataset,
            "method": self.method,
            "backbone": self.backbone,
            "protocol": self.protocol,
            "classes": {name: self.class_row(name) for name in self.names},
            "mean": self.mean,
            "intervals": self.intervals,
            "decisions": Decisions.sum(list(self.decisions.values())).to_dict(),
        }
        if self.drawn:
            content["mean_std"] = self.mean_deviation
            content["taught"] = {name: [asdict(part) for part in parts] for name, parts in self.taught.items()}
        return content

    def write(self, folder: Path) -> None:
        """Write the files that the module's head lists, metrics.json last.

        Raises ConfigError or OSError when the folder cannot be written.
        """
        make_folder(folder)
        rows = [asdict(row) for row in self.rows]
        atomic_write(folder / "scores.csv", to_csv(ROW_COLUMNS, rows))
        if importlib.util.find_spec("pyarrow") is not None:
            parquet = io.BytesIO()
            table = optional("pyarrow", "data").Table.from_pylist(rows)
            optional("pyarrow.parquet", "data").write_table(table, parquet)
            atomic_write(folder / "scores.parquet", parquet.getvalue())
        atomic_write(folder / "metrics.csv", to_csv(*self._table()))
        write_json(folder / "report.json", {"curves": self.curves, "gallery": self.gallery.write(folder / "gallery")})
        write_json(folder / "metrics.json", self.to_dict())

    def _table(self) -> tuple[list[str], list[dict[str, Any]]]:
        """Return the columns and rows of metrics.csv: the classes, and the mean."""
        deviations = {f"{key}_std": value for key, value in self.mean_deviation.items()} if self.drawn else {}
        columns = ["class", *COUNTS, *self.metrics, *deviations, *Decisions().to_dict()]
        rows = []
        for name in self.names:
            row = self.class_row(name)
            rows.append({"class": name} | row | (row.pop("decisions") or {}))
        if self.reasons:
            columns.append("reason")
        total = Decisions.sum(list(self.decisions.values())).to_dict()
        rows = [{key: value for key, value in row.items() if key != "decisions"} for row in rows]
        return columns, [*rows, {"class": "mean", **self.mean, **deviations, **total}]


def _values(rows: Iterable[Mapping[str, float | int | None]], key: str) -> list[float]:
    """Return the values of a metric where it is defined."""
    return [value for row in rows if (value := row[key]) is not None]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _deviation(values: Sequence[float]) -> float | None:
    """Return the sample standard deviation; None of fewer than two values, which tell of none."""
    return statistics.stdev(values) if len(values) > 1 else None
