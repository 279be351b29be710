"""Run `anomalens history`: list, export and prune what `anomalens serve` and `detect --store` remember."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anomalens.cli.application import new_app
from anomalens.cli.console import Json, with_verbosity
from anomalens.errors import ConfigError

if TYPE_CHECKING:
    from anomalens.serving.database import Database
    from anomalens.serving.history import Filters
    from anomalens.serving.history_run import HistoryRun
    from anomalens.serving.schema import Inspection

app = new_app("history", "The history of inspections: list it, write it as a table, delete what is old.")

Store = Annotated[str, typer.Option("--store", help="sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME.")]
Recipe = Annotated[str | None, typer.Option("--recipe", help="Of this recipe alone.")]
Since = Annotated[datetime | None, typer.Option(help="From this time on, UTC.")]
Until = Annotated[datetime | None, typer.Option(help="Before this time, UTC.")]


class Label(StrEnum):
    """Name the decisions."""

    normal = "normal"
    anomalous = "anomalous"
    unusable = "unusable"


Media = Annotated[Path | None, typer.Option(help="Folder of pictures; unless given, beside the SQLite file.")]
OfLabel = Annotated[Label | None, typer.Option("--label", help="Those decided so.")]
DEFAULT = "sqlite:///history.db"


@app.command("list")
@with_verbosity
def show(
    store: Store = DEFAULT,
    recipe: Recipe = None,
    label: OfLabel = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most, the newest first.")] = 20,
    as_json: Json = False,
) -> None:
    """List inspections, the newest first.

    Examples:

      anomalens history list --label anomalous

      anomalens history list --store postgresql+psycopg://inspector@db/plant --recipe nut --json
    """
    from anomalens.cli.console import say_json, show
    from anomalens.serving.answers import inspection_json
    from anomalens.serving.history import History

    with _opened(store) as database:
        rows = History(database).page(_filters(recipe, label, since, until), limit=limit).rows
    if as_json:
        say_json([inspection_json(row) for row in rows])
        return
    table = [
        {
            "time": row.created.isoformat(timespec="seconds"),
            "name": row.name,
            "recipe": row.recipe,
            "label": row.label or row.state,
            "score": None if row.score is None else f"{row.score:.4f}",
            "review": row.verdict,
        }
        for row in rows
    ]
    show(table, as_json=False)


@app.command("export")
@with_verbosity
def export(
    out: Annotated[
        Path, typer.Argument(help="The file to write: .csv, .parquet or .xlsx; .html is a page to look at.")
    ],
    store: Store = DEFAULT,
    recipe: Recipe = None,
    label: OfLabel = None,
    since: Since = None,
    until: Until = None,
    media: Media = None,
) -> None:
    """Write inspections as a table, the oldest first; or as a page with pictures, the worst first.

    Examples:

      anomalens history export inspections.csv

      anomalens history export alarms.xlsx --label anomalous --since 2026-11-01

      anomalens history export alarms.html --label anomalous --since 2026-11-01
    """
    from anomalens.cli.console import drawing_bar, note
    from anomalens.files import atomic_write
    from anomalens.reporting.run_page import write_run_pages
    from anomalens.serving.history import History
    from anomalens.serving.history_tables import csv_table, parquet, workbook

    writers: dict[str, Callable[[Iterable[Inspection]], bytes]]
    writers = {".csv": csv_table, ".parquet": parquet, ".xlsx": workbook}
    filters, write = _filters(recipe, label, since, until), writers.get(out.suffix.lower())
    if out.suffix.lower() == ".html":
        with opened_run(store, media, filters) as run, drawing_bar() as progress:
            paths = write_run_pages(run, out, progress)
    elif write is None:
        raise ConfigError(f"{out}: a table is written as {', '.join(writers)}, a page as .html")
    else:
        with _opened(store) as database:
            content = write(History(database).each(filters))
        atomic_write(out, content)
        paths = [out]
    for path in paths:
        note(f"written: {path}")


@app.command("prune")
@with_verbosity
def prune(
    older_than: Annotated[str, typer.Option("--older-than", help="A span of time: 90d, 12h, 4w or 2y.")],
    store: Store = DEFAULT,
    media: Media = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would be deleted.")] = False,
    as_json: Json = False,
) -> None:
    """Delete old inspections with their pictures; pictures that newer ones or recipes need stay.

    A running service does the same by itself with --retention.

    Examples:

      anomalens history prune --older-than 90d --dry-run
    """
    from anomalens.cli.console import show_facts
    from anomalens.cli.serve import days
    from anomalens.serving.media import MediaFolder
    from anomalens.serving.retention import prune
    from anomalens.serving.settings import ServeSettings

    span = days(older_than, "--older-than")
    with _opened(store) as database:
        folder = MediaFolder(ServeSettings(store=store, media=media).media_folder)
        pruned = prune(database, folder, span, dry_run=dry_run)
    facts = {"would be deleted" if dry_run else "deleted": f"{pruned.inspections} inspections"}
    facts |= {"files without a row": f"{pruned.files} of {pruned.bytes / 1e6:.1f} MB"}
    show_facts(vars(pruned) | {"dry_run": dry_run} if as_json else facts, as_json=as_json)


@contextmanager
def opened_run(store: str, media: Path | None, filters: "Filters") -> "Iterator[HistoryRun]":
    """Give inspections of a history as a run. Raises ConfigError where it, or its folder of pictures, is not there."""
    with _opened(store) as database:
        from anomalens.serving.history import History
        from anomalens.serving.history_run import HistoryRun
        from anomalens.serving.media import MediaFolder
        from anomalens.serving.settings import ServeSettings, sqlite_file, without_password

        folder = ServeSettings(store=store, media=media).media_folder
        if not folder.is_dir():
            raise ConfigError(f"{folder}: no such folder of pictures; name it by --media")
        file = sqlite_file(store)
        name = without_password(store) if file is None else file.name
        yield HistoryRun(name, History(database), MediaFolder(folder), filters)


@contextmanager
def _opened(store: str) -> "Iterator[Database]":
    """Open a store that is there already. Raises ConfigError where it is not."""
    from anomalens.cli.serve import require_packages

    require_packages()
    from anomalens.serving.database import Database
    from anomalens.serving.settings import sqlite_file

    file = sqlite_file(store)
    if file is not None and not file.exists():
        raise ConfigError(f"{file}: no such history; `anomalens serve` and `anomalens detect --store` write one")
    database = Database(store)
    try:
        yield database
    finally:
        database.close()


def _filters(recipe: str | None, label: Label | None, since: datetime | None, until: datetime | None) -> "Filters":
    from anomalens.serving.history import Filters

    return Filters(recipe=recipe, label=label and label.value, since=since, until=until)
