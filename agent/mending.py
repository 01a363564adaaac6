"""After damage: what is known to be lost is declared, and every stream begins anew.

A stream whose last commits may be gone must not go on under its old numbers. Its segments without
a receipt still travel in it; new ones continue it in a stream of its own, which seals only after
the hub was asked what it has beyond what this file knows (edge-storage.md §3).
"""

import asyncio
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from agent.adoption import adopt
from agent.intake.outbox import queue_gap
from agent.intake.rows import uncovered
from agent.lane import Lane
from agent.store.ports import Clock, Identity
from agent.store.recovery import Damage, forget
from agent.store.resources import Bound, JournalRow, Stream
from agent.store.schema import StreamState
from protocol.chain import RowRange
from protocol.errors import ShanmenError
from protocol.header import Header, decode_header, read_prelude
from protocol.ids import StreamId
from protocol.limits import PRELUDE_BYTES
from protocol.messages import EvidenceItem
from protocol.notes import GapUnit
from protocol.segment import Continues


@dataclass(slots=True)
class _Known:
    """What the chain of one resource says, whatever the row of its stream says."""

    next_row: int = 0  # behind the last sealed row
    next_seq: dict[bytes, int] = field(default_factory=dict)
    heads: dict[bytes, bytes] = field(default_factory=dict)
    epoch: int = 0
    ranges: list[RowRange] = field(default_factory=list)  # of its headers, neighbours as one

    def add(self, ranges: Iterable[RowRange]) -> None:
        """Take in the rows of the next header."""
        for run, first, last in ranges:
            before = self.ranges[-1] if self.ranges else None
            if before is not None and (before[0], before[2] + 1) == (run, first):
                self.ranges[-1] = (run, before[1], last)
            else:
                self.ranges.append((run, first, last))
            self.next_row = max(self.next_row, last + 1)


@dataclass(slots=True)
class _Mended:
    bound: Bound
    stream: Stream
    rows: list[JournalRow]
    lost: int
    ask: EvidenceItem


def open_questions(lane: Lane) -> list[EvidenceItem]:
    """Questions of an earlier start that no answer reached: its new streams still wait."""
    questions: list[EvidenceItem] = []
    for bound in lane.bounds.values():
        stream = bound.stream
        if stream is None or stream.state is not StreamState.WAITING:
            continue
        if stream.continues is None:
            stream.state = StreamState.LIVE  # there is nothing to ask about, or it has sealed since
            continue
        follows = msgspec.msgpack.decode(stream.continues, type=Continues)
        questions.append(EvidenceItem(resource=bound.id, stream=follows.stream, after=follows.seq))
    return questions


async def mend(lane: Lane, damage: Damage, identity: Identity, clock: Clock) -> list[EvidenceItem]:
    """Begin new streams and write the gap notes, in one transaction `recover`.

    After it the note of the damage goes; a kill between the two declares nothing twice.
    Returns the questions for the hub: headers that it accepted and this file does not know.
    """
    now_us = clock.now_us()
    if damage.mark and await lane.database.read(_last_mended) == damage.mark:
        await asyncio.to_thread(forget, lane.database.path)
        return open_questions(lane)

    def work(connection: sqlite3.Connection) -> list[_Mended]:
        connection.execute("INSERT OR REPLACE INTO meta(k, v) VALUES('mended', ?)", (damage.mark,))
        hand = _Hand(connection, lane, damage, identity, now_us)
        known = _chains(connection)
        owners = {stream: resource for resource, one in known.items() for stream in one.next_seq}
        adopt(connection, lane, owners, now_us)
        return [
            _mend(hand, bound, known.get(bound.id, _Known()))
            for bound in lane.bounds.values()
            if bound.stream is not None or damage.is_rebuilt
        ]

    def then(mended: list[_Mended]) -> None:
        for one in mended:
            one.bound.stream = one.stream
            one.stream.rows.extend(one.rows)
            one.stream.waiting = sum(row.count for row in one.rows)
            one.stream.oldest_us = clock.monotonic_us() if one.rows else None
            one.bound.counters.lost += one.lost
            lane.epochs.close(one.bound)

    mended = await lane.database.write("recover", work, then=then)
    await asyncio.to_thread(forget, lane.database.path)
    return [one.ask for one in mended]


def _last_mended(connection: sqlite3.Connection) -> object:
    row = connection.execute("SELECT v FROM meta WHERE k = 'mended'").fetchone()
    return row[0] if row else None


@dataclass(frozen=True, slots=True)
class _Hand:
    """What mending one resource needs besides it."""

    connection: sqlite3.Connection
    lane: Lane
    damage: Damage
    identity: Identity
    now_us: int

    def note(
        self,
        bound: Bound,
        stream: StreamId,
        unit: GapUnit,
        span: tuple[int, int],
        count: int | None,
    ) -> None:
        """Declare a loss."""
        queue_gap(
            self.connection,
            (bound.id, stream),
            (unit, *span),
            count=count,
            reason="storage damaged",
            signer=self.identity.signing,
            random=self.lane.random,
        )


