"""A stream that cannot go on: fork after an image restore, overlap, a chain that the hub lost.

What stands before the segment that the hub did not take is at the hub, or can still go there, and
stays in its stream: after a restore of the hub it is due again, and answered as a duplicate. In a
new stream its old rows would overlap with themselves, and old watermarks would be taken for new.
Of the rest, in one transaction the journal rows and bodies that the hub's evidence covers go out,
what is left of unaccepted segments comes back into the journal under its old row numbers, the
newest `resume` is taken back, and a new stream begins that names what it continues. Covered is
only what a header says that carries our own signature, state 1 and a proven path: `protocol.sync`
verified all of it, and without evidence nothing is dropped (edge-storage.md §4).
"""

import logging
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Final

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
from agent.store.schema import BodyState, StreamState
from protocol.chain import RowRange
from protocol.errors import ShanmenError
from protocol.ids import RunId, StreamId
from protocol.records import Columns, load_columns
from protocol.segment import Segment, open_segment, parse

_LOG: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _End:
    """A stream that cannot go on, why, and which rows the hub has."""

    stream: StreamId
    first: int  # of its segments that cannot stay in it
    ranges: Sequence[RowRange]
    reason: str
    turn: int  # of the watermarks that are set back


@dataclass(slots=True)
class _Result:
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


