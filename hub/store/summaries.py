"""What is computed from accepted data, never typed: size, span, last seen (准确性, §6.3).

Running totals, one row a resource, moved in the transaction that accepts: a page that shows five
hundred resources must not sum up every segment that was ever accepted.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from sqlalchemy import bindparam, case, delete, func, insert, select, update

from hub.store import rows
from hub.store.engine import Tx
from hub.store.prepared import Prepared
from hub.store.tables import segment, tally


class Sums(msgspec.Struct, frozen=True, kw_only=True):
    """Totals of one resource's accepted segments."""

    segments: int
    records: int
    bytes: int  #: of bodies that are kept
    first_us: int | None  #: event time of the earliest record
    last_us: int | None
    accepted_us: int | None  #: when the newest segment was accepted


_COLUMNS = (
    func.count().label("segments"),
    func.coalesce(func.sum(segment.c.count), 0).label("records"),
    func.coalesce(func.sum(segment.c.length), 0).label("bytes"),
    func.min(segment.c.first_us).label("first_us"),
    func.max(segment.c.last_us).label("last_us"),
    func.max(segment.c.accepted_us).label("accepted_us"),
)
_MORE = Prepared(
    update(tally)
    .where(tally.c.resource == bindparam("b_resource"))
    .values(
        segments=tally.c.segments + bindparam("b_segments"),
        records=tally.c.records + bindparam("b_records"),
        bytes=tally.c.bytes + bindparam("b_bytes"),
        first_us=case(
            (tally.c.first_us <= bindparam("b_first"), tally.c.first_us),
            else_=bindparam("b_first"),
        ),
        last_us=case(
            (tally.c.last_us >= bindparam("b_last"), tally.c.last_us),
            else_=bindparam("b_last"),
        ),
        accepted_us=bindparam("b_accepted"),
    )
)


def begin(tx: Tx, resource_n: int) -> None:
    """A resource is new: nothing was accepted of it."""
    tx.execute(insert(tally), {"resource": resource_n, "segments": 0, "records": 0, "bytes": 0})


def add(tx: Tx, new: Iterable[Mapping[str, Any]]) -> None:
    """Move the totals by accepted segments (fields of SegmentRow); a statement a resource."""
    more: dict[int, dict[str, int]] = {}
    for row in new:
        one = more.setdefault(
            row["resource"],
            {"b_resource": row["resource"], "b_segments": 0, "b_records": 0, "b_bytes": 0,
             "b_first": row["first_us"], "b_last": row["last_us"],
             "b_accepted": row["accepted_us"]},
        )  # fmt: skip
        one["b_segments"] += 1
        one["b_records"] += row["count"]
        one["b_bytes"] += row["length"] or 0
        one["b_first"] = min(one["b_first"], row["first_us"])
        one["b_last"] = max(one["b_last"], row["last_us"])
    _MORE.many(tx, list(more.values()))


def add_body(tx: Tx, segment_id: bytes, size: int, now_us: int) -> None:
    """The body of a segment came that was header-only."""
    whose = select(segment.c.resource).where(segment.c.id == segment_id).scalar_subquery()
    tx.execute(
        update(tally)
        .where(tally.c.resource == whose)
        .values(bytes=tally.c.bytes + size, accepted_us=now_us)
    )


def recount(tx: Tx) -> None:
    """Sum everything up anew: packs are gone, and with them sizes of bodies."""
    everything = select(segment.c.resource, *_COLUMNS).group_by(segment.c.resource)
    known = {n for (n,) in tx.execute(select(tally.c.resource))}
    tx.execute(delete(tally))
    found = {row.resource: dict(row._mapping) for row in tx.execute(everything)}  # noqa: SLF001 documented, not private
    empty = {"segments": 0, "records": 0, "bytes": 0,
             "first_us": None, "last_us": None, "accepted_us": None}  # fmt: skip
    for n in sorted(known | found.keys()):
        tx.execute(insert(tally), {"resource": n, **found.get(n, empty)})


def of_resource(tx: Tx, resource_n: int) -> Sums:
    """The totals of one resource (ResourceRow.n)."""
    names = [tally.c[name] for name in Sums.__struct_fields__]
    found = rows.one(Sums, tx.execute(select(*names).where(tally.c.resource == resource_n)).first())
    assert found is not None
    return found


def of_all(tx: Tx) -> Sums:
    """The totals of everything that was accepted."""
    query = select(
        func.coalesce(func.sum(tally.c.segments), 0).label("segments"),
        func.coalesce(func.sum(tally.c.records), 0).label("records"),
        func.coalesce(func.sum(tally.c.bytes), 0).label("bytes"),
        func.min(tally.c.first_us).label("first_us"),
        func.max(tally.c.last_us).label("last_us"),
        func.max(tally.c.accepted_us).label("accepted_us"),
    )
    found = rows.one(Sums, tx.execute(query).first())
    assert found is not None
    return found
