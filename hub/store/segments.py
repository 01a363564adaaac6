"""Accepted segments: what was signed, where its body lies, which leaf records it."""

from collections.abc import Collection, Iterable
from typing import Any

import msgspec
from sqlalchemy import Select, and_, bindparam, insert, select, update

from hub.store import rows
from hub.store.engine import Tx
from hub.store.prepared import Prepared
from hub.store.tables import pack, resource, row_range, segment, stream
from protocol.leaf import State


class SegmentRow(msgspec.Struct, frozen=True, kw_only=True):
    """One accepted segment."""

    change: int  #: place in the order of changes of all segments; moves when a body completes it
    id: bytes
    stream: int  #: StreamRow.n
    seq: int
    resource: int  #: ResourceRow.n
    state: int  #: protocol.leaf.State: BODY or HEADER
    count: int
    first_us: int
    last_us: int
    accepted_us: int
    generation: int
    leaf: int
    pack: int | None
    offset: int | None
    length: int | None
    head: bytes  #: prelude ‖ header ‖ signature


class Completed(msgspec.Struct, frozen=True, kw_only=True):
    """What changes when a body arrives for a segment that was header-only."""

    id: bytes
    change: int
    accepted_us: int
    generation: int
    leaf: int
    pack: int
    offset: int
    length: int


class RangeRow(msgspec.Struct, frozen=True, kw_only=True):
    """Journal rows `first … last` of one run that a segment holds."""

    resource: int
    run: bytes
    first: int
    last: int
    stream: int
    seq: int


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a body lies, and the head that describes it."""

    head: bytes
    state: int
    pack: str | None  #: the pack's name
    offset: int | None
    length: int | None


_ADD = Prepared(insert(segment))
_ADD_RANGES = Prepared(insert(row_range))
_AT = Prepared(
    select(segment).where(
        and_(segment.c.stream == bindparam("stream"), segment.c.seq == bindparam("seq"))
    )
)
_BY_IDS = Prepared(
    select(segment).where(segment.c.id.in_(bindparam("ids", expanding=True))), lists=("ids",)
)
_BODIES = Prepared(
    select(segment.c.id, pack.c.name, pack.c.size)
    .join(pack, pack.c.n == segment.c.pack)
    .where(segment.c.id.in_(bindparam("ids", expanding=True))),
    lists=("ids",),
)
_RANGE_BEFORE = Prepared(
    select(row_range)
    .where(
        and_(
            row_range.c.resource == bindparam("resource"),
            row_range.c.run == bindparam("run"),
            row_range.c.first <= bindparam("last"),
        )
    )
    .order_by(row_range.c.first.desc())
    .limit(1)
)


def add(tx: Tx, new: list[dict[str, Any]]) -> None:
    """Keep accepted segments (fields of SegmentRow). Raises IntegrityError for a known one."""
    _ADD.many(tx, new)


def complete(tx: Tx, one: Completed) -> None:
    """A header-only segment gets its body, a leaf of its own and a new place in the order."""
    fields = msgspec.structs.asdict(one)
    del fields["id"]
    tx.execute(update(segment).where(segment.c.id == one.id), fields | {"state": int(State.BODY)})


def renew(tx: Tx, segment_id: bytes, generation: int, index: int) -> None:
    """A leaf of a newer generation records the segment anew."""
    tx.execute(
        update(segment).where(segment.c.id == segment_id),
        {"generation": generation, "leaf": index},
    )


def lose_bodies(tx: Tx, pack_name: str) -> int:
    """A pack is gone: its segments are header-only until their bodies come again."""
    number = select(pack.c.n).where(pack.c.name == pack_name).scalar_subquery()
    done = tx.execute(
        update(segment).where(segment.c.pack == number),
        {"state": int(State.HEADER), "pack": None, "offset": None, "length": None},
    )
    return int(done.rowcount)


def by_ids(tx: Tx, ids: Collection[bytes]) -> dict[bytes, SegmentRow]:
    """Those of the ids that are known."""
    if not ids:
        return {}
    return {one.id: one for one in _BY_IDS.structs(SegmentRow, tx, {"ids": list(ids)})}


def bodies_of(tx: Tx, ids: Collection[bytes]) -> dict[bytes, tuple[str, int]]:
    """Of those of the ids whose body was accepted: name and size of the pack that holds it."""
    return {one: (name, size) for one, name, size in _BODIES.rows(tx, {"ids": list(ids)})}


def at(tx: Tx, stream_n: int, seq: int) -> SegmentRow | None:
    """The accepted segment at that place of a stream, or None."""
    return next(iter(_AT.structs(SegmentRow, tx, {"stream": stream_n, "seq": seq})), None)


def page_of_stream(tx: Tx, stream_n: int, after: int, limit: int) -> list[SegmentRow]:
    """Accepted segments of a stream with a number above `after`, in order."""
    query = (
        select(segment)
        .where(and_(segment.c.stream == stream_n, segment.c.seq > after))
        .order_by(segment.c.seq)
        .limit(limit)
    )
    return rows.many(SegmentRow, list(tx.execute(query)))


def page_of_resource(tx: Tx, resource_id: bytes, after: int, limit: int) -> list[SegmentRow]:
    """A resource's segments in order of change, from above `after`."""
    query = (
        select(segment)
        .join(resource, resource.c.n == segment.c.resource)
        .where(and_(resource.c.id == resource_id, segment.c.change > after))
        .order_by(segment.c.change)
        .limit(limit)
    )
    return rows.many(SegmentRow, list(tx.execute(query)))


