"""Run the command line: thin commands over the library. `anomalens --help` lists them."""

import sys
from collections.abc import Callable

from anomalens.cli.app import app


def main() -> None:
    """Run `anomalens`."""
    run_app(app)


def run_app(app: Callable[[], object]) -> None:
    """Run a Typer application. Errors a user can cause become one line and exit status 2, never a stack trace."""
    from anomalens.cli.console import errors
    from anomalens.errors import AnomalensError

    try:
        app()
    except (AnomalensError, OSError) as error:
        # OSError: no such folder, no permission, disk full.
        errors.print(f"[red]error:[/] {_plain(error)}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _plain(error: Exception) -> str:
    from rich.markup import escape

    return escape(str(error))
