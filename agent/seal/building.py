"""From opened journal rows to sealed segments: cut by epoch and clock, then seal. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Final

import msgspec

from agent.intake.groups import open_body
from agent.intake.resume import Marks, Tail, fits, load_tail, seal_resume
from agent.seal.epochs import Epoch
from agent.store.ports import Identity, Randomness
from agent.store.resources import Bound, JournalRow, Stream
from protocol.chain import RowRange
from protocol.ids import SegmentId
from protocol.limits import ROW_RANGES_MAX
from protocol.records import Columns, concat, load_columns
from protocol.segment import Continues, Segment, seal
from protocol.times import ClockMark, ClockSource

BATCH_BYTES_MAX: Final = 1 << 20  # journal bytes of one segment
NONCE_BYTES: Final = 24
_CLOCK_STEP_US: Final = 500_000


@dataclass(frozen=True, slots=True)
class Opened:
    """A journal row and its decrypted body."""

    row: JournalRow
    plain: bytes


@dataclass(frozen=True, slots=True)
class ClockKey:
    """What rows must share to stand in one segment: the clock's source, and where it stood."""

    source: int
    base_us: int  # wall - monotonic, rounded; 0 where the clock was synchronised
    is_this_boot: bool


@dataclass(frozen=True, slots=True)
class Piece:
    """Records of one bucket of event time and one clock, with the row numbers they came from."""

    columns: Columns
    rows: tuple[RowRange, ...]
    clock: ClockKey
    event_us: int  # an event time that decides the epoch
    tail: Tail = field(default_factory=Tail)

    def within_bounds(self) -> Iterable["Piece"]:
        """The same as several, where more row ranges are named than a header may have."""
        start = 0
        for at in range(0, len(self.rows), ROW_RANGES_MAX):
            ranges = self.rows[at : at + ROW_RANGES_MAX]
            stop = start + sum(last - first + 1 for _, first, last in ranges)
            if at == 0 and stop == self.columns.count:
                yield self
                return
            part = replace(self, columns=self.columns.slice(start, stop), rows=ranges)
            if stop < self.columns.count:
                part = replace(part, tail=Tail(self.tail.is_regained))
            yield part
            start = stop


@dataclass(frozen=True, slots=True)
class Built:
    """A segment that is ready to be written."""

    segment: Segment
    epoch: int | None
    unsynced_base_us: int | None = None  # set where a correction will be needed


@dataclass(frozen=True, slots=True)
class _Placed:
    """A row as columns, and where its records go: (bucket of event time, their indices)."""

    row: JournalRow
    columns: Columns
    tail: Tail
    clock: ClockKey
    buckets: Sequence[tuple[int | None, list[int] | None]]

    @property
    def place(self) -> tuple[ClockKey, tuple[int | None, ...]]:
        """Rows of one place stand in one segment."""
        return self.clock, tuple(bucket for bucket, _ in self.buckets)


@dataclass(slots=True)
class _Bucket:
    clock: ClockKey
    event_us: int
    parts: list[Columns] = field(default_factory=list)
    rows: list[RowRange] = field(default_factory=list)
    marks: Marks = field(default_factory=dict)  # behind its rows


def pieces(
    opened: Sequence[Opened], interval: tuple[int, int] | None, epoch_us: int
) -> list[Piece]:
    """Cut rows by class of source, watermarks that fit one header, epoch bucket and clock.

    interval: event times that the open epoch takes, or None for an open grade (no epochs). What is
    outside goes by its own interval of `epoch_us`. Raises DecodeError for a body of no columns.
    """
    made: list[Piece] = []
    for tail, chunk in _by_tail([_placed(one, interval, epoch_us) for one in opened]):
        buckets: dict[tuple[ClockKey, int | None], _Bucket] = {}
        for one in chunk:
            for bucket, indices in one.buckets:
                found = buckets.get((one.clock, bucket))
                if found is None:
                    first = one.columns.event_time[indices[0] if indices is not None else 0]
                    found = buckets[one.clock, bucket] = _Bucket(one.clock, first)
                _add(found, one.row, one.columns, indices)
            buckets[one.clock, one.buckets[-1][0]].marks |= one.tail.marks
        made += [
            Piece(
                concat(b.parts), tuple(_merged(b.rows)), b.clock, b.event_us,
                Tail(tail.is_regained, b.marks if tail.is_regained else {}),
            )
            for b in buckets.values()
        ]  # fmt: skip
        if not tail.is_regained:
            made[-1] = replace(made[-1], tail=tail)  # sealed last: the rows of all stand before it
    return made


def _placed(one: Opened, interval: tuple[int, int] | None, epoch_us: int) -> _Placed:
    dumped, data = open_body(one.plain)
    columns = load_columns(dumped)
    buckets = list(_by_epoch(columns, interval, epoch_us))
    return _Placed(one.row, columns, load_tail(data), _clock_key(one.row), buckets)


