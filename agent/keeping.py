"""Keeping house: evict, forget, fold, correct. Each step is small, bounded and can be cut off.

Bodies stay after their receipt until the hub says that its backup has them and the grace is over,
or until the disk is wanted: then the oldest go first. A hub that was restored may ask for all that
is held, and a body that must go into another stream is opened for it: so an epoch's keys stay as
long as a body of it, and links of the chain as long as a restored hub could lack them.
"""

import sqlite3
from typing import Final

from agent.intake.outbox import queue_object
from agent.lane import Lane
from agent.seal.spool import Spool
from agent.store.disk import LEAVE_FULL, DiskLevel
from agent.store.ports import DAY_US, Clock, Identity, Randomness
from agent.store.schema import OutboxState, StreamState
from protocol.ids import StreamId
from protocol.limits import NONCE_BYTES
from protocol.notes import Correction, make_correction
from protocol.times import ClockSource

EVICT_MAX: Final = 1_000  # bodies of one transaction
FOLD_AFTER_US: Final = 7 * DAY_US
FOLD_MAX: Final = 1_000

#: Bodies whose keys are needed are due, held or in grace. Those of a stream that ended may be of
#: any epoch that was used since: an epoch remembers only the stream in which it was used last.
_NEEDLESS_KEYS: Final = (
    "SELECT DISTINCT e.resource, e.epoch FROM epoch_key e WHERE e.open = 0 AND e.wrap_sent = 1"
    " AND e.to_us < ?1 AND e.used_at < ?1"
    " AND NOT EXISTS(SELECT 1 FROM body b WHERE b.stream = e.stream AND b.seq <= e.last_seq"
    " AND b.state IN (2, 3, 4))"
    " AND NOT EXISTS(SELECT 1 FROM stream s CROSS JOIN body b ON b.stream = s.id"
    " WHERE s.resource = e.resource AND s.state = 2 AND s.id != e.stream AND b.state IN (2, 3, 4))"
)


class Keeping:
    """The house of the main lane. `round` is called about once a second, and by tests."""

    def __init__(
        self,
        *,
        lane: Lane,
        spool: Spool,
        identity: Identity,
        clock: Clock,
        random: Randomness,
        grace_s: float,
        lateness_us: int,
    ) -> None:
        self.identity = identity
        self._lane = lane
        self._spool = spool
        self._clock = clock
        self._random = random
        self._grace_us = int(grace_s * 1e6)
        self._lateness_us = lateness_us
        self._forgotten_us: int | None = None
        self._was_pressed = False  # bodies went because the disk was wanted, since the last fold

    async def round(self) -> None:
        """Do what is due. Raises UnavailableError on a full disk: the next round tries again."""
        while await self._evict():
            pass
        if self._lane.database.level >= DiskLevel.FULL:
            await self._lane.look_for_room()
            return
        self._release()
        await self._correct()
        await self.tell_losses(at_once=False)
        now_us = self._clock.monotonic_us()
        if self._forgotten_us is None or now_us - self._forgotten_us > 600_000_000:
            self._forgotten_us = now_us
            await self._forget()
            await self._fold()

    async def _evict(self) -> bool:
        """One step; True if there may be more. Passive checkpoint after bodies went."""
        database = self._lane.database
        pressed = database.disk.share >= LEAVE_FULL
        before_us = self._clock.now_us() - self._grace_us
        safe = self._spool.backed_up_to

        def work(connection: sqlite3.Connection) -> int:
            return evict(connection, before_us=before_us, backed_up_to=safe, pressed=pressed)

        def look(connection: sqlite3.Connection) -> bool:
            return bool(_evictable(connection, before_us, safe, pressed=pressed, limit=1))

        if not await database.read(look):
            return False
        gone = await database.write("evict", work)
        self._was_pressed |= pressed and gone > 0
        await database.checkpoint()
        return gone == EVICT_MAX or (pressed and gone > 0 and database.disk.share >= LEAVE_FULL)

    def _release(self) -> None:
        """After damage a stream waits for the hub, but not until the disk is full."""
        if self._lane.database.level < DiskLevel.POLLED_STOP:
            return
        for bound in self._lane.bounds.values():
            if bound.stream is not None and bound.stream.state is StreamState.WAITING:
                bound.stream.state = StreamState.LIVE

    async def _correct(self) -> None:
        """Once the clock is known: what the times of before meant, one note a stream and base."""
        mark = self._clock.mark()
        if mark.source is ClockSource.NONE:
            return
        true_base_us = self._clock.now_us() + mark.offset_us - self._clock.monotonic_us()
        boot = self._lane.runs.boot

        def work(connection: sqlite3.Connection) -> None:
            rows = connection.execute(
                "SELECT stream, base_us, from_seq, to_seq FROM unsynced WHERE boot = ?", (boot,)
            ).fetchall()
            for stream, base_us, first, last in rows:
                note = Correction(
                    stream=StreamId(stream),
                    first_seq=first,
                    last_seq=last,
                    offset_us=true_base_us - base_us,
                    nonce=self._random(NONCE_BYTES),
                )
                queue_object(connection, make_correction(note, self.identity.signing))
            # Bases of an earlier boot cannot be compared any more; their headers say so themselves.
            connection.execute("DELETE FROM unsynced")

        # Asked each round: rows of before may be sealed after the clock became known.
        if await self._lane.database.read(_has_unsynced):
            async with self._lane.sealer.gate:
                await self._lane.database.write("correct", work)
            self._spool.wake.set()

    async def tell_losses(self, *, at_once: bool = True) -> None:
        """Records that went uncommitted: quarantine full, or a source that cannot wait."""
        if await self._lane.tell_losses(at_once=at_once):
            self._spool.wake.set()

    async def _forget(self) -> None:
        """Keys of epochs and runs that nothing needs: out of lateness and grace, bodies gone."""
        now_us = self._clock.now_us()
        before_us = now_us - self._lateness_us - self._grace_us

        def work(connection: sqlite3.Connection) -> list[tuple[bytes, int]]:
            gone = connection.execute(_NEEDLESS_KEYS, (before_us,)).fetchall()
            connection.executemany("DELETE FROM epoch_key WHERE resource = ? AND epoch = ?", gone)
            return gone

        def then(gone: list[tuple[bytes, int]]) -> None:
            self._lane.epochs.forget(gone)

        async with self._lane.sealer.gate:
            await self._lane.database.write("forget", work, then=then)
            await self._lane.runs.forget()

    async def _fold(self) -> None:
        """Chains older than a week become one line a stream and day; bodies must be gone."""
        before_us = self._clock.now_us() - FOLD_AFTER_US
        safe, pressed = self._spool.backed_up_to, self._was_pressed

        def work(connection: sqlite3.Connection) -> None:
            fold(connection, before_us=before_us, backed_up_to=safe, pressed=pressed)

        def then(_: None) -> None:
            self._was_pressed = False

        await self._lane.database.write("evict", work, then=then)


