"""Run `anomalens report`: a page about a run, an evaluation or a benchmark."""

from pathlib import Path
from typing import Annotated

import typer

from anomalens.errors import ConfigError


def report(
    folder: Annotated[Path, typer.Argument(help="A folder that `anomalens detect`, `evaluate` or `benchmark` wrote.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The page; FOLDER/report.html unless given.")] = None,
) -> None:
    """Make one HTML page, without network or other files, to look at, to filter, to print and to send.

    Of a run: every image with its heatmap and mask, the worst first, at most 1,000 on a page and further ones beside
    it; a threshold to try; what failed and why. Originals are read again: start it where `detect` was started. Of an
    evaluation: curves, decisions, best and worst images. Of a benchmark: its means, and a page for each cell.
    """
    from anomalens.cli.console import drawing_bar, say
    from anomalens.reporting.pages import write_page

    try:
        with drawing_bar() as progress:
            path = write_page(folder, out, progress)
    except OSError as error:
        raise ConfigError(f"cannot write the page: {error.strerror or error}; choose another --out") from error
    say(str(path))
