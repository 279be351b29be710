"""Write a reproduction's tables: the paper's numbers, ours, the difference, and whether both were measured alike."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anomalens import csv_tables
from anomalens.evaluation.reproducing import Compared, Outcome
from anomalens.files import atomic_write
from anomalens.reporting.rendering import render

MEAN = "(mean)"
"""What tables call the mean over classes."""

_COLUMNS = ["method", "data", "class", "metric", "paper", "ours", "deviation", "difference", "tolerance", "within"]
_COLUMNS += ["protocol_equal", "protocol_differences", "status", "source", "state", "reason"]


def write_reproduction(outcomes: Sequence[Outcome], folder: Path) -> None:
    """Write reproduction.md, .csv and .html into `folder`, each atomically. Raises OSError where one cannot be."""
    atomic_write(folder / "reproduction.csv", to_csv(outcomes))
    atomic_write(folder / "reproduction.md", render("reproduction.md", **_values(outcomes)))
    atomic_write(folder / "reproduction.html", render("reproduction.html", **_values(outcomes)))


def to_csv(outcomes: Sequence[Outcome]) -> str:
    """Return one row a number, of every class and of the mean; a task without numbers is one row with its reason."""
    rows: list[dict[str, Any]] = []
    for outcome in outcomes:
        cell = outcome.cell
        head = {"method": outcome.task.paper.method, "data": cell.data, "state": cell.state, "reason": cell.reason}
        rows += [head | row(compared) for compared in outcome.compared] or [head]
    return csv_tables.to_csv(_COLUMNS, rows)


def row(compared: Compared) -> dict[str, Any]:
    """Return what a table says of a number, by column."""
    number = compared.number
    values: dict[str, Any] = {
        "class": MEAN if number.class_name is None else number.class_name,
        "metric": number.metric,
        "paper": None,
        "ours": number.value,
        "deviation": compared.deviation,
    }
    if number.published is None:
        return values
    return values | {
        "paper": number.published.value,
        "difference": None if number.difference is None else round(number.difference, 4),
        "tolerance": compared.tolerance,
        "within": compared.within,
        "protocol_equal": not number.mismatches,
        "protocol_differences": "; ".join(number.mismatches),
        "status": number.published.status,
        "source": number.published.source,
    }


def _values(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return what both templates show."""
    return {"outcomes": outcomes, "row": row, "in_words": lambda within: "yes" if within else "NO", "remarks": _remarks}


def _remarks(outcome: Outcome) -> list[str]:
    """Return what differs from the authors' run and stands in no column, a sentence each."""
    lines = [f"Not the whole set: {line}." for line in outcome.cell.incomplete]
    return [*lines, *outcome.task.paper.remarks_on(outcome.task.benchmark.key)]
