"""Signed objects as they arrived: entries, wraps, notes, principals, enrolments, approvals."""

from collections.abc import Collection, Iterable

import msgspec
from sqlalchemy import and_, bindparam, insert, or_, select, update

from hub.store import rows
from hub.store.engine import Tx
from hub.store.prepared import Prepared
from hub.store.tables import object_


class ObjectRow(msgspec.Struct, frozen=True, kw_only=True):
    """One signed object and the leaf that records it."""

    id: bytes
    kind: str
    signer: bytes  #: principal whose statement it is
    record_hash: bytes
    raw: bytes  #: the envelope as it arrived
    generation: int
    leaf: int
    accepted_us: int


_LEAVES = Prepared(
    select(object_.c.id, object_.c.generation, object_.c.leaf).where(
        object_.c.id.in_(bindparam("ids", expanding=True))
    ),
    lists=("ids",),
)


def add(tx: Tx, new: Iterable[ObjectRow]) -> None:
    """Keep objects. Raises IntegrityError for one that is known."""
    tx.execute(insert(object_), [msgspec.structs.asdict(one) for one in new])


def get(tx: Tx, object_id: bytes) -> ObjectRow | None:
    """The object of that id, or None."""
    return rows.one(ObjectRow, tx.execute(select(object_).where(object_.c.id == object_id)).first())


def leaves_of(tx: Tx, ids: Collection[bytes]) -> dict[bytes, tuple[int, int]]:
    """Of those that are known: the (generation, leaf) that records each."""
    found = _LEAVES.rows(tx, {"ids": list(ids)})
    return {object_id: (generation, index) for object_id, generation, index in found}


def renew(tx: Tx, object_id: bytes, generation: int, index: int) -> None:
    """A leaf of a newer generation records the object anew."""
    tx.execute(
        update(object_).where(object_.c.id == object_id),
        {"generation": generation, "leaf": index},
    )


def of_kind(tx: Tx, kind: str, signer: bytes, *, limit: int = 1000) -> list[ObjectRow]:
    """A signer's objects of one kind, oldest first."""
    query = (
        select(object_)
        .where(and_(object_.c.kind == kind, object_.c.signer == signer))
        .order_by(object_.c.accepted_us)
        .limit(limit)
    )
    return rows.many(ObjectRow, list(tx.execute(query)))


def notes_after(tx: Tx, signer: bytes, after: tuple[int, bytes], *, limit: int) -> list[ObjectRow]:
    """A signer's gap notes and corrections in order of acceptance, after (time µs, object id)."""
    time_us, object_id = after
    query = (
        select(object_)
        .where(
            object_.c.kind.in_(("gap", "correction")),
            object_.c.signer == signer,
            or_(
                object_.c.accepted_us > time_us,
                and_(object_.c.accepted_us == time_us, object_.c.id > object_id),
            ),
        )
        .order_by(object_.c.accepted_us, object_.c.id)
        .limit(limit)
    )
    return rows.many(ObjectRow, list(tx.execute(query)))
