"""Make and run a command line: what those of the product and of the laboratory have in common."""

import io
import os
import re
import sys
import warnings
from collections.abc import Callable

import typer

from anomalens.errors import AnomalensError, is_out_of_memory
from anomalens.extras import torch_needed
from anomalens.names import printable


def new_app(name: str, description: str) -> typer.Typer:
    """Return a Typer application without commands, called `name`, whose help begins with `description`."""
    return typer.Typer(
        name=name, help=description, no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False
    )


def run_app(app: Callable[[], object]) -> None:
    """Run a Typer application. Errors a user can cause become one line and exit status 2, never a stack trace."""
    from rich.markup import escape

    from anomalens.cli.console import errors

    prepare_console()
    # Pillow warns of harmless damage, such as a camera's notes that end early.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    sys.argv[1:] = map(at_home, sys.argv[1:])
    try:
        with torch_needed("this command"):
            app()
    except (AnomalensError, OSError, MemoryError, RuntimeError) as error:
        reason = _reason(error)
        if reason is None:
            raise
        errors.print(f"[red]error:[/] {escape(reason)}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def prepare_console() -> None:
    """Have characters that the console cannot show replaced by escapes, instead of failing after all the work."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def at_home(argument: str) -> str:
    """Return a command's argument with `~` for the home folder also where shells leave it: `--out=~/x`, `flat:~/x`."""
    begin, tilde, rest = argument.partition("~")
    if tilde and rest[:1] in ("", "/", os.sep) and re.fullmatch(r"(-{1,2}[\w-]+=?)?(\w+:)?", begin):
        return begin + os.path.expanduser(tilde + rest)
    return argument


def _reason(error: Exception) -> str | None:
    """Say in a line what went wrong, where it is nothing that this package does wrong; else None.

    OSError: no such folder, no permission, a full disk.
    """
    if isinstance(error, (AnomalensError, OSError)):
        return printable(" ".join(str(error).split()))
    if isinstance(error, RecursionError):
        return "a file or folder is nested too deeply to be read"
    if is_out_of_memory(error):
        return "out of memory; use a smaller --batch-size or --size, --tile for large images, or fewer --workers"
    return None
