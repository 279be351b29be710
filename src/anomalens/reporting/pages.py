"""Make the page about whatever a folder holds: a run of `detect`, an evaluation, a benchmark."""

from pathlib import Path

from anomalens.errors import InputError
from anomalens.reporting.benchmark_page import holds_benchmark, write_benchmark_page
from anomalens.reporting.evaluation_page import write_report
from anomalens.reporting.formats import PAGE_NAME
from anomalens.reporting.rendering import Progress
from anomalens.reporting.run_page import write_run_pages
from anomalens.runs.stored_run import holds_run, read_run


def write_page(folder: Path, out: Path | None = None, progress: Progress | None = None) -> Path:
    """Make the page of the results in `folder`; return its path, `folder`/report.html unless `out` is given.

    Further pages lie beside it where a run has many images, and in the folders of a benchmark's cells. `progress` is
    called with the number of images drawn and of images to draw, where it takes long.

    Raises InputError where `folder` holds no results or damaged ones, OSError where a page cannot be written.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; name one that detect, evaluate or benchmark wrote")
    target = folder / PAGE_NAME if out is None else out
    if holds_run(folder):
        return write_run_pages(read_run(folder), target, progress)[0]
    if holds_benchmark(folder):
        return write_benchmark_page(folder, target)
    return write_report(folder, target)
