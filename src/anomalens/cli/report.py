"""Run `anomalens report`: a page about a run, an evaluation or a benchmark; tables and annotations of a run."""

from pathlib import Path
from typing import Annotated

import typer

from anomalens.errors import ConfigError

FormatNames = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        help="Also html, csv, xlsx, parquet, coco, label-studio, png or pdf (contact sheets), mp4 (of a video); "
        "several with commas.",
    ),
]
"""The option of commands that write a run in further formats."""


def report(
    folder: Annotated[Path, typer.Argument(help="A folder that `anomalens detect`, `evaluate` or `benchmark` wrote.")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="The page, FOLDER/report.html unless given; with --format a folder, FOLDER unless given.",
        ),
    ] = None,
    formats: FormatNames = None,
) -> None:
    """Make one HTML page, without network or other files, to look at, to filter, to print and to send.

    Of a run: every image with its heatmap and mask, the worst first, at most 1,000 on a page and further ones beside
    it; a threshold to try; what failed and why. Originals are read again: start it where `detect` was started. Of an
    evaluation: curves, decisions, best and worst images. Of a benchmark: its means, and a page for each cell.

    With --format a run is written as tables, annotations and contact sheets instead.

    Examples:

      anomalens report results

      anomalens report results --format html,xlsx,coco
    """
    from anomalens.cli.console import drawing_bar, say
    from anomalens.files import make_folder
    from anomalens.reporting.formats import chosen_formats, write_formats
    from anomalens.reporting.pages import write_page
    from anomalens.runs.stored_run import read_run

    chosen = chosen_formats(formats or [])
    if chosen:
        run, target = read_run(folder), out or folder
        make_folder(target)
    try:
        with drawing_bar() as progress:
            paths = write_formats(run, chosen, target, progress) if chosen else [write_page(folder, out, progress)]
    except OSError as error:
        raise ConfigError(f"cannot write the page: {error.strerror or error}; choose another --out") from error
    for path in paths:
        say(str(path))
