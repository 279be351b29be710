"""`anomalens data ...`: data sets to look at, check, prepare or make."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Data sets: make procedural ones.", no_args_is_help=True)


@app.command("synthesize")
def synthesize(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the new data set, in MVTec layout.")],
    count: Annotated[int, typer.Option(min=1, help="Images to make.")] = 1000,
    size: Annotated[int, typer.Option(min=64, help="Side of the images in pixels.")] = 256,
    seed: Annotated[int, typer.Option(help="Same seed, same images.")] = 0,
) -> None:
    """Make images of procedural surfaces and parts with defects, exact masks and captions.

    A run that was interrupted goes on where it stopped when started again with the same options.
    """
    from anomalens.cli.console import output, progress_bar
    from anomalens.data.synthesis import synthesize as make

    with progress_bar() as bar:
        task = bar.add_task("synthesising", total=count)
        make(out, count, seed=seed, size=size, progress=lambda done: bar.update(task, completed=done))
    output.print(f"{count} images in {out}, in MVTec layout; captions in {out / 'captions.jsonl'}")
