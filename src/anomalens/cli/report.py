"""Run `anomalens report`: one self-contained page about an evaluation."""

from pathlib import Path
from typing import Annotated

import typer

from anomalens.errors import ConfigError


def report(
    folder: Annotated[Path, typer.Argument(help="A folder that `anomalens evaluate` wrote.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The page; FOLDER/report.html unless given.")] = None,
) -> None:
    """Make one HTML page, without network or other files: curves, histograms, best and worst images, settings."""
    from anomalens.cli.console import say
    from anomalens.reporting.evaluation_page import write_report

    try:
        path = write_report(folder, out)
    except OSError as error:
        raise ConfigError(f"cannot write the page: {error.strerror or error}; choose another --out") from error
    say(str(path))
