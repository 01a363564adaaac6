"""Runs: one a process start and one a new day, each with a journal key of its own.

A run's id is 64 random bits and stands in headers (`rows`), so that the hub can tell an image that
was restored (one new run) from a clone (two runs alternating). The key is wrapped by the root key
and destroyed with its row, as soon as no journal row needs it.
"""

import sqlite3
from dataclasses import dataclass
from typing import Final

from agent.store.database import Database
from agent.store.ports import DAY_US, Clock, Randomness
from agent.store.rest import KEY_BYTES, RootKey
from protocol.errors import DecodeError
from protocol.ids import RunId

RUN_ID_BYTES: Final = 8
_INTO_RUN: Final = (
    "INTO run(id, boot, started_at, journal_key, clock_offset, clock_error)"
    " VALUES(?, ?, ?, ?, ?, ?)"
)


@dataclass(frozen=True, slots=True)
class Run:
    """One run and its journal key."""

    id: RunId
    key: bytes
    started_boot_us: int

    def __repr__(self) -> str:
        return f"Run({self.id.hex()}, •••)"


class Runs:
    """The current run, and the keys of earlier ones as long as the journal needs them."""

    def __init__(
        self, database: Database, root: RootKey, random: Randomness, clock: Clock, boot: bytes
    ) -> None:
        self.boot = boot
        self._database = database
        self._root = root
        self._random = random
        self._clock = clock
        self._keys: dict[RunId, bytes | None] = {}
        self._current: Run | None = None
        self._newest: RunId | None = None  # also while its commit is under way

    @property
    def current(self) -> Run:
        """The run of this process and day; `begin` must have been awaited."""
        if self._current is None:
            raise RuntimeError("no run has begun")
        return self._current

    @property
    def is_old(self) -> bool:
        """Whether the journal key has served for a day."""
        return self._clock.monotonic_us() - self.current.started_boot_us >= DAY_US

    async def begin(self) -> None:
        """Draw a new run; from its commit on the journal uses its key."""
        run = Run(
            RunId(self._random(RUN_ID_BYTES)),
            self._random(KEY_BYTES),
            self._clock.monotonic_us(),
        )
        self._newest = run.id
        mark = self._clock.mark()
        wrapped = self._root.wrap(b"run" + run.id, run.key)
        values = (run.id, self.boot, self._clock.now_us(), wrapped, mark.offset_us, mark.error_us)

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(f"INSERT {_INTO_RUN}", values)

        def then(_: None) -> None:
            self._current = run
            self._keys[run.id] = run.key

        await self._database.write("run", work, then=then)

    def key(self, connection: sqlite3.Connection, run: RunId) -> bytes | None:
        """The journal key of a run, on the database's thread; None if it is lost."""
        if run not in self._keys:
            row = connection.execute("SELECT journal_key FROM run WHERE id = ?", (run,)).fetchone()
            try:
                self._keys[run] = self._root.unwrap(b"run" + run, row[0]) if row else None
            except DecodeError:
                self._keys[run] = None
        return self._keys[run]

    def key_or_new(self, connection: sqlite3.Connection, run: RunId) -> bytes:
        """The journal key of a run, inside a transaction; a forgotten run gets a new one."""
        key = self.key(connection, run)
        if key is None:
            key = self._random(KEY_BYTES)
            wrapped = self._root.wrap(b"run" + run, key)
            connection.execute(f"INSERT OR REPLACE {_INTO_RUN}", (run, b"", 0, wrapped, 0, 0))
            self._keys.pop(run, None)  # read again from what is committed
        return key

    async def forget(self) -> None:
        """Destroy the keys of runs that no journal row names."""

        def work(connection: sqlite3.Connection) -> set[RunId]:
            # Asked here: a run that began since this was queued has no row yet, and a day to come.
            keep = {self.current.id, self._newest}
            ids = {RunId(row[0]) for row in connection.execute("SELECT id FROM run")}
            used = {RunId(row[0]) for row in connection.execute("SELECT DISTINCT run FROM journal")}
            gone = ids - used - keep
            connection.executemany("DELETE FROM run WHERE id = ?", [(run,) for run in gone])
            return gone

        def then(gone: set[RunId]) -> None:
            for run in gone:
                self._keys.pop(run, None)

        await self._database.write("forget", work, then=then)
