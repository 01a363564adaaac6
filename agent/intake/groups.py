"""From readings to what one commit writes: check, grade, bind to a resource, columns, seal at rest.

Pure but for randomness: `prepare` reads the memory of resources and changes none of it, so that a
commit which failed can be prepared again.
"""

import asyncio
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from agent.intake.quarantine import RAW_BYTES_MAX, Refused, refused_records
from agent.intake.resume import Marks, Tail, is_regained, surely_fits
from agent.store.ports import DAY_US
from agent.store.resources import Bound
from devices.driver import Lost, Promise, Reading
from protocol.errors import DecodeError
from protocol.packs import check_columns
from protocol.records import Columns, Record, dump_columns, to_columns
from protocol.times import Quality

ROW_RECORDS_MAX: Final = 2_000  # records of one journal row
ROW_BYTES_MAX: Final = 1 << 20

MAY_WAIT: Final = frozenset({Promise.D, Promise.E})  # polled: their source keeps it
_MAYBE_REPEAT: Final = int(Quality.MAYBE_REPEAT)
_LENGTH: Final = 4
#: What a record of a wrong shape can raise on its way into columns.
_POISON: Final = (DecodeError, TypeError, ValueError, AttributeError, OverflowError)


@dataclass(slots=True, eq=False)
class Pending:
    """A reading that waits for its commit."""

    reading: Reading
    driver: str
    wall_us: int  # when it was handed over
    boot_us: int
    records: int
    future: asyncio.Future[None]  # done after the commit, never before
    size: float = 0.0  # estimated bytes in the journal
    key: bytes | None = None  # keyed hash of a class A identity

    @property
    def is_waited_for(self) -> bool:
        """Whether its commit may not wait for others."""
        return self.reading.urgent or self.reading.promise not in MAY_WAIT


@dataclass(slots=True)
class Part:
    """What one resource gets from one commit."""

    bound: Bound
    bodies: list[tuple[int, bytes]]  # records and plain journal body, in row order
    records: int = 0
    maybe_repeat: int = 0
    quarantined: int = 0
    is_urgent: bool = False
    regained: set[tuple[str, str]] = field(default_factory=set)  # sources of class D, E that moved

    def join(self, other: "Part") -> None:
        """Take in what another class of source gave the same resource."""
        self.bodies += other.bodies
        self.records += other.records
        self.maybe_repeat += other.maybe_repeat
        self.quarantined += other.quarantined
        self.is_urgent |= other.is_urgent
        self.regained |= other.regained


@dataclass(slots=True)
class Prepared:
    """Everything of one commit but row numbers and encryption."""

    parts: list[Part] = field(default_factory=list)
    watermarks: dict[tuple[str, str], bytes] = field(default_factory=dict)
    refused: list[Refused] = field(default_factory=list)
    lost: list[tuple[str, Lost]] = field(default_factory=list)  # driver, what its source lost
    keys: list[bytes] = field(default_factory=list)
    duplicates: list[Bound] = field(default_factory=list)  # one a record that was dropped


@dataclass(slots=True)
class _Gathered:
    """Records of one resource and class of source, in order, with the times of their hand-over."""

    bound: Bound
    records: list[Record]
    gateway: list[int]
    driver: str
    tail: Tail
    is_urgent: bool = False


def prepare(
    group: Sequence[Pending],
    bounds: Mapping[str, Bound],
    known: Container[bytes],
    epoch_us: int = DAY_US,
) -> Prepared:
    """Turn a group into what its commit writes; readings with a key in `known` are left out.

    epoch_us: what can be asked for again stands in rows of one epoch each, so that its segments
    can say where the sources stood.
    """
    prepared = Prepared()
    fresh: set[bytes] = set()
    gathered: dict[tuple[str, bool], list[_Gathered]] = {}
    keys = prepared.keys
    for pending in group:
        reading, key = pending.reading, pending.key
        if key is not None:
            if key in fresh or key in known:
                _count_duplicates(reading, bounds, prepared)
                continue
            fresh.add(key)
            keys.append(key)
        if reading.watermarks:
            for watermark in reading.watermarks:
                prepared.watermarks[pending.driver, watermark.source] = watermark.value
        if reading.rejected:
            prepared.refused += _rejected(pending)
        if reading.lost:
            prepared.lost += [(pending.driver, one) for one in reading.lost]
        _gather(pending, bounds, gathered, prepared, epoch_us)
    _finish(gathered, prepared)
    return prepared


def _finish(gathered: Mapping[tuple[str, bool], list[_Gathered]], prepared: Prepared) -> None:
    """One part a resource: classes of source stand apart in its journal rows only."""
    parts: dict[str, Part] = {}
    for (local, _), many in gathered.items():
        for found in many:
            try:
                part = _part(found, prepared)
            except _POISON:
                part = _part(_without_poison(found, prepared), prepared)
            before = parts.setdefault(local, part)
            if before is not part:
                before.join(part)
    prepared.parts += parts.values()


def _without_poison(found: _Gathered, prepared: Prepared) -> _Gathered:
    """Records whose very shape breaks the columns go to the quarantine; the others stay."""
    good = _Gathered(found.bound, [], [], found.driver, found.tail, found.is_urgent)
    for record, gateway in zip(found.records, found.gateway, strict=True):
        try:
            columns = to_columns([record], found.bound.names, gateway)
            check_columns(found.bound.pack, columns)
            dump_columns(columns)
        except _POISON:
            plain = repr(record).encode("utf-8", "replace")
            item = Refused(
                found.driver,
                "malformed",
                1,
                plain[:RAW_BYTES_MAX],
                found.bound.local,
                (record,),
            )
            prepared.refused.append(item)
        else:
            good.records.append(record)
            good.gateway.append(gateway)
    return good