def place(tx: Tx, segment_id: bytes) -> Place | None:
    """Where the body of a segment lies, or None for an unknown segment."""
    query: Select[Any] = (
        select(
            segment.c.head,
            segment.c.state,
            pack.c.name.label("pack"),
            segment.c.offset,
            segment.c.length,
        )
        .outerjoin(pack, pack.c.n == segment.c.pack)
        .where(segment.c.id == segment_id)
    )
    return rows.one(Place, tx.execute(query).first())


def agent_of(tx: Tx, segment_id: bytes) -> tuple[bytes, bytes] | None:
    """(agent, resource) of a segment, or None."""
    query = (
        select(stream.c.agent, stream.c.resource)
        .join(segment, segment.c.stream == stream.c.n)
        .where(segment.c.id == segment_id)
    )
    found = tx.execute(query).first()
    return None if found is None else (found.agent, found.resource)


def add_ranges(tx: Tx, new: Iterable[RangeRow]) -> None:
    """Keep the journal rows that accepted segments hold."""
    _ADD_RANGES.many(tx, [msgspec.structs.asdict(one) for one in new])


def holding(
    tx: Tx, resource_n: int, ranges: Iterable[tuple[bytes, int, int]], limit: int
) -> list[bytes]:
    """Ids of accepted segments that hold a row of these ranges (run, first, last), at most `limit`.

    Accepted ranges never overlap each other: those that begin inside a range hold rows of it, and
    of those that begin before it at most the last one does.
    """
    places: dict[tuple[int, int], None] = {}
    for run, first, last in ranges:
        before = range_before(tx, resource_n, run, first)
        if before is not None and before.last >= first:
            places[before.stream, before.seq] = None
        inside = (
            select(row_range.c.stream, row_range.c.seq)
            .where(
                and_(
                    row_range.c.resource == resource_n,
                    row_range.c.run == run,
                    row_range.c.first > first,
                    row_range.c.first <= last,
                )
            )
            .order_by(row_range.c.first)
            .limit(limit)
        )
        places |= dict.fromkeys((row.stream, row.seq) for row in tx.execute(inside))
    found = (at(tx, stream_n, seq) for stream_n, seq in list(places)[:limit])
    return [one.id for one in found if one is not None]


def range_before(tx: Tx, resource_n: int, run: bytes, last: int) -> RangeRow | None:
    """The accepted range of that run which begins last at or before row `last`, or None.

    Accepted ranges never overlap, so this one overlaps `first … last` or none does.
    """
    values = {"resource": resource_n, "run": run, "last": last}
    return next(iter(_RANGE_BEFORE.structs(RangeRow, tx, values)), None)
