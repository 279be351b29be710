"""Make a page about a benchmark on disk: the means of every cell, with a link to the page about each.

The comparison with published numbers needs the data sets, so it stands in the benchmark's own results.html alone.
"""

import os
from pathlib import Path
from typing import Any

from anomalens.errors import ConfigError, InputError, one_line
from anomalens.evaluation.benchmarking import BenchmarkCell, State
from anomalens.evaluation.stored import checked_metrics
from anomalens.files import atomic_write
from anomalens.reporting.benchmark_tables import to_html
from anomalens.reporting.evaluation_page import write_report
from anomalens.typed_values import checked_value
from anomalens.untrusted import read_json


def holds_benchmark(folder: Path) -> bool:
    """Return whether a folder is that of a benchmark: it has cells."""
    return next(folder.glob("cells/*/cell.json"), None) is not None


def write_benchmark_page(folder: Path, out: Path) -> Path:
    """Write the page of the benchmark in `folder` to `out`, and the page of each finished cell into its folder.

    Raises InputError where a cell is damaged or lies on another drive than `out`, OSError where a page cannot be
    written.
    """
    cells = [_stored_cell(path.parent) for path in sorted(folder.glob("cells/*/cell.json"))]
    links = {cell.folder: _link(cell, out) for cell in cells if cell.state == "done"}
    atomic_write(out, to_html(cells, links))
    return out


def _stored_cell(folder: Path) -> BenchmarkCell:
    try:
        record = checked_value("cell.json", read_json(folder / "cell.json"), dict[str, Any])
        texts = {name: checked_value(name, record[name], str) for name in ("method", "data", "reason")}
        state: State = checked_value("state", record["state"], State)
        metrics = checked_metrics(read_json(folder / "metrics.json")) if state == "done" else None
    except (ConfigError, KeyError, TypeError) as error:
        raise InputError(f"{folder}: this cell is damaged ({one_line(error)}); run the benchmark again") from error
    method, data, reason = texts.values()
    return BenchmarkCell(method, method, data, "", folder, state, reason, metrics)


def _link(cell: BenchmarkCell, out: Path) -> str:
    """Write the page of a cell; return its address as seen from `out`."""
    page = write_report(cell.folder)
    try:
        return Path(os.path.relpath(page, out.parent)).as_posix()
    except ValueError as error:
        raise InputError(f"{out}: choose an --out on the drive of the benchmark, to which the page links") from error
