"""Run the command line: thin commands over the library. `anomalens --help` lists them."""

from anomalens.cli.app import app
from anomalens.cli.application import run_app


def main() -> None:
    """Run `anomalens`."""
    run_app(app)
