"""Start a PostgreSQL server of the test's own on a free port of the loopback interface, as a user without rights."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_USERS = ("postgres", "nobody")


def _programs() -> Path | None:
    """Return the folder of PostgreSQL's programs; None where it is not installed."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    if folders:
        return folders[-1]
    program = shutil.which("initdb")
    return None if program is None else Path(program).parent


@contextmanager
def plant_database() -> Iterator[str]:
    """Give the address of a server while the block runs; skip where none can be started."""
    programs = _programs()
    if programs is None or not (programs / "postgres").exists():
        pytest.skip("PostgreSQL is not installed")
    begin: list[str] = []
    folder = Path(tempfile.mkdtemp(prefix="anomalens-postgres-"))
    if os.getuid() == 0:
        # The server refuses to run as root.
        if shutil.which("runuser") is None:
            pytest.skip("PostgreSQL does not run as root, and there is no runuser")
        user = next((name for name in _USERS if _exists(name)), None)
        if user is None:
            pytest.skip("there is no user without rights to run PostgreSQL as")
        shutil.chown(folder, user)
        begin = ["runuser", "-u", user, "--"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = folder / "data"
    try:
        subprocess.run(
            [
                *begin,
                str(programs / "initdb"),
                "-D",
                str(data),
                *["-U", "anomalens", "-A", "trust", "--no-sync", "-E", "UTF8"],
            ],
            check=True,
            capture_output=True,
            cwd=folder,
        )
        options = f"-h 127.0.0.1 -p {port} -k {folder} -c fsync=off"
        command = [*begin, str(programs / "pg_ctl"), "-D", str(data), "-w", "-l", str(folder / "log")]
        subprocess.run([*command, "-o", options, "start"], check=True, capture_output=True, cwd=folder)
        try:
            yield f"postgresql+psycopg://anomalens@127.0.0.1:{port}"
        finally:
            subprocess.run([*command, "-m", "immediate", "stop"], check=False, capture_output=True, cwd=folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _exists(user: str) -> bool:
    import pwd

    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True
