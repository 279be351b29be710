"""Running the command line inside the test's process, from arguments to exit status and what was printed."""

import sys
from typing import NamedTuple, Protocol

import pytest

from anomalens.cli import main


class Ran(NamedTuple):
    """Hold what came of a command."""

    code: int
    out: str
    err: str


class Command(Protocol):
    """Run a command: `run("detect", path, "--out", folder)`."""

    def __call__(self, *arguments: object) -> Ran: ...


def runner(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Return a function that runs `anomalens` with the arguments it is given, on a terminal 240 characters wide."""
    monkeypatch.setenv("COLUMNS", "240")

    def run(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["anomalens", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        return Ran(code, *capsys.readouterr())

    return run
