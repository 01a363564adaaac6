"""Journal rows become a sealed, signed, linked segment (数据段): one transaction.

When a segment closes (protocol.md §Segment): 1,000 records (up to 10,000 where a backlog is being
sealed), 1 MiB, or age: 60 s, 1 s for the first segment of a stream after a start, 2 s while
somebody watches, at once for an urgent record; and when `rows` is full. The hub's absence stops
nothing here.
Building runs on a thread of its own, so that commits go on; only reading and writing is the file's.
"""

import asyncio
import sqlite3
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from agent.intake.outbox import queue_gap
from agent.intake.rows import open_row
from agent.seal.building import BATCH_BYTES_MAX, Built, Opened, Piece, build, pieces
from agent.seal.due import BACKLOG_RECORDS_MAX, run_of, waits_since_us
from agent.seal.epochs import Epoch, Epochs
from agent.store.database import Database
from agent.store.disk import DiskLevel
from agent.store.ports import Clock, Identity, Randomness
from agent.store.resources import Bound, JournalRow, Stream
from agent.store.runs import Runs
from agent.store.schema import BodyState, StreamState
from agent.store.segments import insert_segment, remember_unsynced
from protocol.errors import DecodeError, UnavailableError

BACKLOG_BODIES: Final = 64  # bodies that wait for the hub: it is away, so segments may be larger
FRESH_AGE_S: Final = 1.0  # first segment of a stream after a start
RETRY_S: Final = 1.0  # after a full disk
LOOK_S: Final = 1.0  # between looks while rows wait: a stream's state or age may have changed


