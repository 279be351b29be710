"""Open the database of the history: SQLite in a file, or PostgreSQL by its address; bring its tables up to date."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from anomalens.errors import ConfigError, one_line
from anomalens.extras import optional
from anomalens.serving.settings import sqlite_file, without_password

# Any number, the same for all programs that bring tables up to date.
_MIGRATION_LOCK = 4_817_023
# Seconds to wait for others that write to a file of SQLite.
_WAIT = 30


class Database:
    """Give transactions on the history's tables to any number of threads.

    Raises ConfigError where it cannot be opened, or was written by a newer version.
    """

    def __init__(self, address: str) -> None:
        """Open the database of an address and bring its tables up to date."""
        self.address = address
        shown = without_password(address)
        dialect = address.partition(":")[0].partition("+")[0]
        if dialect == "postgresql":
            optional("psycopg", "postgres")
        elif dialect != "sqlite" or sqlite_file(address) is None:
            raise ConfigError(f"--store {shown}: use sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME")
        self.engine = _open(address)
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)
        try:
            migrate(self.engine)
        except SQLAlchemyError as error:
            raise ConfigError(
                f"cannot open the store {shown}: {one_line(getattr(error, 'orig', None) or error)}"
            ) from error

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Give a transaction that changes nothing."""
        with self._sessions() as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Give a transaction that is stored for good when the block ends well, and undone when it raises."""
        with self._sessions() as session:
            # From its beginning: SQLite cannot make a writer of a reader while another writes.
            session.connection(execution_options={"writes": True})
            yield session
            session.commit()

    def check(self) -> None:
        """Raise SQLAlchemyError where the database does not answer."""
        with self.engine.connect() as connection:
            connection.execute(text("SELECT 1"))

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def migrate(engine: Engine, revision: str = "head") -> None:
    """Bring the tables to a revision, one program at a time.

    Raises ConfigError where they were made by a newer version of anomalens.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError

    config = Config()
    config.set_main_option("script_location", "anomalens.serving:migrations")
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": _MIGRATION_LOCK})
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, revision)
        except CommandError as error:
            raise ConfigError(
                f"the store was written by a newer version of anomalens ({error}); update anomalens"
            ) from error


def _open(address: str) -> Engine:
    file = sqlite_file(address)
    if file is None:
        return create_engine(address, pool_pre_ping=True, pool_size=10, max_overflow=10, pool_timeout=10)
    if not file.absolute().parent.is_dir():
        raise ConfigError(f"--store {address}: {file.absolute().parent} is no folder; make it first")
    settings = {"timeout": _WAIT, "check_same_thread": False}
    engine = create_engine(f"sqlite:///{file}", connect_args=settings, pool_size=10)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _: object) -> None:
    """Let readers and the writer not wait for each other, and have what is committed survive a loss of power."""
    # Transactions begin as `_begin_sqlite` says, not as the driver would have it.
    connection.isolation_level = None
    _set_journal(connection)
    for setting in ("synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {setting}").close()


def _set_journal(connection: Any) -> None:
    """Have a new file keep its journal as WAL. SQLite refuses at once while another writes, so this waits itself."""
    latest = time.monotonic() + _WAIT
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL").close()
            return
        except sqlite3.OperationalError:
            if time.monotonic() > latest:
                raise
            time.sleep(0.05)


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def is_busy(error: SQLAlchemyError) -> bool:
    """Return whether a database could not be reached or was locked by others, so that trying again may help."""
    return isinstance(error, OperationalError)
