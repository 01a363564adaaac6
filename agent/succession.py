"""When a stream ends: what goes, what comes back, and what is declared.

All statements are of the caller's one transaction `fork`. Journal rows and bodies that the hub's
evidence covers go out, what is left of unaccepted segments comes back into the journal under its
old row numbers, and the newest `resume` is taken back. Covered is only what a header says that
carries our own signature, state 1 and a proven path: `protocol.sync` verified all of it, and
without evidence nothing is dropped (edge-storage.md §4).
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field

from agent.intake.covered import Covered, Key
from agent.intake.groups import open_body
from agent.intake.outbox import queue_gap
from agent.intake.regain import forget_befores, regain
from agent.intake.resume import Tail, load_tail, open_resume
from agent.intake.rows import consecutive, numbers_of, open_row, put_row, uncovered
from agent.intake.watermarks import put_watermarks
from agent.lane import Lane
from agent.seal.resend import take_headers
from agent.store.ports import Identity, Randomness
from agent.store.resources import Bound, JournalRow, Stream
from agent.store.schema import BodyState
from protocol.chain import RowRange
from protocol.errors import ShanmenError
from protocol.ids import RunId, StreamId
from protocol.records import Columns, load_columns
from protocol.segment import Segment, open_segment, parse


@dataclass(frozen=True, slots=True)
class End:
    """A stream that cannot go on, why, and which rows the hub has."""

    stream: StreamId
    first: int  # of its segments that cannot stay in it
    ranges: Sequence[RowRange]
    reason: str
    turn: int  # of the watermarks that are set back


@dataclass(slots=True)
class Succeeded:
    """What one transaction did, gathered while it ran."""

    stream: Stream  # where the rest goes on
    rows: list[JournalRow] = field(default_factory=list)  # that wait now
    dropped: int = 0  # records that the hub has
    returned: int = 0  # records back in the journal
    lost: int = 0
    regained: int = 0  # records that their sources will give again
    headers: int = 0  # header-only items that the hub has no place for
    next_row: int = 0  # of the stream, once rows of it have new numbers
    tails: dict[int, Tail] = field(default_factory=dict)  # by journal row
    watermarks: dict[Key, bytes | None] = field(default_factory=dict)  # that were set back

    @property
    def has_moved(self) -> bool:
        """Whether the file changed: where it did not, the same question brings the same answer."""
        counts = (self.dropped, self.returned, self.lost, self.regained, self.headers)
        return any(counts) or bool(self.watermarks)


@dataclass(frozen=True, slots=True)
class Succession:
    """One stream that ends, on the database's thread."""

    connection: sqlite3.Connection
    lane: Lane
    identity: Identity
    random: Randomness
    bound: Bound
    end: End
    covered: Covered
    result: Succeeded

    def run(self, live: Stream) -> Succeeded:
        """Do it all; `live` is the stream that the resource has now."""
        connection, end, result = self.connection, self.end, self.result
        for row in live.rows:
            result.rows += self._journal_row(row)
        for (body,) in connection.execute(
            "SELECT id FROM body WHERE stream = ? AND seq >= ? AND state IN (?, ?) ORDER BY seq",
            (end.stream, end.first, int(BodyState.DUE), int(BodyState.HELD)),
        ).fetchall():
            result.rows += self._body(body)
        self._headers()
        result.rows.sort(key=lambda row: (row.first_row, row.id))
        connection.execute(
            "UPDATE stream SET (due_n, due_bytes) = (SELECT count(*), coalesce(sum(size), 0)"
            " FROM body WHERE stream = ?1 AND state IN (?2, ?3)), sealed = sealed - ?4,"
            " lost = lost + ?5, accepted = accepted + ?6 WHERE id = ?1",
            (
                end.stream,
                int(BodyState.DUE),
                int(BodyState.HELD),
                result.returned,
                result.lost,
                result.dropped,
            ),
        )
        # Epoch numbers of before the restore are taken, under other keys.
        epoch = max(self.bound.epoch, self.covered.epoch)
        connection.execute("UPDATE resource SET epoch = ? WHERE id = ?", (epoch, self.bound.id))
        self._regain()
        self._renumber()
        return result

    def _journal_row(self, row: JournalRow) -> list[JournalRow]:
        """A row that waits: stays as it is, goes, or leaves a part of itself."""
        connection, result = self.connection, self.result
        own: RowRange = (row.run, row.first_row, row.first_row + row.count - 1)
        left = uncovered([own], self.end.ranges)
        plain = open_row(connection, self.lane.runs, row) if left else None
        if len(left) == row.count:
            if plain is not None:
                result.tails[row.id] = _tail_of(plain)
            return [row]
        result.dropped += row.count - len(left)
        connection.execute("DELETE FROM journal WHERE id = ?", (row.id,))
        if not left:
            return []
        if plain is None:
            result.lost += len(left)
            return []
        columns = load_columns(open_body(plain)[0])
        numbers = [numbers_of([own])[n] for n in left]
        return self._put(row, numbers, columns=columns.keep(left), tail=_tail_of(plain))

    def _body(self, body: int) -> list[JournalRow]:
        """A segment without a receipt: what the hub lacks of it goes back into the journal."""
        connection, result, end = self.connection, self.result, self.end
        seq, count, raw = connection.execute(
            "SELECT b.seq, b.n, c.data FROM body b LEFT JOIN content c ON c.id = b.id"
            " WHERE b.id = ?",
            (body,),
        ).fetchone()
        rows: list[JournalRow] = []
        try:
            segment = parse(raw or b"").verify(self.identity.signing.public)
            left = uncovered(segment.header.rows, end.ranges)
            if left:
                columns = self._columns(segment)
                numbers = numbers_of(segment.header.rows)
                rows = self._put(
                    _like(segment, columns),
                    [numbers[n] for n in left],
                    columns=columns.keep(left),
                    tail=self._tail(segment),
                )
        except ShanmenError:
            self._give_up(body, seq, count)
            result.lost += count
            return []
        result.dropped += count - len(left)
        result.returned += len(left)
        connection.execute("DELETE FROM body WHERE id = ?", (body,))
        connection.execute("DELETE FROM content WHERE id = ?", (body,))
        connection.execute("DELETE FROM chain WHERE stream = ? AND seq = ?", (end.stream, seq))
        return rows

    def _headers(self) -> None:
        """Header-only items go with their stream; a note declares what no other one does.

        It was the header that told the hub of a body which was evicted or refused.
        """
        gaps: list[tuple[int, int, int]] = []  # first, last, records
        for seq, reason, head in take_headers(self.connection, self.end.stream, self.end.first):
            self.result.headers += 1
            if reason == "damaged":
                continue  # declared when it was found
            records = self._not_named(head)
            if records is None:
                continue
            if gaps and gaps[-1][1] == seq - 1:
                first, _, before = gaps.pop()
                gaps.append((first, seq, before + records))
            else:
                gaps.append((seq, seq, records))
        for first, last, records in gaps:
            reason = "segments of an ended stream that are held no more"
            self._declare(first, last, records, reason=reason)

    def _not_named(self, head: bytes) -> int | None:
        """How many records a header stands for; None where the hub was shown to have it."""
        try:
            header = parse(head, body=False).verify(self.identity.signing.public).header
        except ShanmenError:
            return 0  # damaged here: what it stood for is declared without a number
        return header.count if uncovered(header.rows, self.covered.named) else None

    def _columns(self, segment: Segment) -> Columns:
        keys, epoch = None, segment.header.epoch
        if self.bound.is_sealed:
            keys = self.lane.epochs.keys_of(self.connection, self.bound.id, epoch)
        return open_segment(segment, keys)

    def _put(
        self,
        like: JournalRow,
        numbers: Sequence[tuple[RunId, int]],
        *,
        columns: Columns,
        tail: Tail,
    ) -> list[JournalRow]:
        rows: list[JournalRow] = []
        for run, first, position, count in consecutive(numbers):
            # The watermarks stand after the last of them.
            is_last = position + count == columns.count
            own = tail if is_last else Tail(tail.is_regained)
            row = put_row(
                self.connection,
                self.lane.runs,
                self.random,
                like=like,
                stream=self.result.stream.id,
                run=run,
                first_row=first,
                columns=columns.slice(position, position + count),
                tail=own,
            )
            self.result.tails[row.id] = own
            rows.append(row)
        return rows

    def _tail(self, segment: Segment) -> Tail:
        header = segment.header
        if header.resume is None:
            return Tail()
        try:
            return open_resume(header.resume, header.stream, header.seq, self.identity)
        except ShanmenError:
            return Tail()

    def _give_up(self, body: int, seq: int, count: int) -> None:
        """A segment of an ended stream that cannot be opened: kept as `bad`, declared."""
        bad = int(BodyState.BAD)
        self.connection.execute("UPDATE body SET state = ? WHERE id = ?", (bad, body))
        reason = "segment of an ended stream could not be opened"
        self._declare(seq, seq, count, reason=reason)

    def _declare(self, first: int, last: int, count: int, *, reason: str) -> None:
        """Queue the note that segments first..last of the stream do not come."""
        queue_gap(
            self.connection,
            (self.bound.id, self.end.stream),
            ("seq", first, last),
            count=count,
            reason=reason,
            signer=self.identity.signing,
            random=self.random,
        )

    def _regain(self) -> None:
        """Sources go back to what the hub has of them; what they gave since the image goes."""
        connection, lane, result = self.connection, self.lane, self.result
        found = regain(
            connection,
            lane.register.root,
            self.bound.id,
            self.covered,
            [(row, result.tails.get(row.id, Tail())) for row in result.rows],
            next_row=result.stream.next_row,
        )
        gone = {row.id for row in found.rows}
        connection.executemany("DELETE FROM journal WHERE id = ?", [(row,) for row in gone])
        result.rows = [row for row in result.rows if row.id not in gone]
        result.regained = sum(row.count for row in found.rows)
        dropped = {key for row in found.rows for key in result.tails[row.id].marks}
        result.watermarks = lane.journal.watermarks.changed(found.watermarks, dropped=dropped)
        put_watermarks(connection, lane.register.root, result.watermarks, turn=self.end.turn)
        if result.watermarks:
            forget_befores(connection, self.bound.id)

    def _renumber(self) -> None:
        """Rows that the hub has as a header only are given anew, under numbers that nobody had.

        Their body was refused or damaged after the image was made; here they are whole. Under their
        old numbers they would overlap with that header, in each new stream again.
        """
        connection, result = self.connection, self.result
        named, runs = self.covered.named, self.lane.runs
        rows: list[JournalRow] = []
        for row in result.rows:
            own: RowRange = (row.run, row.first_row, row.first_row + row.count - 1)
            is_named = len(uncovered([own], named)) < row.count
            plain = open_row(connection, runs, row) if is_named else None
            if plain is None:
                rows.append(row)
                continue
            connection.execute("DELETE FROM journal WHERE id = ?", (row.id,))
            new = put_row(
                connection, runs, self.random, like=row, stream=result.stream.id,
                run=runs.current.id, first_row=result.next_row,
                columns=load_columns(open_body(plain)[0]), tail=_tail_of(plain),
            )  # fmt: skip
            result.next_row += row.count
            rows.append(new)
        result.rows = sorted(rows, key=lambda row: (row.first_row, row.id))
        connection.execute(
            "UPDATE stream SET next_row = ? WHERE id = ?", (result.next_row, result.stream.id)
        )


def _like(segment: Segment, columns: Columns) -> JournalRow:
    """Times of a row that was sealed before: its clock is what its header said."""
    run, first, _ = segment.header.rows[0]
    clock = segment.header.clock
    wall_us = columns.gateway_time[0]
    return JournalRow(
        0, segment.header.stream, run, first, columns.count, 0, wall_us, int(clock.source),
        is_this_boot=False,
    )  # fmt: skip


def _tail_of(plain: bytes) -> Tail:
    try:
        return load_tail(open_body(plain)[1])
    except ShanmenError:
        return Tail()
