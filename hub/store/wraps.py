"""Wrapped epoch keys by who can open them."""

from collections.abc import Iterable

import msgspec
from sqlalchemy import and_, insert, select

from hub.store.engine import Tx
from hub.store.tables import object_, wrap


class WrapRow(msgspec.Struct, frozen=True, kw_only=True):
    """Where a wrap belongs; the envelope itself is the object."""

    object: bytes
    resource: bytes
    recipient: bytes
    epoch: int
    grp: int


def add(tx: Tx, new: Iterable[WrapRow]) -> None:
    """Index wraps whose objects were added in this transaction."""
    tx.execute(insert(wrap), [msgspec.structs.asdict(one) for one in new])


def of(
    tx: Tx, recipient: bytes, resource: bytes | None = None, *, after: int = -1, limit: int = 1000
) -> list[bytes]:
    """Raw envelopes for that recipient (of one resource), epochs ascending from above `after`.

    A page has `limit` of them or a few more: the last epoch is always whole, so that its number
    is the next page's `after`. Fewer than `limit`: there is no next page.
    """
    where = [wrap.c.recipient == recipient, wrap.c.epoch > after]
    if resource is not None:
        where.append(wrap.c.resource == resource)
    query = (
        select(object_.c.raw, wrap.c.epoch)
        .join(wrap, wrap.c.object == object_.c.id)
        .order_by(wrap.c.epoch, wrap.c.grp, wrap.c.object)
    )
    page = tx.execute(query.where(and_(*where)).limit(limit)).all()
    if len(page) == limit:
        last = page[-1].epoch
        page = [row for row in page if row.epoch < last]
        page += tx.execute(query.where(and_(*where), wrap.c.epoch == last)).all()
    return [row.raw for row in page]
