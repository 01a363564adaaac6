"""The one SQLite file: one connection, one thread, one function = one transaction = one hop.

The connection writes *and* checkpoints and nobody else opens the file (the system's SQLite 3.40.1
has the WAL-reset bug of two writers). A transaction cannot be interleaved or left open by a
cancelled task, because it is one call on the thread. Every transaction moves the commit number,
so that after a failed COMMIT or fsync the file itself says what happened (docs/decisions/0002).
"""

import asyncio
import contextlib
import os
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from agent.store import schema
from agent.store.disk import Disk, DiskLevel
from agent.store.worker import Worker
from protocol.errors import Code, FatalError, UnavailableError

T = TypeVar("T")
Transaction = Callable[[sqlite3.Connection], T]

SETTLE_WAIT_S: Final = (0.05, 5.0)  # first and longest wait between tries to read a file again

COMMITS_BETWEEN_MEASURES: Final = 8  # while the file is far from any limit

_FULL, _IOERR, _CORRUPT, _NOTADB = 13, 10, 11, 26


class _UnknownError(Exception):
    """A COMMIT failed and the file could not be read again yet."""


class Database:
    """Transactions on one file. `Database.open`; all methods are for the loop's thread."""

    def __init__(self, path: Path, *, budget_bytes: int) -> None:
        self.path = path
        self.disk = Disk(path, budget_bytes=budget_bytes)
        self.level_changed: Callable[[DiskLevel], None] = lambda _level: None
        self.room = asyncio.Event()  # set while journalling is allowed
        self._settled = asyncio.Event()  # clear while the outcome of a COMMIT is unknown
        self._connection: sqlite3.Connection | None = None
        self._shown: DiskLevel | None = None  # what `room` and `level_changed` were told last
        self._number = 0
        self._unknown: tuple[object, int, object] | None = None  # work, its number, its result
        self._outcomes: dict[int, object] = {}  # results of works that turned out as committed
        self._stopping = False
        self._worker = Worker(path.stem)
        self._settling: set[asyncio.Future[Any]] = set()  # held: the loop holds tasks weakly

    @classmethod
    async def open(cls, path: Path, *, budget_bytes: int) -> "Database":
        """Open or create the file (0600). Raises FatalError STORAGE_DAMAGED, UnavailableError."""
        database = cls(path, budget_bytes=budget_bytes)
        with contextlib.ExitStack() as undo:
            undo.callback(database._worker.close, wait=False)
            await database._worker.run(database._open)
            undo.pop_all()
        database._settled.set()
        database._show_level()
        return database

    @property
    def level(self) -> DiskLevel:
        """What may still be written."""
        return self.disk.level if self._settled.is_set() else DiskLevel.UNKNOWN

    async def write(
        self, name: str, work: Transaction[T], *, then: Callable[[T], None] | None = None
    ) -> T:
        """Run `work` in one transaction called `name` (agent/store/points.py); durable at return.

        then: called on the loop with the result as soon as it is durable, even if the caller was
        cancelled meanwhile: state in memory moves there. Whatever `work` raises rolls back.
        Raises UnavailableError DISK_FULL (rolled back), FatalError STORAGE_DAMAGED.
        """
        if not self._settled.is_set():
            return await asyncio.shield(asyncio.ensure_future(self._write_late(name, work, then)))
        # Callbacks, not a task of its own: this is on the way of every message.
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._worker.run(self._transact, name, work).add_done_callback(
            lambda inner: self._written(inner, done, name, work, then)
        )
        return await done

    def _written(
        self,
        inner: "asyncio.Future[T]",
        done: "asyncio.Future[T]",
        name: str,
        work: Transaction[T],
        then: Callable[[T], None] | None,
    ) -> None:
        if self.level is not self._shown:
            self._show_level()
        if inner.cancelled():  # the loop ends while the outcome is unknown
            done.cancel()
            return
        error = inner.exception()
        if isinstance(error, _UnknownError):
            settling = asyncio.ensure_future(self._settle(name, work))
            self._settling.add(settling)
            settling.add_done_callback(self._settling.discard)
            settling.add_done_callback(lambda late: self._written(late, done, name, work, then))
            return
        try:
            if error is None and then is not None:
                then(inner.result())
        except BaseException as failure:  # noqa: BLE001 - the caller's own, and told to it
            error = failure
        if done.done():
            return  # the caller was cancelled; what it wrote is durable and taken over
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(inner.result())

    async def _write_late(
        self, name: str, work: Transaction[T], then: Callable[[T], None] | None
    ) -> T:
        await self._settled.wait()
        return await self.write(name, work, then=then)

    async def _settle(self, name: str, work: Transaction[T]) -> T:
        """Wait until the file can be read again; then either it was committed, or do it again."""
        self._settled.clear()
        self._show_level()
        wait_s = SETTLE_WAIT_S[0]
        try:
            while not self._stopping:
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, SETTLE_WAIT_S[1])
                try:
                    return await self._worker.run(self._again, name, work)
                except _UnknownError:
                    continue
        finally:
            self._settled.set()
            self._show_level()
        raise FatalError(Code.STORAGE_UNKNOWN, field=name)

    async def read(self, work: Transaction[T]) -> T:
        """Run reading statements on the thread. Fetch everything: no cursor outlives the call."""
        await self._settled.wait()
        return await self._worker.run(self._read, work)

    async def checkpoint(self, mode: str = "PASSIVE") -> None:
        """Copy the WAL into the file: PASSIVE, or TRUNCATE before a stop."""
        await self.read(lambda connection: self._checkpoint(connection, mode))

    async def close(self) -> None:
        """Checkpoint and close; the thread ends. What runs is finished first."""
        self._stopping = True
        await asyncio.shield(self._worker.run(self._close))
        self._worker.close()

    def _show_level(self) -> None:
        level = self._shown = self.level
        if level >= DiskLevel.ACKS_STOP:
            self.room.clear()
        else:
            self.room.set()
        self.level_changed(level)

    # --- on the thread ---------------------------------------------------------------------------

    def _open(self) -> None:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.close(descriptor)
        connection = _connect(self.path)
        try:
            schema.prepare(connection, max_pages=self.disk.max_pages())
            if schema.version_of(connection) == 0:
                connection.execute("BEGIN IMMEDIATE")
                schema.create(connection)
                sys.audit("shanmen.point", "open.before")
                connection.execute("COMMIT")
                sys.audit("shanmen.point", "open.after")
            (self._number,) = connection.execute("SELECT v FROM meta WHERE k='commit'").fetchone()
            self.disk.measure(connection)
            (page_count,) = connection.execute("PRAGMA page_count").fetchone()
            if self.disk.level is not DiskLevel.FULL:
                self.disk.keep_reserve(page_count)
        except (sqlite3.Error, TypeError) as error:
            connection.close()
            raise _translated(error) from error
        self._connection = connection

    def _transact(self, name: str, work: Transaction[T]) -> T:
        connection = self._connected()
        try:
            result = self._up_to_commit(connection, work)
        except sqlite3.Error as error:
            raise self._failed(connection, error) from error
        sys.audit("shanmen.point", f"{name}.before")
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            return self._judge(work, result, error)
        sys.audit("shanmen.point", f"{name}.after")
        self._number += 1
        if name != "commit" or self.disk.is_close or self._number % COMMITS_BETWEEN_MEASURES == 0:
            self.disk.measure(connection)
        return result

    def _up_to_commit(self, connection: sqlite3.Connection, work: Transaction[T]) -> T:
        """A transaction but for its COMMIT; whatever fails in it, it is rolled back."""
        is_whole = False
        try:
            connection.execute("BEGIN IMMEDIATE")
            result = work(connection)
            connection.execute("UPDATE meta SET v = ? WHERE k = 'commit'", (self._number + 1,))
            is_whole = True
        finally:
            if not is_whole:
                self._roll_back(connection)
        return result

    def _judge(self, work: Transaction[T], result: T, error: sqlite3.Error) -> T:
        """A COMMIT failed: close, reopen, read the commit number."""
        self._unknown = (work, self._number + 1, result)
        self._reopen()
        if id(work) in self._outcomes:
            self._outcomes.pop(id(work))
            return result
        if _code(error) == _FULL:
            self.disk.enter_full(self._connected())
            raise UnavailableError(Code.DISK_FULL) from error
        raise _UnknownError from error

    def _again(self, name: str, work: Transaction[T]) -> T:
        """After an unknown outcome: its result if it was committed, else the function again."""
        if self._connection is None:
            self._reopen()
        if id(work) in self._outcomes:
            return cast("T", self._outcomes.pop(id(work)))
        return self._transact(name, work)

    def _reopen(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            with contextlib.suppress(sqlite3.Error):
                connection.close()  # the file is read again below, whatever this handle says
        try:
            self._open()
        except (UnavailableError, OSError) as error:
            raise _UnknownError from error
        if self._unknown is not None:
            work, number, result = self._unknown
            if self._number == number:
                self._make_durable()
                self._outcomes[id(work)] = result
            self._unknown = None

    def _make_durable(self) -> None:
        # The log may be readable from memory only, where its fsync failed. Copying it into the
        # file and syncing that makes the commit durable; if this fails too, it stays unknown.
        connection = self._connected()
        try:
            row = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error as error:
            self._connection = None
            raise _UnknownError from error
        if row[0]:
            raise _UnknownError

    def _failed(self, connection: sqlite3.Connection, error: sqlite3.Error) -> Exception:
        translated = _translated(error)
        if translated.code is Code.STORAGE_DAMAGED:
            self._mark()
        if translated.code is Code.DISK_FULL:
            self.disk.enter_full(connection)
        elif translated.code is Code.STORAGE_UNKNOWN:
            return _UnknownError()
        return translated

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        if connection.in_transaction:
            try:
                connection.execute("ROLLBACK")
            except sqlite3.Error:
                self._reopen()

    def _read(self, work: Transaction[T]) -> T:
        try:
            return work(self._connected())
        except _UnknownError as error:
            raise UnavailableError(Code.STORAGE_UNKNOWN) from error
        except sqlite3.Error as error:
            translated = _translated(error)
            if translated.code is Code.STORAGE_DAMAGED:
                self._mark()
            raise translated from error

    def _mark(self) -> None:
        """Tell the next start that this file is malformed: it will be rebuilt."""
        mark_of(self.path).touch(mode=0o600)

    def _checkpoint(self, connection: sqlite3.Connection, mode: str) -> None:
        sys.audit("shanmen.point", "checkpoint.before")
        connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()
        sys.audit("shanmen.point", "checkpoint.after")

    def _close(self) -> None:
        if self._connection is None:
            return
        connection, self._connection = self._connection, None
        with contextlib.suppress(sqlite3.Error):
            self._checkpoint(connection, "TRUNCATE")  # else the WAL is read at the next start
        connection.close()

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            raise _UnknownError
        return self._connection


def mark_of(path: Path) -> Path:
    """The file that says: this database turned out to be malformed while it was in use."""
    return path.with_name(path.name + ".malformed")


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False)


def _code(error: Exception) -> int:
    return int(getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF


def _translated(error: Exception) -> UnavailableError | FatalError:
    code = _code(error)
    if code == _FULL:
        return UnavailableError(Code.DISK_FULL)
    if code in (_CORRUPT, _NOTADB) or not isinstance(error, sqlite3.OperationalError):
        return FatalError(Code.STORAGE_DAMAGED, value=str(error))
    return UnavailableError(Code.STORAGE_UNKNOWN, value=str(error))
