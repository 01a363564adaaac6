"""What is computed from accepted data, never typed: size, span, last seen (准确性, §6.3)."""

import msgspec
from sqlalchemy import func, select

from hub.store import rows
from hub.store.engine import Tx
from hub.store.tables import segment


class Sums(msgspec.Struct, frozen=True, kw_only=True):
    """Totals of one resource's accepted segments."""

    segments: int
    records: int
    bytes: int  #: of bodies that are kept
    first_us: int | None  #: event time of the earliest record
    last_us: int | None
    accepted_us: int | None  #: when the newest segment was accepted


def of_resource(tx: Tx, resource_n: int) -> Sums:
    """Sum over one resource (ResourceRow.n)."""
    query = select(
        func.count().label("segments"),
        func.coalesce(func.sum(segment.c.count), 0).label("records"),
        func.coalesce(func.sum(segment.c.length), 0).label("bytes"),
        func.min(segment.c.first_us).label("first_us"),
        func.max(segment.c.last_us).label("last_us"),
        func.max(segment.c.accepted_us).label("accepted_us"),
    ).where(segment.c.resource == resource_n)
    found = rows.one(Sums, tx.execute(query).first())
    assert found is not None
    return found
