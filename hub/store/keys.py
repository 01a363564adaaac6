"""Signing keys of everybody who may sign a request or an object: by key id."""

import msgspec
from sqlalchemy import bindparam, insert, select

from hub.store.engine import Tx
from hub.store.prepared import Prepared
from hub.store.tables import key
from protocol import ids

_GET = Prepared(select(key).where(key.c.id == bindparam("id")))


class KeyRow(msgspec.Struct, frozen=True, kw_only=True):
    """One signing key and whose it is."""

    id: bytes
    principal: bytes
    kind: str  #: agent, owner
    public: bytes
    created_us: int


def add(tx: Tx, *, principal: bytes, kind: str, public: bytes, now_us: int) -> None:
    """Enter the signing key of a principal of that kind."""
    key_id = ids.key_id(public, use=ids.Use.SIGNING)
    tx.execute(
        insert(key),
        {
            "id": key_id,
            "principal": principal,
            "kind": kind,
            "public": public,
            "created_us": now_us,
        },
    )


def get(tx: Tx, key_id: bytes) -> KeyRow | None:
    """The key of that id, or None."""
    return next(iter(_GET.structs(KeyRow, tx, {"id": key_id})), None)
