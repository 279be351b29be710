"""Hold the result of an evaluation, and write its files.

DIR/metrics.json    numbers per class in per cent, their mean, 95 % intervals, the protocol
DIR/metrics.csv     the same numbers as a table
DIR/scores.csv      one row an image: path, class, kind, label, score, decision, error
DIR/scores.parquet  the same rows, where pyarrow is installed
DIR/report.json     what `anomalens report` draws: curves of at most 200 points a class, thresholds, example cases
DIR/gallery/        pictures of the example cases (see gallery.py)
"""

import importlib.util
import io
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from anomalens.csv_tables import to_csv
from anomalens.evaluation.gallery import Gallery
from anomalens.extras import optional
from anomalens.files import atomic_write, make_folder, write_json

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


ROW_COLUMNS = [column.name for column in fields(ImageRow)]


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
        return tuple(key for key in next(iter(self.classes.values()), {}) if key not in COUNTS)

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
        atomic_write(folder / "scores.csv", to_csv(ROW_COLUMNS, rows))
        if importlib.util.find_spec("pyarrow") is not None:
            parquet = io.BytesIO()
            table = optional("pyarrow", "data").Table.from_pylist(rows)
            optional("pyarrow.parquet", "data").write_table(table, parquet)
            atomic_write(folder / "scores.parquet", parquet.getvalue())
        numbers = [{"class": name, **values} for name, values in (*self.classes.items(), ("mean", self.mean))]
        atomic_write(folder / "metrics.csv", to_csv(["class", *COUNTS, *self.metrics], numbers))
        write_json(folder / "report.json", {"curves": self.curves, "gallery": self.gallery.write(folder / "gallery")})
        write_json(folder / "metrics.json", self.to_dict())
