"""Print results to standard output and everything else to standard error. Only this file knows about --quiet."""

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

output = Console()
errors = Console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
"""The flag of every command that prints a table."""

# Characters that a column needs to be of use, with its edges.
_NARROWEST = 8

_quiet = False


def set_verbosity(*, quiet: bool, verbose: bool) -> None:
    """Say how much of what is no result is printed: nothing but errors, the usual, or also the library's log."""
    global _quiet
    _quiet = quiet
    log = logging.getLogger("anomalens")
    log.handlers = [handler for handler in log.handlers if not isinstance(handler, _LogLines)]
    log.addHandler(_LogLines())
    log.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.WARNING)


class _LogLines(logging.Handler):
    """Print the library's log, a line each, on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        complain(f"{record.levelname.lower()}: {record.getMessage()}")


def complain(text: str) -> None:
    """Print what went wrong, a line on standard error."""
    errors.print(text, markup=False, highlight=False, soft_wrap=True)


def note(text: str) -> None:
    """Print a remark on standard error, unless --quiet."""
    if not _quiet:
        complain(text)


def say(text: str) -> None:
    """Print a line of the result on standard output, as it is."""
    print(text, file=output.file)


def working(text: str) -> AbstractContextManager[Any]:
    """Show on standard error that something takes a while, unless --quiet."""
    return nullcontext() if _quiet else errors.status(text)


def show(rows: Sequence[Mapping[str, Any]], *, title: str = "", typed: Sequence[str] = (), as_json: bool) -> None:
    """Print rows of equal keys as a table; as tab-separated text where the output is no terminal; or as JSON.

    Args:
        typed: keys of what a user has to type, which are never cut or folded.
        as_json: print one JSON array instead.
    """
    if as_json:
        say(json.dumps(list(rows), indent=2, ensure_ascii=False))
        return
    columns = list(rows[0]) if rows else []
    texts = [[_text(row[column]) for column in columns] for row in rows]
    least = sum(
        3 + max(len(line[column]) for line in (columns, *texts)) if name in typed else _NARROWEST
        for column, name in enumerate(columns)
    )
    # Where the names and a little of the rest do not fit, a table would cut them.
    if not output.is_terminal or least > output.width:
        for line in (columns, *texts):
            say("\t".join(" ".join(cell.split()) for cell in line))
        return
    table = Table(title=escape(title) if title else None)
    for column in columns:
        table.add_column(escape(column), no_wrap=column in typed, overflow="fold")
    for line in texts:
        table.add_row(*map(escape, line))
    output.print(table)


def show_facts(facts: Mapping[str, Any], *, title: str = "", as_json: bool) -> None:
    """Print named values, a line each; or as one JSON object. None is left out of the text."""
    if as_json:
        say(json.dumps(dict(facts), indent=2, ensure_ascii=False))
        return
    lines = [(name, _text(value)) for name, value in facts.items() if value is not None]
    if not output.is_terminal:
        for name, text in lines:
            say(f"{name}\t{text}")
        return
    table = Table(title=escape(title) if title else None, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in lines:
        table.add_row(escape(name), escape(text))
    output.print(table)


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.1f}"
    return str(value)


class _Rate(ProgressColumn):
    """Show images a second since the bar was begun: batches that finish together do not upset it."""

    def render(self, task: Task) -> Text:
        done = task.completed - float(task.fields.get("resumed", 0))
        elapsed = task.finished_time if task.finished else task.elapsed
        return Text(f"{done / elapsed:.1f} images/s" if done and elapsed else "", style="progress.data.speed")


def progress_bar() -> Progress:
    """Return a bar with count, rate and time left, on standard error; none with --quiet."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    return Progress(*columns, console=errors, disable=_quiet)
