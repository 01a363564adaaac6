"""The engine under the store: one writing connection, a few readers, one function a transaction.

Why not one await a statement (measured on the building machine): through aiosqlite a statement
costs four hops between threads; a group of segments has a dozen statements. Here a transaction is
one function and one hop, and no cancellation can come between BEGIN and COMMIT. On PostgreSQL the
same functions run inside `AsyncConnection.run_sync`, so nothing above changes with the engine.

SQLite: exactly one connection writes *and* checkpoints (Debian's 3.40.1 can lose a transaction
when two do: the WAL-reset bug); readers are opened `query_only` and closed first.
"""

import asyncio
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

from protocol.errors import Code, UnavailableError

P = ParamSpec("P")
T = TypeVar("T")

#: An open transaction: what every function of the store takes first.
Tx = Connection

READERS: Final = 2  # reading threads; more only help where the disk is what is waited for
BUSY_TIMEOUT_MS: Final = 10_000  # how long a command of the operator may hold the writer's lock
WAL_BYTES_KEPT: Final = 4 * 1024 * 1024


def point(name: str) -> None:
    """A named step at which the torture harness may end the process; inert without its hook."""
    sys.audit("shanmen.point", name)


class Store:
    """The hub's database: runs functions as transactions on threads of its own.

    `write` returns after COMMIT with `synchronous=FULL`: what it returned survives a power cut.
    A write that fails to commit raises UnavailableError and leaves nothing behind that a reader
    can see; whether the engine kept it is decided by reading again, so callers must be idempotent.
    """

    def __init__(self, path: Path, *, max_page_count: int | None = None) -> None:
        """path: the SQLite file, made on first use. max_page_count: pages of 4 KiB, for tests."""
        self._path = path
        self._max_page_count = max_page_count
        self._writer_thread = ThreadPoolExecutor(1, "store-writer")
        self._reader_threads = ThreadPoolExecutor(READERS, "store-reader")
        self._local = threading.local()
        self._reading: list[tuple[Engine, Connection]] = []
        self._writer_engine: Engine | None = None
        self._writer: Connection | None = None
        self.on_rollback: list[Callable[[], None]] = []  # caches forget what did not commit

    @property
    def path(self) -> Path:
        """The database file (beside it, SQLite keeps `-wal` and `-shm`)."""
        return self._path

    async def write(
        self, name: str, fn: Callable[Concatenate[Tx, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run fn in one writing transaction; `name` names the audit points around its COMMIT.

        Raises UnavailableError if the engine cannot write now (disk full, locked); any error of
        fn's own rolls the transaction back and is passed on.
        """
        return await self.on_writer(
            lambda: self.write_now(name, lambda tx: fn(tx, *args, **kwargs))
        )

    async def read(
        self, fn: Callable[Concatenate[Tx, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run fn on one snapshot. It must be short: a long reader lets the WAL grow."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._reader_threads, lambda: self.read_now(lambda tx: fn(tx, *args, **kwargs))
        )

    async def on_writer(self, fn: Callable[[], T]) -> T:
        """Run fn on the writer's thread; there it may call `write_now` and `read_committed`.

        Shielded: a cancelled caller does not interrupt what has begun.
        """
        future: Future[T] = self._writer_thread.submit(fn)
        return await asyncio.shield(asyncio.wrap_future(future))

    def write_now(self, name: str, fn: Callable[[Tx], T]) -> T:
        """The transaction itself. Only on the writer's thread (see `on_writer`)."""
        with self._transaction(name) as tx:
            return fn(tx)

    def read_committed(self, fn: Callable[[Tx], T]) -> T:
        """What is committed, seen from the writer's thread: no other write comes between."""
        with _translated("read"):
            tx = self._open_writer()
            with tx.begin():
                return fn(tx)

    def read_now(self, fn: Callable[[Tx], T]) -> T:
        """A snapshot on this thread's own reading connection (opened on first use)."""
        with _translated("read"):
            connection = getattr(self._local, "connection", None)
            if connection is None:
                connection = self._open_reader()
            with connection.begin():
                return fn(connection)

    async def close(self) -> None:
        """Close readers, then the writer (which folds the WAL into the file)."""
        await asyncio.to_thread(self.close_now)

    def close_now(self) -> None:
        """As `close`; blocks."""
        self._reader_threads.shutdown(wait=True)
        for engine, connection in self._reading:
            connection.close()
            engine.dispose()
        self._reading.clear()
        self._writer_thread.submit(self._close_writer).result()
        self._writer_thread.shutdown(wait=True)

    @contextmanager
    def _transaction(self, name: str) -> Iterator[Tx]:
        with _translated(name):
            try:
                tx = self._open_writer()
                with tx.begin():
                    yield tx
                    point(f"{name}.before")
            except (DBAPIError, sqlite3.Error):
                self._forget()
                raise
        point(f"{name}.after")

    def _forget(self) -> None:
        """After a failure the connection's state is unknown: closed, and opened anew if needed."""
        self._close_writer()
        for forget in self.on_rollback:
            forget()

    def _close_writer(self) -> None:
        writer, engine = self._writer, self._writer_engine
        self._writer = self._writer_engine = None
        if writer is not None and engine is not None:
            writer.invalidate()
            engine.dispose()

    def _open_writer(self) -> Connection:
        if self._writer is None:
            engine = _engine(self._path, "BEGIN IMMEDIATE", self._writer_pragmas())
            self._writer_engine, self._writer = engine, engine.connect()
        return self._writer

    def _open_reader(self) -> Connection:
        engine = _engine(self._path, "BEGIN", ("query_only=ON", "cache_size=-4000"))
        connection = engine.connect()
        self._reading.append((engine, connection))
        self._local.connection = connection
        return connection

    def _writer_pragmas(self) -> tuple[str, ...]:
        limit = () if self._max_page_count is None else (f"max_page_count={self._max_page_count}",)
        return (
            "page_size=4096",
            "journal_mode=WAL",
            "synchronous=FULL",
            f"journal_size_limit={WAL_BYTES_KEPT}",
            "cache_size=-16000",
            *limit,
        )


@contextmanager
def _translated(name: str) -> Iterator[None]:
    """What the engine cannot do now, as UnavailableError; a row's own error stays as it is."""
    try:
        yield
    except (DBAPIError, sqlite3.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        if not isinstance(cause, sqlite3.OperationalError):
            raise
        full = cause.sqlite_errorcode == sqlite3.SQLITE_FULL
        code = Code.DISK_FULL if full else Code.STORAGE_UNKNOWN
        raise UnavailableError(code, field=name, value=str(cause)) from error


def _engine(path: Path, begin: str, pragmas: tuple[str, ...]) -> Engine:
    """One engine = one connection: the discipline of one writer is the pool's size."""
    engine = create_engine(
        f"sqlite:///{path}",
        poolclass=StaticPool,
        connect_args={"check_same_thread": False, "cached_statements": 512},
    )

    @event.listens_for(engine, "connect")
    def set_up(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # BEGIN is ours: the module's own begins too late
        for pragma in (f"busy_timeout={BUSY_TIMEOUT_MS}", "foreign_keys=ON", *pragmas):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        # The driver's own cursor: SQLAlchemy's costs more than the BEGIN itself, thrice a group.
        connection.connection.cursor().execute(begin)

    return engine