def _mend(hand: _Hand, bound: Bound, known: _Known) -> _Mended:
    connection, lane = hand.connection, hand.lane
    old = bound.stream or _as_known(lane, known)
    old.next_seq = max(old.next_seq, known.next_seq.get(old.id, 0))
    old.head = known.heads.get(old.id, old.head)
    bound.epoch = max(bound.epoch, known.epoch)
    rows, stale = _unsealed(old.rows, known.ranges)
    connection.executemany("DELETE FROM journal WHERE id = ?", [(row.id,) for row in stale])
    old.next_row = max([old.next_row, known.next_row, *(r.first_row + r.count for r in rows)])
    new = _follow(hand, bound, old)
    lost = 0
    for first, last in _holes(rows, known.next_row, old.next_row):
        lost += last - first + 1
        hand.note(bound, old.id, "row", (first, last), last - first + 1)
    if hand.damage.is_rebuilt:
        # Commits behind the last one that can be read leave no trace: when, but not how many.
        since_us = max([row.wall_us for row in rows], default=hand.damage.since_us)
        hand.note(bound, new.id, "time", (min(since_us, hand.now_us), hand.now_us), None)
    connection.execute("UPDATE stream SET lost = lost + ? WHERE id = ?", (lost, old.id))
    connection.execute("UPDATE resource SET epoch = ? WHERE id = ?", (bound.epoch, bound.id))
    bound.must_register |= bound.entry_version == 0
    ask = EvidenceItem(resource=bound.id, stream=old.id, after=max(0, old.next_seq - 1))
    return _Mended(bound, new, rows, lost, ask)


def _follow(hand: _Hand, bound: Bound, old: Stream) -> Stream:
    """The new stream, which seals nothing before the hub was asked."""
    new = hand.lane.register.follow(hand.connection, bound, old, reason="damage")
    new.state = StreamState.WAITING
    if not old.next_seq:
        new.continues = None  # nothing of it was ever sealed, or nobody knows
    hand.connection.execute(
        "UPDATE stream SET state = ?, continues = ? WHERE id = ?",
        (int(StreamState.WAITING), new.continues, new.id),
    )
    return new


def _as_known(lane: Lane, known: _Known) -> Stream:
    """A stream whose row is lost, as its chain remembers it."""
    stream = lane.register.new_stream()
    if known.next_seq:
        newest = max(known.next_seq, key=lambda one: known.next_seq[one])
        stream.id = StreamId(newest)
    return stream


def _unsealed(
    rows: Iterable[JournalRow], sealed: Sequence[RowRange]
) -> tuple[list[JournalRow], list[JournalRow]]:
    """Rows that wait, and rows of freed pages that a segment has already.

    What came back from an ended stream waits too, under numbers below those that were sealed since.
    """
    waiting: list[JournalRow] = []
    stale: list[JournalRow] = []
    of_run: dict[bytes, list[RowRange]] = {}
    for one in sealed:
        of_run.setdefault(one[0], []).append(one)
    end = 0
    for row in sorted(rows, key=lambda row: (row.first_row, row.id)):
        own: RowRange = (row.run, row.first_row, row.first_row + row.count - 1)
        if row.first_row < end or len(uncovered([own], of_run.get(row.run, []))) < row.count:
            stale.append(row)
        else:
            waiting.append(row)
            end = row.first_row + row.count
    return waiting, stale


def _holes(rows: Sequence[JournalRow], start: int, stop: int) -> Iterable[tuple[int, int]]:
    expected = start
    for row in rows:
        if row.first_row > expected:
            yield expected, row.first_row - 1
        expected = max(expected, row.first_row + row.count)
    if expected < stop:
        yield expected, stop - 1


def _chains(connection: sqlite3.Connection) -> Mapping[bytes, _Known]:
    """What the headers of all chains say, by resource. Reads the whole table: only after damage."""
    found: dict[bytes, _Known] = {}
    for raw, segment_id in connection.execute("SELECT header, id FROM chain ORDER BY stream, seq"):
        header = _header(raw)
        if header is None:
            continue
        known = found.setdefault(header.resource, _Known())
        known.add(header.rows)
        known.epoch = max(known.epoch, header.epoch)
        if header.seq >= known.next_seq.get(header.stream, 0):
            known.next_seq[header.stream] = header.seq + 1
            known.heads[header.stream] = segment_id
    return found


def _header(raw: object) -> Header | None:
    if not isinstance(raw, bytes):
        return None
    try:
        return decode_header(raw[PRELUDE_BYTES:], read_prelude(raw))
    except ShanmenError:
        return None
