"""Principals (主体) that are not agents: data owners today; users and applications later."""

import msgspec
from sqlalchemy import insert, select, update

from hub.store import audit, keys, rows, search
from hub.store.audit import Actor
from hub.store.engine import Tx
from hub.store.tables import principal
from protocol import ids


class PrincipalRow(msgspec.Struct, frozen=True, kw_only=True):
    """One principal with its newest self-signed object."""

    id: bytes
    kind: str
    name: str
    signing: bytes
    sealing: bytes
    version: int
    object: bytes  #: object id of the newest `principal` envelope
    created_us: int


def put(tx: Tx, row: PrincipalRow, by: Actor) -> bool:
    """Enter a principal, or its newer version. False if this version or a newer one is known."""
    old = get(tx, row.id)
    fields = msgspec.structs.asdict(row)
    if old is None:
        tx.execute(insert(principal), fields)
        keys.add(tx, principal=row.id, kind=row.kind, public=row.signing, now_us=row.created_us)
    elif old.version < row.version:
        tx.execute(update(principal).where(principal.c.id == row.id), fields)
    else:
        return False
    if row.name != ("" if old is None else old.name):
        search.refresh_owner(tx, row.id)
    audit.record(
        tx,
        by,
        row.created_us,
        "principal.put",
        ids.show(row.id),
        before=None if old is None else {"version": old.version, "object": old.object.hex()},
        after={"version": row.version, "object": row.object.hex(), "kind": row.kind},
    )
    return True


def get(tx: Tx, principal_id: bytes) -> PrincipalRow | None:
    """The principal of that id, or None."""
    query = select(principal).where(principal.c.id == principal_id)
    return rows.one(PrincipalRow, tx.execute(query).first())
