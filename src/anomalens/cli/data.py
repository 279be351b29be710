"""`anomalens data ...`: look up, check and prepare data sets."""

from pathlib import Path
from typing import Annotated

import typer

from anomalens.errors import ConfigError

app = typer.Typer(help="Data sets: look up, check or prepare them.", no_args_is_help=True)


@app.command("list")
def list_benchmarks(
    name: Annotated[str | None, typer.Argument(help="One benchmark, in full; any usual spelling.")] = None,
) -> None:
    """List the benchmarks of the papers: classes, test images, task, licence. With a name: all that is known of it."""
    from rich.table import Table

    from anomalens.cli.console import output
    from anomalens.datasets.catalog import describe, list_rows

    if name is not None:
        output.print(describe(name), markup=False, highlight=False, soft_wrap=True)
        return
    rows = list_rows()
    columns = [column for column in rows[0] if column != "source"]  # addresses are long; `list NAME` has them
    table = Table(*columns)
    for row in rows:
        table.add_row(*(row[column] for column in columns))
    output.print(table)
    output.print("Where to get one, what it unpacks as: anomalens data list NAME", markup=False, highlight=False)


@app.command("check")
def check(
    data: Annotated[str, typer.Argument(help="LAYOUT:PATH, or a path whose layout is recognised.")],
    benchmark: Annotated[
        str | None, typer.Option("--benchmark", help="Also compare with what the catalogue states of it.")
    ] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Decode every mask and compare it with its label.")] = False,
    examples: Annotated[int, typer.Option(min=0, help="Cases shown of each kind of fault.")] = 5,
) -> None:
    """Read a data set and report every broken pair before anything runs on it.

    Exit status: 0 all well, 1 something is wrong (and said), 2 the path cannot be read as a data set.
    """
    from rich.table import Table

    from anomalens.cli.console import output
    from anomalens.datasets.catalog import differences, find
    from anomalens.datasets.layouts import open_dataset

    if benchmark is not None:
        find(benchmark)  # a misspelt name is said before thousands of files are opened
    dataset = open_dataset(data, deep=deep)
    table = Table("class", "normal", "anomalous", "with mask", "unlabelled")
    for name, found in dataset.counts().items():
        table.add_row(name, *map(str, (found.normal, found.anomalous, found.masks, found.unlabelled)))
    output.print(table)
    output.print(dataset.summary(examples), markup=False, highlight=False, soft_wrap=True)
    differing = differences(benchmark, dataset) if benchmark else ()
    for line in differing:
        output.print(f"differs: {line}", markup=False, highlight=False, soft_wrap=True)
    if dataset.faults or differing:
        raise typer.Exit(1)
    output.print("as the catalogue states" if benchmark else "no fault found", highlight=False)


@app.command("prepare")
def prepare(
    name: Annotated[str, typer.Argument(help="A benchmark; see `anomalens data list`.")],
    source: Annotated[Path | None, typer.Argument(help="Where its download is unpacked (elpv needs none).")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for new files (ksdd and elpv only).")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what an earlier run prepared.")] = False,
) -> None:
    """Bring a benchmark's download into a layout that `evaluate` reads, and print the LAYOUT:PATH to give it.

    Only KolektorSDD is rewritten (its images are cut); for the others a table is laid beside the files.
    """
    from anomalens.cli.console import output
    from anomalens.datasets.catalog import find
    from anomalens.datasets.prepare import prepare as bring

    benchmark = find(name)
    if source is None and benchmark.prepare != "elpv":
        raise ConfigError(f"name the folder where {benchmark.title} is unpacked: anomalens data prepare {name} FOLDER")
    spec = bring(name, source or Path(), out, force=force)
    output.print(spec, markup=False, highlight=False, soft_wrap=True)
