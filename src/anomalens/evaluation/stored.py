"""Read the files of an evaluation, whoever wrote them: every value is checked before a page is made of it."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anomalens.csv_tables import plain
from anomalens.errors import ConfigError, InputError, one_line
from anomalens.evaluation.decisions import Decisions
from anomalens.evaluation.result import COLUMNS_BEFORE, COUNTS, ROW_COLUMNS, ImageRow
from anomalens.extras import optional
from anomalens.typed_values import build, checked_value
from anomalens.untrusted import read_bytes, read_json

_MOST_ROWS = 2**28  # bytes of scores.csv
_HINTED = 5  # folders named where there is none
_NUMBERS = dict[str, float | None]
_CURVE = list[tuple[float, float]]

# What the files must hold: keys and types.
_METRICS: dict[str, Any] = {
    "dataset": str,
    "method": str,
    "backbone": str,
    "protocol": dict[str, Any],
    "classes": dict[str, dict[str, Any]],
    "mean": _NUMBERS,
}
# Of a class, beside its numbers; versions before 0.2 wrote neither.
_DECISIONS = dict[str, float]
_FACTS: dict[str, Any] = {"decisions": _DECISIONS | None, "reason": str}
_INTERVALS = dict[str, dict[str, list[float] | None]]
_CURVES: dict[str, Any] = {
    "image_f1max_threshold": float | None,
    "image_roc": _CURVE,
    "image_pr": _CURVE,
    "pixel_roc": _CURVE,
    "pixel_pr": _CURVE,
    "pro": _CURVE,
}
# Columns of scores.csv that may be empty.
_OPTIONAL_NUMBERS: dict[str, Any] = {"score": float, "draw": int}
_CASE: dict[str, Any] = {
    "class": str,
    "sort": str,
    "path": str,
    "kind": str,
    "label": int,
    "score": float,
    "threshold": float,
    "image": str,
    "heatmap": str,
}


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
        below = sorted(path.parent for depth in ("*", "*/*") for path in folder.glob(f"{depth}/metrics.json"))
        hint = f"; there is one in: {', '.join(map(str, below[:_HINTED]))}" if below else ""
        raise InputError(
            f"{folder}: no evaluation in this folder (metrics.json is missing), no run and no benchmark{hint}; "
            "run evaluate first, or detect"
        )
    try:
        metrics, report = (read_json(folder / name) for name in ("metrics.json", "report.json"))
        metrics = checked_metrics(metrics)
        report = checked_value("report", report, dict[str, Any])
        measured = [name for name, row in metrics["classes"].items() if "reason" not in row]
        curves = {name: _curves(name, report["curves"][name]) for name in measured}
        cases = [_case(case) for case in checked_value("gallery", report["gallery"], list[dict[str, Any]])]
        return StoredEvaluation(folder, metrics, curves, cases, _read_rows(folder))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ConfigError, csv.Error) as error:
        raise InputError(f"{folder}: this evaluation is damaged ({one_line(error)}); run evaluate again") from error


def checked_metrics(value: Any) -> dict[str, Any]:
    """Return the content of metrics.json. Raises ConfigError where a part is missing or of another type."""
    metrics = _picked("metrics", value, _METRICS) | {"intervals": {}}
    if "intervals" in value:
        metrics["intervals"] = checked_value("intervals", value["intervals"], _INTERVALS)
        bounds = [interval for intervals in metrics["intervals"].values() for interval in intervals.values()]
        if any(interval is not None and len(interval) != 2 for interval in bounds):
            raise ConfigError("an interval has two bounds")
    protocol = metrics["protocol"]
    calibration = _picked("calibration", protocol.get("calibration"), {"threshold": float})
    limit = _picked("protocol", protocol, {"aupro_limit": float, "image_size": int})["aupro_limit"]
    if not 0 < limit <= 1:
        raise ConfigError(f"aupro_limit {limit} must lie in (0, 1]")
    for name, hint in (("decisions", _DECISIONS), ("mean_std", _NUMBERS)):
        if name in value:
            metrics[name] = checked_value(name, value[name], hint)
    made = [metrics.get("decisions"), *(row.get("decisions") for row in metrics["classes"].values())]
    for counts in made:
        if isinstance(counts, dict) and counts.keys() != Decisions().to_dict().keys():
            raise ConfigError(f"decisions have the names {', '.join(Decisions().to_dict())}")
    for name, row in metrics["classes"].items():
        facts = {key: checked_value(f"{name}: {key}", row[key], hint) for key, hint in _FACTS.items() if key in row}
        numbers = checked_value(name, {key: row[key] for key in row.keys() - facts.keys()}, _NUMBERS)
        metrics["classes"][name] = {key: (numbers | facts)[key] for key in row}
        if missing := sorted({*COUNTS, *metrics["mean"]} - numbers.keys()):
            raise ConfigError(f"{name}: {missing[0]} is missing")
    metrics["protocol"] = protocol | {"calibration": protocol["calibration"] | calibration}
    return metrics


def _curves(name: str, value: Any) -> dict[str, Any]:
    curves = _picked(f"curves of {name}", value, _CURVES)
    return curves | {"threshold": checked_value("threshold", value.get("threshold"), float | None)}


def _case(value: dict[str, Any]) -> dict[str, Any]:
    case = _picked("gallery", value, _CASE)
    return case | {name: checked_value(name, value[name], str) for name in ("masks", "decision") if name in value}


def _picked(name: str, value: Any, hints: dict[str, Any]) -> dict[str, Any]:
    """Return the named parts of a table, each of its type. Raises ConfigError where one is missing or another."""
    table = checked_value(name, value, dict[str, Any])
    if missing := [key for key in hints if key not in table]:
        raise ConfigError(f"{name}: {missing[0]} is missing")
    return {key: checked_value(f"{name}: {key}", table[key], hint) for key, hint in hints.items()}


def _read_rows(folder: Path) -> list[ImageRow]:
    """Return the rows of scores.csv or scores.parquet. Raises ValueError, TypeError, ConfigError, csv.Error."""
    if not (folder / "scores.csv").is_file():
        table = optional("pyarrow.parquet", "data").read_table(folder / "scores.parquet")
        return [build(ImageRow, row, "scores") for row in table.to_pylist()]
    text = read_bytes(folder / "scores.csv", most_bytes=_MOST_ROWS).decode("utf-8")
    reader = csv.DictReader(io.StringIO(text, newline=""))
    if reader.fieldnames not in (ROW_COLUMNS, COLUMNS_BEFORE):
        raise ValueError(f"scores.csv has columns {reader.fieldnames!r:.200}")
    rows = []
    for line in reader:
        values: dict[str, Any] = {name: plain(cell) for name, cell in line.items()}
        values |= {name: values.get(name) or None for name in ("decision", "error", "unusable")}
        values |= {"label": int(values["label"])}
        for name, kind in _OPTIONAL_NUMBERS.items():
            values[name] = kind(values[name]) if values.get(name) else None
        rows.append(build(ImageRow, values, "scores"))
    return rows
