"""Run `anomalens data ...`: look up, check and prepare data sets."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from anomalens.cli.application import new_app
from anomalens.cli.console import Json, with_verbosity
from anomalens.cli.data_options import Exclude, NormalName
from anomalens.errors import ConfigError

app = new_app("data", "Data sets: look up, check or prepare them.")


@app.command("list")
@with_verbosity
def list_benchmarks(
    name: Annotated[str | None, typer.Argument(help="One benchmark, in full; any usual spelling.")] = None,
    as_json: Json = False,
) -> None:
    """List the benchmarks of the papers: classes, test images, task, licence. With a name: all that is known of it."""
    from anomalens.cli.console import note, say, say_json, show
    from anomalens.datasets.catalog import describe, find, list_rows

    if name is not None:
        if as_json:
            say_json(asdict(find(name)))
        else:
            say(describe(name))
        return
    # Addresses are long; `list NAME` has them.
    rows = [{column: value for column, value in row.items() if column != "source"} for row in list_rows()]
    show(rows, typed=[next(iter(rows[0]))], as_json=as_json)
    note("Where to get one, what it unpacks as: anomalens data list NAME")


@app.command("check")
@with_verbosity
def check(
    data: Annotated[str, typer.Argument(help="LAYOUT:PATH, or a path whose layout is recognised.")],
    benchmark: Annotated[
        str | None, typer.Option("--benchmark", help="Also compare with what the catalogue states of it.")
    ] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Decode every mask and compare it with its label.")] = False,
    examples: Annotated[int, typer.Option(min=0, help="Cases shown of each kind of fault.")] = 5,
    exclude: Exclude = None,
    normal_name: NormalName = None,
    max_pixels: Annotated[
        int | None, typer.Option("--max-pixels", min=1, help="Largest image and mask accepted, in pixels.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Read a data set and report every broken pair before anything runs on it.

    Exit status: 0 all well, 1 something is wrong (and said), 2 the path cannot be read as a data set.
    """
    from anomalens.cli.console import note, say, show
    from anomalens.datasets.catalog import differences, find
    from anomalens.datasets.layouts import open_dataset
    from anomalens.images.image_files import MAX_PIXELS

    if benchmark is not None:
        # A misspelt name is refused before thousands of files are opened.
        find(benchmark)
    dataset = open_dataset(
        data,
        deep=deep,
        exclude=exclude or (),
        normal_names=normal_name or (),
        max_pixels=max_pixels or MAX_PIXELS,
    )
    rows = [
        {
            "class": name,
            "normal": counts.normal,
            "anomalous": counts.anomalous,
            "with mask": counts.masks,
            "unlabelled": counts.unlabelled,
        }
        for name, counts in dataset.counts().items()
    ]
    show(rows, typed=["class"], as_json=as_json)
    # With --json, standard output holds nothing else.
    tell = note if as_json else say
    tell(dataset.summary(examples))
    differing = differences(benchmark, dataset) if benchmark else ()
    for line in differing:
        tell(f"differs: {line}")
    if dataset.faults or differing:
        raise typer.Exit(1)
    tell("as the catalogue states" if benchmark else "no fault found")


@app.command("prepare")
@with_verbosity
def prepare(
    name: Annotated[str, typer.Argument(help="A benchmark; see `anomalens data list`.")],
    source: Annotated[Path | None, typer.Argument(help="Where its download is unpacked (elpv needs none).")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for new files (ksdd and elpv only).")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what an earlier run prepared.")] = False,
) -> None:
    """Bring a benchmark's download into a layout that `evaluate` reads, and print the LAYOUT:PATH to give it.

    Only KolektorSDD is rewritten (its images are cut); for the others a table is laid beside the files.
    """
    from anomalens.cli.console import say
    from anomalens.datasets.catalog import find
    from anomalens.datasets.prepare import prepare as bring

    benchmark = find(name)
    if source is None and benchmark.prepare != "elpv":
        raise ConfigError(f"name the folder where {benchmark.title} is unpacked: anomalens data prepare {name} FOLDER")
    spec = bring(name, source or Path(), out, force=force)
    say(spec)
