"""Write a benchmark's tables: Markdown to read and commit, CSV with every number, HTML to look at. All in per cent."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from anomalens import csv_tables
from anomalens.evaluation.benchmarking import BenchmarkCell
from anomalens.evaluation.comparison import Number, numbers
from anomalens.evaluation.decisions import decisions_in_words
from anomalens.files import atomic_write
from anomalens.metrics.summary import SUMMARY_KEYS
from anomalens.reporting.rendering import render

_COLUMNS = [
    "label",
    "method",
    "backbone",
    "data",
    "class",
    "n_normal",
    "n_anomalous",
    "metric",
    "value",
    "deviation",
    "published",
]
_COLUMNS += ["difference", "protocol_matches", "protocol_differences", "status", "source", "state", "reason"]


def write_tables(cells: Sequence[BenchmarkCell], folder: Path) -> None:
    """Write results.md, results.csv and results.html, each atomically. Raises OSError when one cannot be written."""
    atomic_write(folder / "results.csv", to_csv(cells))
    atomic_write(folder / "results.md", to_markdown(cells))
    atomic_write(folder / "results.html", to_html(cells))


def to_markdown(cells: Sequence[BenchmarkCell]) -> str:
    """Return two tables: the means, and the numbers that somebody published with ours and the difference."""
    return render("benchmark.md", **_values(cells))


def to_html(cells: Sequence[BenchmarkCell], links: Mapping[Path, str] | None = None) -> str:
    """Return the same two tables as one self-contained page.

    links: addresses of pages about cells, by the cells' folders.
    """
    return render("benchmark.html", links=links or {}, **_values(cells))


def to_csv(cells: Sequence[BenchmarkCell]) -> str:
    """Return one row a number: every class and the mean, with what was published; a cell without numbers is one row."""
    rows: list[dict[str, Any]] = []
    for cell in cells:
        head: dict[str, Any] = {"label": cell.label, "method": cell.method, "data": cell.data}
        head |= {"state": cell.state, "reason": cell.reason}
        if cell.metrics is None:
            rows.append(head)
        else:
            head |= {"method": cell.metrics["method"], "backbone": cell.metrics["backbone"]}
            rows += [head | _csv_row(number, cell.metrics) for number in _numbers(cell)]
    return csv_tables.to_csv(_COLUMNS, rows)


def _csv_row(number: Number, metrics: dict[str, Any]) -> dict[str, Any]:
    counts = {} if number.class_name is None else metrics["classes"][number.class_name]
    deviations = metrics.get("mean_std", {}).get(number.metric)
    row = {
        "class": "(mean)" if number.class_name is None else number.class_name,
        "n_normal": counts.get("n_normal"),
        "n_anomalous": counts.get("n_anomalous"),
        "metric": number.metric,
        "value": number.value,
        "deviation": deviations if number.class_name is None else counts.get(f"{number.metric}_std"),
    }
    if number.published is None:
        return row
    return row | {
        "published": number.published.value,
        "difference": None if number.difference is None else round(number.difference, 4),
        "protocol_matches": not number.mismatches,
        "protocol_differences": "; ".join(number.mismatches),
        "status": number.published.status,
        "source": number.published.source,
    }


def _values(cells: Sequence[BenchmarkCell]) -> dict[str, Any]:
    """Return what both templates show."""
    compared = [
        (cell, number)
        for cell in cells
        for number in _numbers(cell)
        if number.class_name is None and number.difference is not None
    ]
    lacking = {cell.data: cell.incomplete for cell, _ in compared if cell.incomplete}
    return {
        "cells": cells,
        "columns": SUMMARY_KEYS,
        "remark": _remark,
        "decisions": _decisions,
        "deviation": lambda cell, key: cell.metrics.get("mean_std", {}).get(key),
        "compared": compared,
        "protocol": lambda number: f"differs: {'; '.join(number.mismatches)}" if number.mismatches else "matches",
        "notes": [f"{data} is not the whole set: {'; '.join(lines)}" for data, lines in lacking.items()],
    }


def _numbers(cell: BenchmarkCell) -> Iterator[Number]:
    if cell.metrics is not None:
        yield from numbers(cell.metrics, cell.published, complete=not cell.incomplete)


def _decisions(cell: BenchmarkCell) -> list[str]:
    """Return "13 of 15" found, "2 of 20" false alarms and "0" unusable; dashes where a cell does not say."""
    made = cell.metrics.get("decisions") if cell.metrics else None
    return ["-", "-", "-"] if made is None else list(decisions_in_words(made).values())


def _remark(cell: BenchmarkCell) -> str:
    if cell.state == "failed":
        return f"failed: {cell.reason}"
    if cell.state == "not run":
        return "not run yet"
    metrics = cell.metrics or {"protocol": {}, "classes": {}}
    failed = metrics["protocol"].get("failed_images", 0)
    remarks = [f"{failed} image{'' if failed == 1 else 's'} failed"] if failed else []
    remarks += [f"{name}: {row['reason']}" for name, row in metrics["classes"].items() if "reason" in row]
    return "; ".join(remarks)
