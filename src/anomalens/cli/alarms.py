"""Announce an anomalous image: run a command, or post to an address."""

import json
import shlex
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING

from anomalens.errors import ConfigError
from anomalens.posting import checked_address, post_json

if TYPE_CHECKING:
    from anomalens.runs.store import Row

Alarm = Callable[["Row"], str | None]
"""Announces a row; returns why that failed, or None."""

# Seconds that a command or a receiver may take: the next image waits for it.
_PATIENCE = 30


def alarm_by(target: str) -> Alarm:
    """Return what announces an image: `target` is an http or https address, or else a command.

    Both get the row as JSON, a command on its standard input. `{path}` in a command stands for the image's file. No
    shell reads it, so that no name can become a part of the command.

    Raises ConfigError where it is neither.
    """
    if "://" in target.partition(" ")[0]:
        address = checked_address(target)
        return lambda row: post_json(address, _as_json(row), seconds=_PATIENCE)
    try:
        words = shlex.split(target)
    except ValueError as error:
        raise ConfigError(f"{target!r} is not a command: {error}") from None
    if not words:
        raise ConfigError("there is no command, and no address such as https://HOST/PATH")
    return lambda row: _run([word.replace("{path}", row["path"]) for word in words], _as_json(row))


def _as_json(row: "Row") -> bytes:
    return json.dumps(row, allow_nan=False).encode()


def _run(command: list[str], row: bytes) -> str | None:
    """Run a command; return why that failed, or None. What it prints goes where this program's own messages go."""
    try:
        ended = subprocess.run(command, input=row, stdout=2, timeout=_PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return f"stopped after {_PATIENCE} s"
    except OSError as error:
        return error.strerror or str(error)
    return f"ended with status {ended.returncode}" if ended.returncode else None