def _gather(
    pending: Pending,
    bounds: Mapping[str, Bound],
    gathered: dict[tuple[str, bool], list[_Gathered]],
    prepared: Prepared,
    epoch_us: int,
) -> None:
    reading = pending.reading
    again = is_regained(reading)
    moved: Marks = {}
    if reading.watermarks:
        moved = {(pending.driver, mark.source): mark.value for mark in reading.watermarks}
    for rows in reading.rows:
        many = gathered.get((rows.resource, again))
        if many is None:
            bound = bounds.get(rows.resource)
            if bound is None:
                prepared.refused.append(
                    refused_records(pending.driver, rows.resource, "unknown-resource", rows.records)
                )
                continue
            found = _Gathered(bound, [], [], pending.driver, Tail(again))
            many = gathered[rows.resource, again] = [found]
        records = rows.records
        found = many[-1]
        if again and found.records:
            found = _of_epoch(many, moved, records, epoch_us)
        found.records += records
        found.gateway += [pending.wall_us] * len(records)
        if reading.urgent:
            found.is_urgent = True
        if moved:
            found.tail.marks.update(moved)


def _of_epoch(
    many: list[_Gathered], moved: Marks, records: Sequence[Record], epoch_us: int
) -> _Gathered:
    """Where records go: to others of their epoch, behind all that the same sources gave before."""

    def epoch(some: Sequence[Record]) -> int:
        return some[0].event_time_us // epoch_us

    for found in reversed(many):
        is_same = not records or epoch(found.records) == epoch(records)
        if is_same and surely_fits(found.tail.marks | moved):
            return found
        if not moved.keys().isdisjoint(found.tail.marks):
            break
    many.append(_Gathered(many[-1].bound, [], [], many[-1].driver, Tail(is_regained=True)))
    return many[-1]


def _count_duplicates(reading: Reading, bounds: Mapping[str, Bound], prepared: Prepared) -> None:
    for rows in reading.rows:
        bound = bounds.get(rows.resource)
        if bound is not None:
            prepared.duplicates += [bound] * len(rows.records)


def _rejected(pending: Pending) -> Iterable[Refused]:
    for item in pending.reading.rejected:
        plain = msgspec.msgpack.encode([item.device, item.detail, item.raw])
        yield Refused(pending.driver, item.reason, 1, plain)


def _part(found: _Gathered, prepared: Prepared) -> Part:
    bound = found.bound
    columns = to_columns(found.records, bound.names, 0)
    columns.gateway_time = found.gateway
    columns, quarantined = _checked(found, columns, prepared)
    part = Part(bound, [], columns.count, quarantined=quarantined, is_urgent=found.is_urgent)
    marks = set(columns.quality)
    if any(mark & _MAYBE_REPEAT for mark in marks):
        part.maybe_repeat = sum(1 for mark in columns.quality if mark & _MAYBE_REPEAT)
    if columns.count:
        part.bodies = list(_bodies(columns, found.tail))
        if found.tail.is_regained:
            part.regained.update(found.tail.marks)
    return part


def _checked(found: _Gathered, columns: Columns, prepared: Prepared) -> tuple[Columns, int]:
    """Leave out the rows that do not fit the pack; they go to the quarantine by reason."""
    problems = check_columns(found.bound.pack, columns)
    if not problems:
        return columns, 0
    reasons: dict[int, str] = {}
    for problem in problems:
        for row in problem.rows:
            reasons.setdefault(row, problem.kind)
    by_reason: dict[str, list[Record]] = {}
    for row, reason in reasons.items():
        by_reason.setdefault(reason, []).append(found.records[row])
    for reason, records in by_reason.items():
        prepared.refused.append(refused_records(found.driver, found.bound.local, reason, records))
    good = columns.keep([row for row in range(columns.count) if row not in reasons])
    good.fields = {name: good.fields[name] for name in found.bound.names}
    return good, len(reasons)


def _bodies(columns: Columns, tail: Tail) -> Iterable[tuple[int, bytes]]:
    """Journal bodies of bounded size: length of the columns, columns, watermarks of the driver."""
    if columns.count > ROW_RECORDS_MAX:
        for start in range(0, columns.count, ROW_RECORDS_MAX):
            stop = start + ROW_RECORDS_MAX
            last = stop >= columns.count
            part = tail if last else Tail(tail.is_regained)
            yield from _bodies(columns.slice(start, stop), part)
        return
    dumped = dump_columns(columns)
    if len(dumped) > ROW_BYTES_MAX and columns.count > 1:
        half = columns.count // 2
        yield from _bodies(columns.slice(0, half), Tail(tail.is_regained))
        yield from _bodies(columns.slice(half, columns.count), tail)
        return
    yield columns.count, body_of(dumped, tail)


def body_of(dumped: bytes, tail: Tail) -> bytes:
    """The plain body of a journal row."""
    return len(dumped).to_bytes(_LENGTH, "big") + dumped + tail.dump()


def open_body(plain: bytes) -> tuple[bytes, bytes]:
    """The two halves of a journal body: dumped columns; the driver's watermarks, if any."""
    size = _LENGTH + int.from_bytes(plain[:_LENGTH], "big")
    return plain[_LENGTH:size], plain[size:]


def place_of(stream: bytes, run: bytes, first_row: int, count: int) -> bytes:
    """Associated data of a journal body: stream, run, first row, n."""
    return stream + run + first_row.to_bytes(8, "big") + count.to_bytes(4, "big")