class Sealer:
    """The only writer of chains. One stream at a time, oldest due first."""

    def __init__(
        self,
        *,
        database: Database,
        bounds: Mapping[str, Bound],
        runs: Runs,
        epochs: Epochs,
        identity: Identity,
        clock: Clock,
        random: Randomness,
        grew: asyncio.Event,
        records: int,
        age_s: float,
        live_age_s: float,
        body_state: BodyState,
    ) -> None:
        self.identity = identity
        self.age_s = age_s
        self.live: dict[str, int] = {}  # local name -> monotonic µs until which it is watched
        self.sealed = asyncio.Event()  # set after each seal: the spool has more
        self.due_bodies = 0  # kept by the spool
        self.segments = 0
        self._database = database
        self._bounds = bounds
        self._runs = runs
        self._epochs = epochs
        self._clock = clock
        self._random = random
        self._grew = grew
        self._records = records
        self._live_age_s = live_age_s
        self._body_state = body_state
        self._gate = asyncio.Lock()  # held while a chain is changed: fork and recovery take it too
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sealer")
        self._stopping = False
        self._look_us: int | None = None  # monotonic time of the next look; None: not decided

    @property
    def gate(self) -> asyncio.Lock:
        """Whoever changes a stream holds this; sealing waits."""
        return self._gate

    async def run(self) -> None:
        """Seal what is due until `stop`. Raises FatalError."""
        while not self._stopping:
            self._grew.clear()
            self._look_us = None
            try:
                while not self._stopping and await self.seal_due():
                    pass
            except UnavailableError:
                await asyncio.sleep(RETRY_S)
                continue
            wait_s = self._wait_s()
            if self._database.level >= DiskLevel.FULL:
                await asyncio.sleep(RETRY_S)  # what is due stays due: look again, do not spin
                continue
            try:
                async with asyncio.timeout(wait_s):
                    await self._grew.wait()
            except TimeoutError:
                pass

    def stop(self) -> None:
        """Let `run` end after the segment that is being sealed; the rest stays in the journal."""
        self._stopping = True
        self._grew.set()

    def close(self) -> None:
        """End the building thread."""
        self._thread.shutdown(wait=True)

    def awaits(self, bound: Bound) -> bool:
        """Whether what was committed closes a segment before the next look.

        The journal asks after each commit: most commits of a busy site change nothing here, and
        waking for each costs 4 % of the agent's CPU at 100 messages/s.
        """
        if self._look_us is None:
            return True
        stream = bound.stream
        if stream is None or stream.state is not StreamState.LIVE:
            return False
        if self._is_full(bound, stream):
            return True
        due_us = self._due_at_us(bound, stream)
        return due_us < self._look_us or due_us <= self._clock.monotonic_us()

    async def seal_due(self, *, force: bool = False) -> int:
        """Seal one run of rows of every due stream; how much moved, damaged rows included."""
        made = 0
        for bound in self._streams():
            if self._database.level >= DiskLevel.FULL:
                break
            if force or self._is_due(bound):
                async with self._gate:
                    made += await self._seal_urgent(bound)
        return made

    async def seal_all(self, bound: Bound) -> None:
        """Seal every row of a resource as it is bound here, whatever is due."""
        while bound.stream is not None and bound.stream.rows:
            async with self._gate:
                await self._seal_urgent(bound)

    def _streams(self) -> list[Bound]:
        return [
            bound
            for bound in self._bounds.values()
            if bound.stream is not None
            and bound.stream.rows
            and bound.stream.state is StreamState.LIVE
        ]

    def _is_due(self, bound: Bound) -> bool:
        stream = bound.stream
        if stream is None or not stream.rows or stream.state is not StreamState.LIVE:
            return False
        if self._is_full(bound, stream):
            return True
        return self._due_at_us(bound, stream) <= self._clock.monotonic_us()

    def _is_full(self, bound: Bound, stream: Stream) -> bool:
        """Whether a segment closes now, whatever its age."""
        size = stream.waiting * bound.record_bytes
        return stream.is_urgent or size >= BATCH_BYTES_MAX or stream.waiting >= self._target()

    def _target(self) -> int:
        """Records at which a segment closes: more while the hub is away or sealing is behind."""
        if self._records >= BACKLOG_RECORDS_MAX or self.due_bodies < BACKLOG_BODIES:
            return self._records
        return BACKLOG_RECORDS_MAX

    def _due_at_us(self, bound: Bound, stream: Stream) -> int:
        now_us = self._clock.monotonic_us()
        age_s = bound.settings.segment_age_s or self.age_s
        if stream.is_fresh:
            age_s = min(age_s, FRESH_AGE_S)
        if self.live.get(bound.local, 0) > now_us:
            age_s = min(age_s, self._live_age_s)
        return waits_since_us(stream, now_us) + int(age_s * 1e6)

    def _wait_s(self) -> float | None:
        """Time until the next look; None while nothing waits: a commit wakes the sealer."""
        now_us = self._clock.monotonic_us()
        if not any(b.stream is not None and b.stream.rows for b in self._bounds.values()):
            self._look_us = None
            return None
        due = [self._due_at_us(bound, bound.stream) for bound in self._streams() if bound.stream]
        self._look_us = min([*due, now_us + int(LOOK_S * 1e6)])
        return max(0.0, (self._look_us - now_us) / 1e6)

    # --- one run of rows -------------------------------------------------------------------------

    async def _seal_urgent(self, bound: Bound) -> int:
        """Seal a run; what is urgent stays so if it was left, or came while this was built."""
        stream = bound.stream
        if stream is None or not stream.is_urgent:
            return await self._seal(bound)
        last = stream.rows[-1] if stream.rows else None
        stream.is_urgent = False
        is_done = False
        try:
            made = await self._seal(bound)
            is_done = not any(row is last for row in reversed(stream.rows))
        finally:
            stream.is_urgent |= not is_done
        return made

    async def _seal(self, bound: Bound) -> int:
        stream = bound.stream
        if stream is None or not stream.rows:
            return 0
        most = self._records
        if stream.waiting >= 2 * self._records or self.due_bodies >= BACKLOG_BODIES:
            most = BACKLOG_RECORDS_MAX
        rows = run_of(stream, most, bound.record_bytes)
        opened, damaged = await self._read(rows)
        try:
            built = await self._built(bound, stream, opened)
        except DecodeError:
            # One row that cannot become columns must not hold up the others: find it.
            rows = rows[:1]
            opened, damaged = await self._read(rows)
            try:
                built = await self._built(bound, stream, opened)
            except DecodeError:
                built, damaged = [], rows
        await self._write(bound, stream, rows, built, damaged)
        return len(built) + len(damaged)

    async def _built(self, bound: Bound, stream: Stream, opened: Sequence[Opened]) -> list[Built]:
        cut = await self._cut(bound, opened)
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, self._build, bound, stream, cut
        )

    async def _read(self, rows: Sequence[JournalRow]) -> tuple[list[Opened], list[JournalRow]]:

        def work(connection: sqlite3.Connection) -> tuple[list[Opened], list[JournalRow]]:
            opened: list[Opened] = []
            damaged: list[JournalRow] = []
            for row in rows:
                plain = open_row(connection, self._runs, row)
                if plain is None:
                    damaged.append(row)
                else:
                    opened.append(Opened(row, plain))
            return opened, damaged

        return await self._database.read(work)

    async def _cut(
        self, bound: Bound, opened: Sequence[Opened]
    ) -> list[tuple[Piece, Epoch | None]]:
        """Cut rows into runs of one epoch and one clock; make the epochs that are missing."""
        interval = self._epochs.interval(bound) if bound.is_sealed else None
        found = await asyncio.get_running_loop().run_in_executor(
            self._thread, pieces, opened, interval, self._epochs.epoch_us
        )
        cut: list[tuple[Piece, Epoch | None]] = []
        for piece in found:
            epoch = None
            if bound.is_sealed:
                epoch = self._epochs.choose(bound, piece.event_us)
                if epoch is None:
                    epoch = await self._epochs.make(bound, piece.event_us)
            cut += [(part, epoch) for part in piece.within_bounds()]
        return cut

    def _build(
        self, bound: Bound, stream: Stream, cut: Sequence[tuple[Piece, Epoch | None]]
    ) -> list[Built]:
        return build(
            bound,
            stream,
            cut,
            identity=self.identity,
            mark=self._clock.mark(),
            boot_us=self._clock.monotonic_us(),
            now_us=self._clock.now_us(),
            random=self._random,
        )

    async def _write(
        self,
        bound: Bound,
        stream: Stream,
        rows: Sequence[JournalRow],
        built: Sequence[Built],
        damaged: Sequence[JournalRow],
    ) -> None:
        taken = sum(row.count for row in rows)
        ids = [(row.id,) for row in rows]
        state = self._state_of(bound)
        at_us = self._clock.now_us()

        def work(connection: sqlite3.Connection) -> None:
            for made in built:
                insert_segment(connection, made.segment, state=state, at_us=at_us)
                self._note_times(connection, bound, stream, made, at_us)
            connection.executemany("DELETE FROM journal WHERE id = ?", ids)
            next_seq = stream.next_seq + len(built)
            head = built[-1].segment.id if built else stream.head
            size = sum(len(made.segment.raw) for made in built)
            made_of = sum(made.segment.header.count for made in built)
            due = state is BodyState.DUE or state is BodyState.HELD
            connection.execute(
                "UPDATE stream SET next_seq = ?, head = ?, sealed = sealed + ?, due_n = due_n + ?,"
                " due_bytes = due_bytes + ?, lost = lost + ? WHERE id = ?",
                (
                    next_seq, head, made_of, len(built) if due else 0, size if due else 0,
                    sum(row.count for row in damaged), stream.id,
                ),
            )  # fmt: skip
            for row in damaged:
                self._note_damage(connection, bound, stream, row)

        def then(_: None) -> None:
            for row in rows:
                if stream.rows and stream.rows[0].id == row.id:
                    stream.rows.popleft()
            stream.waiting -= taken
            stream.next_seq += len(built)
            stream.continues = None if built else stream.continues
            stream.is_fresh = stream.is_fresh and not built
            stream.oldest_us = stream.rows[0].boot_us if stream.rows else None
            if built:
                stream.head = built[-1].segment.id
            bound.counters.sealed += sum(made.segment.header.count for made in built)
            bound.counters.lost += sum(row.count for row in damaged)
            self.segments += len(built)
            self.due_bodies += len(built)
            self.sealed.set()

        await self._database.write("seal", work, then=then)

    def _state_of(self, bound: Bound) -> BodyState:
        if self._body_state is BodyState.KEPT or not bound.is_sealed:
            return self._body_state
        is_confirmed = self.identity.owner is not None and self.identity.owner_confirmed
        return BodyState.DUE if is_confirmed else BodyState.HELD

    def _note_times(
        self, connection: sqlite3.Connection, bound: Bound, stream: Stream, made: Built, at_us: int
    ) -> None:
        """What a segment says about its clock, and about how long its epoch's key is needed."""
        seq = made.segment.header.seq
        if made.unsynced_base_us is not None:
            remember_unsynced(connection, stream.id, self._runs.boot, made.unsynced_base_us, seq)
        if made.epoch is not None:
            connection.execute(
                "UPDATE epoch_key SET stream = ?, last_seq = ?, used_at = ?"
                " WHERE resource = ? AND epoch = ?",
                (stream.id, seq, at_us, bound.id, made.epoch),
            )

    def _note_damage(
        self, connection: sqlite3.Connection, bound: Bound, stream: Stream, row: JournalRow
    ) -> None:
        queue_gap(
            connection,
            (bound.id, stream.id),
            ("row", row.first_row, row.first_row + row.count - 1),
            count=row.count,
            reason="journal damaged",
            signer=self.identity.signing,
            random=self._random,
        )
