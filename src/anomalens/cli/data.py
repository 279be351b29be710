"""Run `anomalens data ...`: look up, check and prepare data sets."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anomalens.cli.application import new_app
from anomalens.cli.console import Json, with_verbosity
from anomalens.cli.data_options import Exclude, NormalName
from anomalens.errors import ConfigError

if TYPE_CHECKING:
    from anomalens.datasets.catalog import Benchmark

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
    source: Annotated[
        list[Path] | None,
        typer.Argument(help="Its archives as published, or the folder where they are unpacked (elpv needs none)."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for new files (archives, ksdd and elpv only).")
    ] = None,
    accept_licence: Annotated[
        bool,
        typer.Option("--accept-licence", help="Fetch the archive, if it has an address of its own, under its licence."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace what an earlier run prepared.")] = False,
) -> None:
    """Bring a benchmark's download into a layout that `evaluate` reads, and print the LAYOUT:PATH to give it.

    Archives are unpacked to --out, and what came out is compared with what the catalogue states. A folder is prepared
    where it lies: only KolektorSDD is rewritten (its images are cut); for the others a table is laid beside the files.
    Without archive or folder, the address and the licence are printed.

    Exit status: 0 all well, 1 prepared, but not as the catalogue states, 2 wrong usage or not the benchmark.

    Examples:

      anomalens data prepare visa

      anomalens data prepare isic Test_Data.zip Test_GroundTruth.zip --out datasets/isic

      anomalens data prepare brainmri downloads/brain --force
    """
    from anomalens.cli.console import say
    from anomalens.datasets.archives import is_archive
    from anomalens.datasets.catalog import find
    from anomalens.datasets.prepare import prepare as bring

    benchmark = find(name)
    sources = source or []
    if not sources and benchmark.prepare != "elpv":
        sources = [_fetched(benchmark, out)] if accept_licence else []
        if not sources:
            _say_where(benchmark)
            raise typer.Exit(2)
    if sources and all(map(is_archive, sources)):
        if out is None:
            raise ConfigError("say where to unpack it: --out FOLDER")
        spec = _unpacked(benchmark, sources, out)
    elif len(sources) > 1:
        raise ConfigError("give either archives (.zip, .tar, .tar.gz, .tar.xz, ...) or one folder")
    else:
        spec = bring(name, sources[0] if sources else Path(), out, force=force)
    say(spec)
    _compare(benchmark, spec)


def _say_where(benchmark: "Benchmark") -> None:
    """Print where a benchmark is to be had, and under which licence."""
    from anomalens.cli.console import complain

    complain(f"{benchmark.title}: {benchmark.source}")
    complain(f"licence: {benchmark.licence}")
    if benchmark.archive:
        complain(f"fetched from {benchmark.archive} with --accept-licence --out FOLDER, where you accept the licence")
    complain(
        f"then: anomalens data prepare {benchmark.key} ARCHIVE... --out FOLDER (or the folder where it is unpacked)"
    )


def _fetched(benchmark: "Benchmark", out: Path | None) -> Path:
    """Fetch the archive of a benchmark, beside the folder where it is to be unpacked."""
    from urllib.parse import urlsplit

    from anomalens.cli.console import note, progress_bar
    from anomalens.downloads import described, fetch
    from anomalens.errors import InputError

    if not benchmark.archive:
        raise ConfigError(f"{benchmark.title} has no address that can be fetched; get it by hand: {benchmark.source}")
    if out is None:
        raise ConfigError("say where to unpack it: --out FOLDER")
    label = f"the archive of {benchmark.title}"
    file = described(benchmark.archive, label=label, error=InputError)
    note(f"fetching {file.address} ({file.size}; licence: {benchmark.licence})")
    place = out.parent / Path(urlsplit(benchmark.archive).path).name
    with progress_bar() as bar:
        task = bar.add_task("bytes", total=file.bytes, rated=False)
        return fetch(
            file,
            place,
            label=label,
            error=InputError,
            progress=lambda arrived, total: bar.update(task, completed=arrived, total=total),
        )


def _unpacked(benchmark: "Benchmark", archives: list[Path], out: Path) -> str:
    from anomalens.cli.console import progress_bar
    from anomalens.datasets.prepare import prepare_archives

    with progress_bar() as bar:
        task = bar.add_task("unpacking, bytes", total=None, rated=False)
        return prepare_archives(
            benchmark.key, archives, out, lambda done, total: bar.update(task, completed=done, total=total)
        )


def _compare(benchmark: "Benchmark", spec: str) -> None:
    """Say how a prepared set differs from what the catalogue states of it."""
    from anomalens.cli.console import complain, note
    from anomalens.datasets.catalog import differences
    from anomalens.datasets.layouts import open_dataset

    dataset = open_dataset(spec)
    note(dataset.summary())
    lines = differences(benchmark.key, dataset)
    for line in lines:
        complain(f"differs: {line}")
    if lines:
        raise typer.Exit(1)
    note("as the catalogue states" if benchmark.counts else "no source states how many images it has")
