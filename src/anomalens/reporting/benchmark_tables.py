"""A benchmark's tables: Markdown to read and commit, CSV with every number, HTML to look at. All numbers per cent."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from anomalens.evaluation.benchmarking import Cell
from anomalens.evaluation.comparison import Number, numbers
from anomalens.files import atomic_write
from anomalens.metrics.summary import SUMMARY_KEYS
from anomalens.reporting.page import page, table, words

METRIC_NAMES = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "image_f1max": "image F1-max",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "pixel_f1max": "pixel F1-max",
    "aupro": "AUPRO",
    "aupro_200": "AUPRO-200",
}
_COLUMNS = ["label", "method", "backbone", "data", "class", "n_normal", "n_anomalous", "metric", "value", "published"]
_COLUMNS += ["difference", "protocol_matches", "protocol_differences", "status", "source", "state", "reason"]
_HEAD = ("method", "data set", *METRIC_NAMES.values(), "remark")
_BESIDE = ("method", "data set", "metric", "ours", "published", "difference", "protocol", "how sure", "source")
_WORDY = ("data set", "metric", "protocol", "how sure", "source", "remark")
_ABOUT = (
    "Means over classes, per cent. AUPRO-200 is the variant of AUPRO (200 thresholds, rescaled) behind most papers' "
    "tables; it is not AUPRO."
)
_CAUTION = (
    "A difference says something about a method only where the protocol matches: same training data, backbone, image "
    "size, evaluation size and the whole data set."
)


def write_tables(cells: Sequence[Cell], folder: Path) -> None:
    """Write results.md, results.csv and results.html, each atomically. Raises OSError when one cannot be written."""
    atomic_write(folder / "results.csv", to_csv(cells))
    atomic_write(folder / "results.md", to_markdown(cells))
    atomic_write(folder / "results.html", to_html(cells))


def to_markdown(cells: Sequence[Cell]) -> str:
    """Two tables: the means, and the numbers that somebody published beside ours."""
    lines = ["# Benchmark", "", _ABOUT, "", *_markdown(_HEAD, [[*_head(c), *_values(c), _remark(c)] for c in cells])]
    beside = [(cell, number) for cell in cells for number in _beside(cell)]
    if beside:
        rows = [[*_head(cell), *_compared(number)] for cell, number in beside]
        lines += ["", "## Beside the published numbers", "", _CAUTION, "", *_markdown(_BESIDE, rows)]
        lines += ["", *(f"- {note}" for note in _notes(beside))] if _notes(beside) else []
    return "\n".join(lines) + "\n"


def to_html(cells: Sequence[Cell]) -> str:
    """The same two tables as one self-contained page."""
    rows = [[*map(words, [*_head(c), *_values(c)]), words(_remark(c), "failed")] for c in cells]
    parts = [f"<header><h1>Benchmark</h1><p class='soft'>{words(_ABOUT)}</p></header>", "<main>"]
    parts.append(table(_HEAD, rows, caption="means over classes", wordy=_WORDY))
    beside = [(cell, number) for cell in cells for number in _beside(cell)]
    if beside:
        parts += ["<h2>Beside the published numbers</h2>", f"<p class='soft'>{words(_CAUTION)}</p>"]
        compared = []
        for cell, number in beside:
            *left, protocol, status, source = [*_head(cell), *_compared(number)]
            kind = "" if number.mismatches else "match"
            compared.append([*map(words, left), words(protocol, kind), words(status), words(source)])
        parts.append(
            table(
                _BESIDE,
                compared,
                caption="ours and theirs",
                wordy=("data set", "metric", "protocol", "how sure", "source"),
            )
        )
        parts.append(f"<ul class='soft'>{''.join(f'<li>{words(note)}</li>' for note in _notes(beside))}</ul>")
    return page("anomalens benchmark", "\n".join([*parts, "</main>"]))


def to_csv(cells: Sequence[Cell]) -> str:
    """One row a number: every class and the mean, with what was published; a cell without numbers is one row."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for cell in cells:
        about = {"label": cell.label, "method": cell.method, "data": cell.data}
        about |= {"state": cell.state, "reason": cell.reason}
        if cell.metrics is None:
            writer.writerow(about)
            continue
        about["backbone"] = cell.metrics["backbone"]
        for number in _numbers(cell):
            writer.writerow(about | _csv_cells(number, cell.metrics["classes"]))
    return text.getvalue()


def _csv_cells(number: Number, classes: dict[str, dict[str, float | None]]) -> dict[str, object]:
    counts = classes[number.class_name] if number.class_name is not None else {}
    row: dict[str, object] = {
        "class": "(mean)" if number.class_name is None else number.class_name,
        "n_normal": counts.get("n_normal", ""),
        "n_anomalous": counts.get("n_anomalous", ""),
        "metric": number.metric,
        "value": "" if number.value is None else number.value,
    }
    if number.published is not None:
        row |= {
            "published": number.published.value,
            "difference": "" if number.difference is None else round(number.difference, 4),
            "protocol_matches": not number.mismatches,
            "protocol_differences": "; ".join(number.mismatches),
            "status": number.published.status,
            "source": number.published.source,
        }
    return row


def _numbers(cell: Cell) -> list[Number]:
    assert cell.metrics is not None
    return list(numbers(cell.method, cell.published, cell.metrics, complete=not cell.incomplete))


def _beside(cell: Cell) -> list[Number]:
    """Means with both ours and a published number."""
    found = _numbers(cell) if cell.metrics is not None else []
    return [one for one in found if one.class_name is None and one.published is not None and one.value is not None]


def _notes(beside: Sequence[tuple[Cell, Number]]) -> list[str]:
    """What each data set lacks of the whole benchmark, once a set."""
    lacking = {cell.data: cell.incomplete for cell, _ in beside if cell.incomplete}
    return [f"{data} is not the whole set: {'; '.join(lines)}" for data, lines in lacking.items()]


def _head(cell: Cell) -> list[str]:
    return [cell.label, cell.data]


def _values(cell: Cell) -> list[str]:
    mean = cell.metrics["mean"] if cell.metrics else dict.fromkeys(SUMMARY_KEYS)
    return ["-" if mean[key] is None else f"{mean[key]:.1f}" for key in SUMMARY_KEYS]


def _remark(cell: Cell) -> str:
    if cell.state == "done":
        failed = cell.metrics["protocol"].get("failed_images", 0) if cell.metrics else 0
        return f"{failed} images failed" if failed else ""
    return f"failed: {cell.reason}" if cell.state == "failed" else "not run yet"


def _compared(number: Number) -> list[str]:
    found = number.published
    assert found is not None
    assert number.difference is not None
    protocol = f"differs: {'; '.join(number.mismatches)}" if number.mismatches else "matches"
    values = [f"{number.value:.1f}", f"{found.value:.1f}", f"{number.difference:+.1f}"]
    return [METRIC_NAMES[number.metric], *values, protocol, found.status, found.source]


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in (head, *rows)]
    return [f"| {' | '.join(cells[0])} |", f"|{'---|' * len(head)}", *(f"| {' | '.join(row)} |" for row in cells[1:])]
