"""Gather the commands in one Typer application. Each has a file of its own and imports what it needs when it runs."""

from collections.abc import Callable
from typing import Annotated

import typer

from anomalens import __version__
from anomalens.cli import (
    about,
    benchmark,
    calibrate,
    data,
    detect,
    evaluate,
    export,
    fit,
    inspect,
    report,
    reproduce,
    serve,
    show_history,
    show_recipe,
    train,
    watch,
)
from anomalens.cli.application import new_app
from anomalens.cli.console import Quiet, Verbose, set_verbosity, with_verbosity

app = new_app(
    "anomalens",
    "Find defects in photographs, by words alone or taught from a few good photos: a score, a heatmap, a mask and a "
    "decision for every image.",
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
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    set_verbosity(quiet=quiet, verbose=verbose)


_COMMANDS: dict[str, Callable[..., None]] = {
    "fit": fit.fit,
    "detect": detect.detect,
    "inspect": inspect.inspect,
    "watch": watch.watch,
    "calibrate": calibrate.calibrate,
    "evaluate": evaluate.evaluate,
    "export": export.export,
    "serve": serve.serve,
    "benchmark": benchmark.benchmark,
    "reproduce": reproduce.reproduce,
    "report": report.report,
    "train": train.train,
    "import-checkpoint": train.import_checkpoint,
    "methods": about.methods,
    "backbones": about.backbones,
    "checkpoints": about.checkpoints,
    "info": about.info,
}

for _name, _command in _COMMANDS.items():
    app.command(_name)(with_verbosity(_command))
app.add_typer(show_recipe.app, name="recipe")
app.add_typer(data.app, name="data")
app.add_typer(show_history.app, name="history")
