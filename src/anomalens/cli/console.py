"""Print results to standard output and everything else to standard error. Only this file knows about --quiet."""

import functools
import inspect
import json
import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
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

from anomalens.names import printable

output = Console()
errors = Console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
"""The flag of every command that prints a table."""

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print results and errors only.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print the library's log too.")]

_quiet = False


def set_verbosity(*, quiet: bool, verbose: bool) -> None:
    """Say how much of what is no result is printed: nothing but errors, the usual, or also the library's log."""
    global _quiet
    _quiet = quiet
    log = logging.getLogger("anomalens")
    log.handlers = [handler for handler in log.handlers if not isinstance(handler, _LogLines)]
    log.addHandler(_LogLines())
    log.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.WARNING)
    # What is fetched takes a while.
    logging.getLogger("anomalens.downloads").setLevel(logging.ERROR if quiet else logging.INFO)


def with_verbosity(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command --quiet and --verbose of its own, so that they may stand behind its name as well as before it.

    The lines of its help are joined to paragraphs, which then fit terminals of any width.
    """

    @functools.wraps(command)
    def speaking(quiet: bool, verbose: bool, **values: Any) -> None:
        if quiet or verbose:
            set_verbosity(quiet=quiet, verbose=verbose)
        command(**values)

    hints = {"quiet": Quiet, "verbose": Verbose}
    flags = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=hint)
        for name, hint in hints.items()
    ]
    parameters = [*inspect.signature(command).parameters.values(), *flags]
    speaking.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    speaking.__annotations__ = command.__annotations__ | hints
    speaking.__doc__ = re.sub(r"(?<=\S)\n(?=\S)", " ", inspect.getdoc(command) or "")
    return speaking


class _LogLines(logging.Handler):
    """Print the library's log, a line each, on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        complain(f"{record.levelname.lower()}: {record.getMessage()}")


def complain(text: str) -> None:
    """Print what went wrong, a line on standard error."""
    errors.print(printable(text), markup=False, highlight=False, soft_wrap=True)


def note(text: str) -> None:
    """Print a remark on standard error, unless --quiet."""
    if not _quiet:
        complain(text)


def say(text: str) -> None:
    """Print a line of the result on standard output, as it is."""
    print(text, file=output.file)


def working(text: str) -> AbstractContextManager[Any]:
    """Show on standard error that something takes a while, unless --quiet."""
    return nullcontext() if _quiet else errors.status(escape(text))


def say_json(value: Any) -> None:
    """Print a value as one indented JSON document; a number that JSON cannot hold (NaN, infinity) is null."""
    # Escapes are what every JSON reader understands, whatever the console's encoding cannot hold.
    ascii_only = not (output.encoding or "").lower().startswith("utf")
    say(json.dumps(_finite(value), indent=2, ensure_ascii=ascii_only, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def show(
    rows: Sequence[Mapping[str, Any]],
    *,
    title: str = "",
    typed: Sequence[str] = (),
    as_json: bool,
    headed: bool = True,
) -> None:
    """Print rows of equal keys as a table; as tab-separated text where the output is no terminal; or as JSON.

    In a terminal too narrow for a table each row is a block of lines.

    Args:
        typed: keys of what a user has to type, which are never cut or folded.
        as_json: print one JSON array instead.
        headed: print the keys above tab-separated text; False continues what an earlier call began.
    """
    if as_json:
        say_json(rows)
        return
    columns = list(rows[0]) if rows else []
    texts = [[_text(row[column]) for column in columns] for row in rows]
    if not output.is_terminal:
        for line in (columns, *texts) if headed else texts:
            say("\t".join(" ".join(cell.split()) for cell in line))
        return
    table = Table(title=escape(title) if title else None, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in columns:
        table.add_column(escape(column), no_wrap=column in typed, overflow="fold")
    for line in texts:
        table.add_row(*map(escape, line))
    # The least width without a folded word.
    if Measurement.get(output, output.options.update(max_width=10_000), table).minimum <= output.width:
        output.print(table)
    else:
        for line in texts:
            say("\n".join(f"{name}: {text}" for name, text in zip(columns, line, strict=True)) + "\n")


def show_facts(facts: Mapping[str, Any], *, title: str = "", as_json: bool) -> None:
    """Print named values, a line each; or as one JSON object. None is left out of the text."""
    if as_json:
        say_json(facts)
        return
    lines = [(name, _text(value)) for name, value in facts.items() if value is not None]
    if not output.is_terminal:
        for name, text in lines:
            say(f"{name}\t{' '.join(text.split())}")
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
        return f"{value:.1f}" if math.isfinite(value) else "-"
    return printable(str(value))


class _Rate(ProgressColumn):
    """Show images a second since the bar was begun: batches that finish together do not upset it.

    A task with the field `rated=False` counts something else and shows no rate.
    """

    def render(self, task: Task) -> Text:
        if not task.fields.get("rated", True):
            return Text()
        done = task.completed - float(task.fields.get("resumed", 0))
        elapsed = task.finished_time if task.finished else task.elapsed
        return Text(f"{done / elapsed:.1f} images/s" if done and elapsed else "", style="progress.data.speed")


def progress_bar() -> Progress:
    """Return a bar with count, rate and time left, on standard error; none with --quiet."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=errors, disable=_quiet)


@contextmanager
def drawing_bar(description: str = "drawing") -> Iterator[Callable[[int, int], None]]:
    """Show a bar, on standard error, from the first call of the function that this gives: `step(done, total)`."""
    with progress_bar() as bar:
        task = bar.add_task(description, total=None, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)
