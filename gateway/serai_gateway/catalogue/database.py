"""The connection to the database: how transactions begin, and when the catalogue has changed."""

import contextlib
import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import msgspec
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError, OperationalError

from serai_gateway.catalogue import tables
from serai_gateway.catalogue.errors import Busy, NoRoom, NotFound

#: How long a writer waits for another one. Writes take about a millisecond; only a migration takes longer.
BUSY_TIMEOUT_MS = 10_000
#: Writers of one process, the one that writes included.
_MAX_WRITERS = 24


def sqlite_url(path: Path) -> sa.URL:
    return sa.URL.create("sqlite", database=str(path.absolute()))


def create_engine(url: str | sa.URL) -> sa.Engine:
    """An engine whose connections keep our rules. Use it in the process that made it, not across a fork."""
    engine = sa.create_engine(
        url,
        hide_parameters=True,  # of statements that fail: inputs of calls, addresses, hashes of keys are not for the log
        json_serializer=lambda value: msgspec.json.encode(value).decode(),
        json_deserializer=msgspec.json.decode,
    )
    if engine.dialect.name == "sqlite":
        if engine.url.database:
            _create_sqlite(Path(engine.url.database).absolute())
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _create_sqlite(path: Path) -> None:
    """The file holds manifests and hashes of keys, and SQLite gives its WAL the mode that the database has.

    One that exists is not opened here: closing it again would drop the locks of this process's connections.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    # Here and not for each connection: the switch fails at once, without waiting, while anybody else reads.
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
            connection.execute("PRAGMA journal_mode = WAL")
    finally:
        os.close(folder)


def _prepare_sqlite(connection: sqlite3.Connection, record: object) -> None:
    connection.isolation_level = None  # the driver would begin transactions of its own, too late
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    # FULL, not NORMAL: with NORMAL a power cut loses the last commits, and a publish that was acknowledged must be
    # there afterwards. It costs one fsync (0.3 ms here) for each of the few writes that the catalogue sees.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: sa.Connection) -> None:
    # A transaction that reads first and writes later would fail with "database is locked" when another one wrote in
    # between, without waiting. So a writer takes the lock at once.
    immediate = connection.get_execution_options().get("serai_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


class Database:
    """Owns the engine. `read` and `write` are transactions; `generation` is the change counter."""

    def __init__(self, url: str | sa.URL) -> None:
        self.engine = create_engine(url)
        self._writer = self.engine.execution_options(serai_write=True)
        self._turns = _Turns() if self.engine.dialect.name == "sqlite" else contextlib.nullcontext()
        self._counter = _SqliteCounter(self.engine) if self.engine.dialect.name == "sqlite" else _Counter(self.engine)

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        with self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """One transaction that has the write lock from its start: what it reads stays true until it commits.

        Raises NotFound when what is written belongs to something that has been deleted meanwhile; NoRoom, Busy.
        """
        try:
            with self._turns, self._writer.begin() as connection:
                yield connection
        except IntegrityError as error:
            if _is_foreign_key(error):
                raise NotFound("what this belongs to has been deleted meanwhile") from error
            raise
        except OperationalError as error:
            match _name_of(error):
                case "SQLITE_FULL" | "53100":
                    raise NoRoom("the server's disk is full, so nothing was changed; tell its operator") from error
                case name if name == "55P03" or name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
                    raise Busy("the database is busy, so nothing was changed; try again") from error
                case _:
                    raise

    def generation(self) -> int:
        return self._counter.value()

    def close(self) -> None:
        self._counter.close()
        self.engine.dispose()


def touch(connection: sa.Connection) -> None:
    """Say that caches must look again, in the transaction that changes what they keep."""
    connection.execute(sa.update(tables.generation).values(value=tables.generation.c.value + 1))


def _is_foreign_key(error: IntegrityError) -> bool:
    return _name_of(error) in ("SQLITE_CONSTRAINT_FOREIGNKEY", "23503")


def _name_of(error: IntegrityError | OperationalError) -> str:
    """As SQLite or PostgreSQL names it."""
    return getattr(error.orig, "sqlite_errorname", "") or getattr(error.orig, "sqlstate", "") or ""


class _Turns:
    """One writer at a time, which is all that SQLite has, and few that wait: each takes a thread, and whoever only
    reads needs one too. Raises Busy on entry."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._places = threading.BoundedSemaphore(_MAX_WRITERS)

    def __enter__(self) -> None:
        if not self._places.acquire(blocking=False):
            raise Busy(f"{_MAX_WRITERS} changes are waiting for the database; try again")
        if not self._turn.acquire(timeout=BUSY_TIMEOUT_MS / 1000):
            self._places.release()
            raise Busy("the database is busy, so nothing was changed; try again")

    def __exit__(self, *exception: object) -> None:
        self._turn.release()
        self._places.release()


class _Counter:
    """Reads the counter's row each time."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def value(self) -> int:
        with self._engine.connect() as connection:
            return connection.execute(sa.select(tables.generation.c.value)).scalar_one()

    def close(self) -> None:
        pass


class _SqliteCounter(_Counter):
    """Reads the row only when SQLite says that another connection has committed something: 4 µs instead of 100.

    `PRAGMA data_version` counts the commits of others, so it needs a connection of its own that never writes.
    """

    def __init__(self, engine: sa.Engine) -> None:
        super().__init__(engine)
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._data_version = -1
        self._value = -1

    def value(self) -> int:
        with self._lock:
            connection = self._connection
            if connection is None:
                path = self._engine.url.database or ""
                connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
                connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
                self._connection = connection
            # Version first, row second: a commit in between is seen again the next time.
            (data_version,) = connection.execute("PRAGMA data_version").fetchone()
            if data_version != self._data_version:
                (self._value,) = connection.execute("SELECT value FROM generation").fetchone()
                self._data_version = data_version
            return self._value

    def close(self) -> None:
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
                self._data_version = -1
