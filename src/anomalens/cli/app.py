"""Gather the commands in one Typer application. Each has a file of its own and imports what it needs when it runs."""

from typing import Annotated

import typer

from anomalens import __version__
from anomalens.cli import about, benchmark, calibrate, data, detect, evaluate, export, report, train

app = typer.Typer(
    name="anomalens",
    help="Zero-shot visual anomaly detection: a score, a heatmap, a mask and a decision for every image.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"anomalens {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print results and errors only.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print the library's log too.")] = False,
) -> None:
    from anomalens.cli.console import set_verbosity

    set_verbosity(quiet=quiet, verbose=verbose)


app.command("detect")(detect.detect)
app.command("calibrate")(calibrate.calibrate)
app.command("evaluate")(evaluate.evaluate)
app.command("export")(export.export)
app.command("benchmark")(benchmark.benchmark)
app.command("report")(report.report)
app.command("train")(train.train)
app.command("import-checkpoint")(train.import_checkpoint)
app.add_typer(data.app, name="data")
app.command("methods")(about.methods)
app.command("backbones")(about.backbones)
app.command("info")(about.info)