def evict(
    connection: sqlite3.Connection, *, before_us: int, backed_up_to: int, pressed: bool
) -> int:
    """Remove up to EVICT_MAX bodies in grace; how many went."""
    rows = _evictable(connection, before_us, backed_up_to, pressed=pressed, limit=EVICT_MAX)
    totals: dict[bytes, list[int]] = {}
    for _, stream, size in rows:
        total = totals.setdefault(stream, [0, 0])
        total[0] += 1
        total[1] += size
    ids = [(row[0],) for row in rows]
    connection.executemany("DELETE FROM body WHERE id = ?", ids)
    connection.executemany("DELETE FROM content WHERE id = ?", ids)
    connection.executemany(
        "UPDATE stream SET grace_n = grace_n - ?, grace_bytes = grace_bytes - ? WHERE id = ?",
        [(count, size, stream) for stream, (count, size) in totals.items()],
    )
    connection.execute(
        "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE state = ? AND leaf < ?"
        " AND kind IN ('wrap', 'gap', 'correction') LIMIT ?)",
        (int(OutboxState.SENT), backed_up_to, EVICT_MAX),
    )
    return len(rows)


def _evictable(
    connection: sqlite3.Connection,
    before_us: int,
    backed_up_to: int,
    *,
    pressed: bool,
    limit: int,
) -> list[tuple[int, bytes, int]]:
    """Oldest bodies in grace that may go: in the hub's backup and old, or the disk is wanted."""
    found: list[tuple[int, bytes, int]] = connection.execute(
        # Of the oldest only: leaves grow with ids, and nobody walks a whole spool every second.
        "SELECT b.id, b.stream, b.size FROM (SELECT id, stream, seq, size, at FROM body"
        " WHERE state = 4 ORDER BY id LIMIT ?) b LEFT JOIN chain c"
        " ON c.stream = b.stream AND c.seq = b.seq"
        " WHERE ? OR (c.leaf < ? AND b.at < ?) ORDER BY b.id LIMIT ?",
        (EVICT_MAX, int(pressed), backed_up_to, before_us, limit),
    ).fetchall()
    return found


def fold(
    connection: sqlite3.Connection, *, before_us: int, backed_up_to: int, pressed: bool
) -> None:
    """Replace receipted links without a body by one line a stream and day.

    A hub that was restored asks for those behind its backup: without them all that is held behind
    them must be sealed again in a new stream. Where the disk was wanted, they make room too.
    """
    rows = connection.execute(
        "SELECT c.stream, c.seq, c.leaf, c.at FROM chain c LEFT JOIN body b"
        " ON b.stream = c.stream AND b.seq = c.seq"
        " JOIN stream s ON s.id = c.stream"
        " WHERE b.id IS NULL AND c.leaf IS NOT NULL AND (? OR c.leaf < ?) AND c.at < ?"
        " AND c.seq < s.next_seq - 1 LIMIT ?",
        (int(pressed), backed_up_to, before_us, FOLD_MAX),
    ).fetchall()
    for stream, seq, leaf, at_us in rows:
        connection.execute(
            "INSERT INTO receipt_day(stream, day, from_seq, to_seq, from_leaf, to_leaf)"
            " VALUES(?, ?, ?, ?, ?, ?)"
            " ON CONFLICT(stream, day) DO UPDATE SET"
            " from_seq = min(from_seq, excluded.from_seq), to_seq = max(to_seq, excluded.to_seq),"
            " from_leaf = min(from_leaf, excluded.from_leaf),"
            " to_leaf = max(to_leaf, excluded.to_leaf)",
            (stream, at_us // DAY_US, seq, seq, leaf, leaf),
        )
        connection.execute("DELETE FROM chain WHERE stream = ? AND seq = ?", (stream, seq))


def _has_unsynced(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM unsynced LIMIT 1").fetchone() is not None
