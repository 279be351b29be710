"""Start a PostgreSQL server of the test's own on a free port of the loopback interface, as a user without rights."""

import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy

_USERS = ("postgres", "nobody")


def _programs() -> Path | None:
    """Return the folder of PostgreSQL's programs; None where it is not installed."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))
    if folders:
        return folders[-1]
    program = shutil.which("initdb")
    return None if program is None else Path(program).parent


@dataclass(frozen=True)
class Plant:
    """Hold a server that runs."""

    # Of the server, without a database.
    address: str
    # How its program is called, and what follows to start it.
    command: tuple[str, ...]
    options: str

    def start(self) -> None:
        """Start the server; wait until it takes connections."""
        self._run("-o", self.options, "start")

    def stop(self) -> None:
        """Stop the server at once, as if its machine failed."""
        self._run("-m", "immediate", "stop")

    def _run(self, *action: str) -> None:
        subprocess.run([*self.command, *action], check=True, capture_output=True, cwd="/")


@contextmanager
def plant_database() -> Iterator[str]:
    """Give the address of a server while the block runs; skip where none can be started."""
    with plant_server() as plant:
        yield plant.address


@contextmanager
def plant_server() -> Iterator[Plant]:
    """Run a server while the block runs; skip where none can be started."""
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
        command = (*begin, str(programs / "pg_ctl"), "-D", str(data), "-w", "-l", str(folder / "log"))
        plant = Plant(f"postgresql+psycopg://anomalens@127.0.0.1:{port}", command, options)
        plant.start()
        try:
            yield plant
        finally:
            plant.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def new_database(plant: str) -> str:
    """Make an empty database on a server; return its address."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    engine = sqlalchemy.create_engine(f"{plant}/postgres", isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return f"{plant}/{name}"


def _exists(user: str) -> bool:
    import pwd

    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True