def _by_tail(placed: Iterable[_Placed]) -> Iterable[tuple[Tail, list[_Placed]]]:
    """Rows of one class of source, as many as one header can name the watermarks of.

    Where a source that can be asked again goes on in another epoch or clock there is a cut: each
    segment says where its sources stood, or after an image restore one that came alone would come
    again.
    """
    others: list[_Placed] = []
    chunk: list[_Placed] = []
    marks: Marks = {}
    places: dict[tuple[str, str], object] = {}  # of the sources of `chunk`
    for one in placed:
        if not one.tail.is_regained:
            others.append(one)
            continue
        place, merged = one.place, marks | one.tail.marks
        is_full = merged != marks and not fits(merged)
        if chunk and (is_full or any(places.get(key, place) != place for key in one.tail.marks)):
            yield Tail(is_regained=True, marks=marks), chunk
            merged, chunk, places = one.tail.marks, [], {}
        marks = merged
        places |= dict.fromkeys(one.tail.marks, place)
        chunk.append(one)
    if others:
        newest = {key: value for one in others for key, value in one.tail.marks.items()}
        yield Tail(is_regained=False, marks=newest), others
    if chunk:
        yield Tail(is_regained=True, marks=marks), chunk


def _clock_key(row: JournalRow) -> ClockKey:
    if row.source != ClockSource.NONE:
        return ClockKey(row.source, 0, is_this_boot=True)
    base_us = (row.wall_us - row.boot_us) // _CLOCK_STEP_US * _CLOCK_STEP_US
    return ClockKey(row.source, base_us, is_this_boot=row.is_this_boot)


def _by_epoch(
    columns: Columns, interval: tuple[int, int] | None, epoch_us: int
) -> Iterable[tuple[int | None, list[int] | None]]:
    """(bucket, indices); indices None: all of them. Bucket None: the open epoch, or no epochs."""
    times = columns.event_time
    if interval is None or (interval[0] <= min(times) and max(times) < interval[1]):
        yield None, None
        return
    found: dict[int | None, list[int]] = {}
    for index, time_us in enumerate(times):
        is_open = interval[0] <= time_us < interval[1]
        found.setdefault(None if is_open else time_us // epoch_us, []).append(index)
    yield from found.items()


def _add(bucket: _Bucket, row: JournalRow, columns: Columns, indices: list[int] | None) -> None:
    if indices is None:
        bucket.parts.append(columns)
        bucket.rows.append((row.run, row.first_row, row.first_row + row.count - 1))
        return
    bucket.parts.append(columns.keep(indices))
    for _, run in groupby(enumerate(indices), key=lambda pair: pair[1] - pair[0]):
        members = [index for _, index in run]
        bucket.rows.append((row.run, row.first_row + members[0], row.first_row + members[-1]))


def _merged(rows: Iterable[RowRange]) -> Iterable[RowRange]:
    last: RowRange | None = None
    for run, first, end in rows:
        if last is not None and last[0] == run and last[2] + 1 == first:
            last = (run, last[1], end)
            continue
        if last is not None:
            yield last
        last = (run, first, end)
    if last is not None:
        yield last


def build(
    bound: Bound,
    stream: Stream,
    cut: Sequence[tuple[Piece, Epoch | None]],
    *,
    identity: Identity,
    mark: ClockMark,
    boot_us: int,
    now_us: int,
    random: Randomness,
) -> list[Built]:
    """Seal the pieces as the next segments of a stream; nothing in memory moves."""
    seq, prev = stream.next_seq, SegmentId(stream.head)
    continues = _continues(stream)
    true_base_us = now_us + mark.offset_us - boot_us
    built: list[Built] = []
    for piece, epoch in cut:
        clock, unsynced = _stated_clock(piece.clock, mark, true_base_us)
        segment = seal(
            piece.columns,
            layout=bound.layout,
            signer=identity.signing,
            agent=identity.agent,
            resource=bound.id,
            stream=stream.id,
            seq=seq,
            prev=prev,
            entry=bound.entry,
            epoch=epoch.number if epoch else 0,
            grade=bound.grade,
            clock=clock,
            rows=piece.rows,
            keys=epoch.keys if epoch else None,
            nonces=[random(NONCE_BYTES) for _ in bound.layout.groups] if epoch else (),
            decision=bound.decision,
            resume=seal_resume(piece.tail, stream.id, seq, identity, random),
            continues=continues if seq == 0 else None,
        )
        built.append(Built(segment, epoch.number if epoch else None, unsynced))
        seq, prev = seq + 1, segment.id
    return built


def _continues(stream: Stream) -> Continues | None:
    return (
        None
        if stream.continues is None
        else msgspec.msgpack.decode(stream.continues, type=Continues)
    )


def _stated_clock(
    key: ClockKey, mark: ClockMark, true_base_us: int
) -> tuple[ClockMark, int | None]:
    """What the header says of the clock, and the base that a correction will refer to."""
    if key.source != ClockSource.NONE:
        source = ClockSource(key.source)
        return ClockMark(offset_us=mark.offset_us, error_us=mark.error_us, source=source), None
    if mark.source is ClockSource.NONE or not key.is_this_boot:
        unknown = ClockMark(offset_us=0, error_us=0, source=ClockSource.NONE)
        return unknown, key.base_us if key.is_this_boot else None
    offset_us = true_base_us - key.base_us
    error_us = mark.error_us + _CLOCK_STEP_US
    return ClockMark(offset_us=offset_us, error_us=error_us, source=mark.source), None
