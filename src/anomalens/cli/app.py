"""The Typer application. Every command lives in its own module and imports what it needs when it runs."""

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
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


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