class Forks:
    """Ends streams and begins the ones that follow them."""

    def __init__(
        self, lane: Lane, vault: Lane | None, identity: Identity, random: Randomness
    ) -> None:
        """vault: its readings have the same sources; they are judged by where those stand."""
        self.identity = identity
        self.on_resumed: Callable[[frozenset[str]], None] = lambda _drivers: None
        self._lane = lane
        self._vault = vault
        self._random = random

    async def succeed(
        self,
        bound: Bound,
        *,
        reason: str,
        covered: Covered | None = None,
        stream: bytes | None = None,
        first: int = 0,
    ) -> bool:
        """End the live stream of a resource; what the hub lacks goes on in a new one.

        False: nothing was to be moved, so the hub's answer to the next batch will be the same.

        reason: stands in `continues`, e.g. "fork". covered: what the hub has, None: nothing
        proven. stream: the one that cannot go on; where it had ended before, its segments
        without a receipt join the live stream. first: the segment that it cannot go on with; those
        before it stay. Drivers whose watermark was taken back are named to `on_resumed`: an
        instance in use trusts what it has yielded.
        """
        lane = self._lane
        in_vault = self._vault.journal if self._vault is not None else None
        async with (
            lane.sealer.gate,
            lane.journal.gate,
            in_vault.gate if in_vault else nullcontext(),
        ):
            live = bound.stream
            if live is None:
                return False
            shown = covered or Covered()
            turn = lane.journal.watermarks.turn()
            end = _End(StreamId(stream or live.id), first, shown.durable, reason, turn)

            def work(connection: sqlite3.Connection) -> _Result:
                return self._write(connection, bound, end, shown)

            def then(result: _Result) -> None:
                bound.stream = result.stream
                result.stream.rows = deque(result.rows)
                result.stream.next_row = result.next_row
                result.stream.waiting = sum(row.count for row in result.rows)
                result.stream.oldest_us = result.rows[0].boot_us if result.rows else None
                result.stream.state = StreamState.LIVE
                bound.epoch = max(bound.epoch, shown.epoch)
                bound.counters.lost += result.lost
                bound.counters.accepted += result.dropped
                lane.epochs.close(bound)
                lane.journal.take_back(bound.id, result.watermarks)
                if result.watermarks:
                    # In this turn of the loop: no reading of the old instances may come between.
                    drivers = frozenset(driver for driver, _ in result.watermarks)
                    if in_vault is not None:
                        in_vault.refuse_from(drivers)
                    self.on_resumed(drivers)

            result = await lane.database.write("fork", work, then=then)
        _LOG.warning(
            "stream ended",
            extra={
                "resource": bound.local,
                "reason": reason,
                "dropped": result.dropped,
                "returned": result.returned,
                "lost": result.lost,
                "regained": result.regained,
            },
        )
        lane.journal.grew.set()
        return result.has_moved or end.stream == live.id

    def wake(self) -> None:
        """Let the sealer look again: a stream that waited goes on."""
        self._lane.journal.grew.set()

    # --- on the database's thread ----------------------------------------------------------------

    def _write(
        self, connection: sqlite3.Connection, bound: Bound, end: _End, covered: Covered
    ) -> _Result:
        live = bound.stream
        if live is None:
            raise RuntimeError("no live stream")
        target = live
        if live.id == end.stream:
            target = self._lane.register.follow(connection, bound, live, reason=end.reason)
        result = _Result(target, next_row=target.next_row)
        for row in live.rows:
            result.rows += self._journal_row(connection, row, end, result)
        for (body,) in connection.execute(
            "SELECT id FROM body WHERE stream = ? AND seq >= ? AND state IN (?, ?) ORDER BY seq",
            (end.stream, end.first, int(BodyState.DUE), int(BodyState.HELD)),
        ).fetchall():
            result.rows += self._body(connection, bound, body, end, result)
        self._headers(connection, bound, end, covered, result)
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
        epoch = max(bound.epoch, covered.epoch)
        connection.execute("UPDATE resource SET epoch = ? WHERE id = ?", (epoch, bound.id))
        self._regain(connection, bound, covered, result, turn=end.turn)
        self._renumber(connection, covered, result)
        return result

    def _journal_row(
        self, connection: sqlite3.Connection, row: JournalRow, end: _End, result: _Result
    ) -> list[JournalRow]:
        """A row that waits: stays as it is, goes, or leaves a part of itself."""
        own: RowRange = (row.run, row.first_row, row.first_row + row.count - 1)
        left = uncovered([own], end.ranges)
        plain = open_row(connection, self._lane.runs, row) if left else None
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
        return self._put(connection, result, row, [numbers_of([own])[n] for n in left],
                         columns=columns.keep(left), tail=_tail_of(plain))  # fmt: skip

    def _body(
        self, connection: sqlite3.Connection, bound: Bound, body: int, end: _End, result: _Result
    ) -> list[JournalRow]:
        """A segment without a receipt: what the hub lacks of it goes back into the journal."""
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
                columns = self._columns(connection, bound, segment)
                numbers = numbers_of(segment.header.rows)
                like = self._like(segment, columns)
                rows = self._put(connection, result, like, [numbers[n] for n in left],
                                 columns=columns.keep(left), tail=self._tail(segment))  # fmt: skip
        except ShanmenError:
            self._give_up(connection, bound, end.stream, (body, seq, count))
            result.lost += count
            return []
        result.dropped += count - len(left)
        result.returned += len(left)
        connection.execute("DELETE FROM body WHERE id = ?", (body,))
        connection.execute("DELETE FROM content WHERE id = ?", (body,))
        connection.execute("DELETE FROM chain WHERE stream = ? AND seq = ?", (end.stream, seq))
        return rows

    def _headers(
        self,
        connection: sqlite3.Connection,
        bound: Bound,
        end: _End,
        covered: Covered,
        result: _Result,
    ) -> None:
        """Header-only items go with their stream; a note declares what no other one does.

        It was the header that told the hub of a body which was evicted or refused.
        """
        gaps: list[tuple[int, int, int]] = []  # first, last, records
        for seq, reason, head in take_headers(connection, end.stream, end.first):
            result.headers += 1
            if reason == "damaged":
                continue  # declared when it was found
            records = self._not_named(head, covered)
            if records is None:
                continue
            if gaps and gaps[-1][1] == seq - 1:
                first, _, before = gaps.pop()
                gaps.append((first, seq, before + records))
            else:
                gaps.append((seq, seq, records))
        for first, last, records in gaps:
            self._declare(connection, bound, (end.stream, first, last), records,
                          reason="segments of an ended stream that are held no more")  # fmt: skip

    def _not_named(self, head: bytes, covered: Covered) -> int | None:
        """How many records a header stands for; None where the hub was shown to have it."""
        try:
            header = parse(head, body=False).verify(self.identity.signing.public).header
        except ShanmenError:
            return 0  # damaged here: what it stood for is declared without a number
        return header.count if uncovered(header.rows, covered.named) else None

    def _columns(self, connection: sqlite3.Connection, bound: Bound, segment: Segment) -> Columns:
        keys = None
        if bound.is_sealed:
            keys = self._lane.epochs.keys_of(connection, bound.id, segment.header.epoch)
        return open_segment(segment, keys)

    def _put(
        self,
        connection: sqlite3.Connection,
        result: _Result,
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
                connection,
                self._lane.runs,
                self._random,
                like=like,
                stream=result.stream.id,
                run=run,
                first_row=first,
                columns=columns.slice(position, position + count),
                tail=own,
            )
            result.tails[row.id] = own
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

    def _like(self, segment: Segment, columns: Columns) -> JournalRow:
        """Times of a row that was sealed before: its clock is what its header said."""
        run, first, _ = segment.header.rows[0]
        clock = segment.header.clock
        wall_us = columns.gateway_time[0]
        return JournalRow(
            0, segment.header.stream, run, first, columns.count, 0, wall_us, int(clock.source),
            is_this_boot=False,
        )  # fmt: skip

    def _give_up(
        self,
        connection: sqlite3.Connection,
        bound: Bound,
        stream: StreamId,
        place: tuple[int, int, int],
    ) -> None:
        """A segment of an ended stream that cannot be opened: kept as `bad`, declared."""
        body, seq, count = place
        connection.execute("UPDATE body SET state = ? WHERE id = ?", (int(BodyState.BAD), body))
        self._declare(connection, bound, (stream, seq, seq), count,
                      reason="segment of an ended stream could not be opened")  # fmt: skip

    def _declare(
        self,
        connection: sqlite3.Connection,
        bound: Bound,
        place: tuple[StreamId, int, int],
        count: int,
        *,
        reason: str,
    ) -> None:
        """Queue the note that segments first..last of a stream do not come."""
        stream, first, last = place
        queue_gap(
            connection,
            (bound.id, stream),
            ("seq", first, last),
            count=count,
            reason=reason,
            signer=self.identity.signing,
            random=self._random,
        )

    def _regain(
        self,
        connection: sqlite3.Connection,
        bound: Bound,
        covered: Covered,
        result: _Result,
        *,
        turn: int,
    ) -> None:
        """Sources go back to what the hub has of them; what they gave since the image goes."""
        lane = self._lane
        found = regain(
            connection,
            lane.register.root,
            bound.id,
            covered,
            [(row, result.tails.get(row.id, Tail())) for row in result.rows],
            next_row=result.stream.next_row,
        )
        gone = {row.id for row in found.rows}
        connection.executemany("DELETE FROM journal WHERE id = ?", [(row,) for row in gone])
        result.rows = [row for row in result.rows if row.id not in gone]
        result.regained = sum(row.count for row in found.rows)
        dropped = {key for row in found.rows for key in result.tails[row.id].marks}
        result.watermarks = lane.journal.watermarks.changed(found.watermarks, dropped=dropped)
        put_watermarks(connection, lane.register.root, result.watermarks, turn=turn)
        if result.watermarks:
            forget_befores(connection, bound.id)

    def _renumber(self, connection: sqlite3.Connection, covered: Covered, result: _Result) -> None:
        """Rows that the hub has as a header only are given anew, under numbers that nobody had.

        Their body was refused or damaged after the image was made; here they are whole. Under their
        old numbers they would overlap with that header, in each new stream again.
        """
        named, runs = covered.named, self._lane.runs
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
                connection, runs, self._random, like=row, stream=result.stream.id,
                run=runs.current.id, first_row=result.next_row,
                columns=load_columns(open_body(plain)[0]), tail=_tail_of(plain),
            )  # fmt: skip
            result.next_row += row.count
            rows.append(new)
        result.rows = sorted(rows, key=lambda row: (row.first_row, row.id))
        connection.execute(
            "UPDATE stream SET next_row = ? WHERE id = ?", (result.next_row, result.stream.id)
        )


def _tail_of(plain: bytes) -> Tail:
    try:
        return load_tail(open_body(plain)[1])
    except ShanmenError:
        return Tail()
