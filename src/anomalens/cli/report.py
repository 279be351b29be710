"""Run `anomalens report`: a page about a run, an evaluation, a benchmark or the history of the service; tables and
annotations of a run.
"""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anomalens.errors import ConfigError

if TYPE_CHECKING:
    from anomalens.runs.stored_run import Run

FormatNames = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        help="Also html, csv, xlsx, parquet, coco, label-studio, png or pdf (contact sheets), mp4 (of a video); "
        "several with commas.",
    ),
]
"""The option of commands that write a run in further formats."""


# Formats of runs that the history has as tables with columns of its own.
_TABLES = ("csv", "xlsx", "parquet")


def report(
    results: Annotated[
        str,
        typer.Argument(
            help="A folder that `anomalens detect`, `evaluate` or `benchmark` wrote; or a history: sqlite:///FILE."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="The page, report.html in the folder unless given (of a history in this one); with --format a folder.",
        ),
    ] = None,
    formats: FormatNames = None,
    media: Annotated[
        Path | None,
        typer.Option("--media", help="Of a history: folder of pictures, unless beside an SQLite file."),
    ] = None,
) -> None:
    """Make one HTML page, without network or other files, to look at, to filter, to print and to send.

    Of a run: every image with its heatmap and mask, the worst first, at most 1,000 on a page and further ones beside
    it; a threshold to try; what failed and why. Originals are read again: start it where `detect` was started. Of the
    history of `anomalens serve`: the same of all inspections; `anomalens history export page.html` chooses some. Of an
    evaluation: curves, decisions, best and worst images. Of a benchmark: its means, and a page for each cell.

    With --format a run is written as tables, annotations and contact sheets instead.

    Examples:

      anomalens report results

      anomalens report results --format html,xlsx,coco

      anomalens report sqlite:///history.db --out october.html
    """
    from anomalens.cli.console import drawing_bar, say
    from anomalens.files import make_folder
    from anomalens.reporting.formats import PAGE_NAME, chosen_formats, write_formats
    from anomalens.reporting.pages import write_page
    from anomalens.reporting.run_page import write_run_pages
    from anomalens.runs.stored_run import read_run

    chosen = chosen_formats(formats or [])
    of_history = "://" in results
    folder = Path() if of_history else Path(results)
    if media is not None and not of_history:
        raise ConfigError("--media is the folder of pictures of a history; name that as sqlite:///FILE")
    if of_history and (tables := [name for name in chosen if name in _TABLES]):
        raise ConfigError(f"tables of a history: anomalens history export inspections.{tables[0]} --store {results}")
    run: AbstractContextManager[Run | None] = nullcontext()
    if of_history:
        run = _history(results, media)
    elif chosen:
        run = nullcontext(read_run(folder))
    try:
        with run as opened, drawing_bar() as progress:
            if opened is None:
                paths = [write_page(folder, out, progress)]
            elif chosen:
                target = out or folder
                make_folder(target)
                paths = write_formats(opened, chosen, target, progress)
            else:
                paths = write_run_pages(opened, out or folder / PAGE_NAME, progress)
    except OSError as error:
        raise ConfigError(f"cannot write: {error.strerror or error}; choose another --out") from error
    for path in paths:
        say(str(path))


def _history(store: str, media: Path | None) -> "AbstractContextManager[Run]":
    from anomalens.cli.show_history import opened_run
    from anomalens.serving.history import Filters

    return opened_run(store, media, Filters())
