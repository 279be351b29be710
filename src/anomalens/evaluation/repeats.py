"""Join runs of one method that differ by their seed: means, and how far the runs scatter."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from anomalens.evaluation.result import COUNTS


def mean_of_runs(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the content of a metrics.json that stands for several.

    Every metric of a class and of the mean over classes is the mean over the runs, and `<metric>_std` (`mean_std`) its
    sample standard deviation; a metric that one of the runs does not define is not defined. Everything else, the
    protocol among it, is that of the first run; decisions are left out.
    """
    first = dict(runs[0])
    metrics = list(first["mean"])
    classes = {}
    for name, row in first["classes"].items():
        rows = [run["classes"].get(name, {}) for run in runs]
        own = [key for key in metrics if key in row]
        classes[name] = {key: row[key] for key in (*COUNTS, "reason") if key in row}
        classes[name] |= {key: _mean(rows, key) for key in own} | {f"{key}_std": _deviation(rows, key) for key in own}
    means = [run["mean"] for run in runs]
    first.pop("decisions", None)
    return first | {
        "classes": classes,
        "mean": {key: _mean(means, key) for key in metrics},
        "mean_std": {key: _deviation(means, key) for key in metrics},
        "intervals": {},
        "runs": len(runs),
    }


def _values(rows: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    """Return the value of every row; none where one of them has none."""
    values = [row.get(key) for row in rows]
    return [value for value in values if value is not None] if None not in values else []


def _mean(rows: Sequence[Mapping[str, Any]], key: str) -> float | None:
    values = _values(rows, key)
    return statistics.fmean(values) if values else None


def _deviation(rows: Sequence[Mapping[str, Any]], key: str) -> float | None:
    values = _values(rows, key)
    return statistics.stdev(values) if len(values) > 1 else None
