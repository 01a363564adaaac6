"""Nonces of state-changing requests: used once, by any process, because the index says so."""

from collections.abc import Collection

import msgspec
from sqlalchemy import and_, bindparam, delete, insert, select

from hub.store.engine import Tx
from hub.store.prepared import Prepared
from hub.store.tables import nonce
from protocol.limits import NONCE_KEPT_S


class RequestNonce(msgspec.Struct, frozen=True, kw_only=True):
    """A verified request's nonce, and the key that signed it."""

    key: bytes
    nonce: bytes


_USED = Prepared(
    select(nonce.c.key, nonce.c.nonce).where(
        nonce.c.nonce.in_(bindparam("nonces", expanding=True))
    ),
    lists=("nonces",),
)
_INSERT = Prepared(insert(nonce))


def used(tx: Tx, nonces: Collection[RequestNonce]) -> set[tuple[bytes, bytes]]:
    """Those that were used before, as (key, nonce)."""
    found = _USED.rows(tx, {"nonces": [one.nonce for one in nonces]})
    return {(key, value) for key, value in found}


def insert_all(tx: Tx, nonces: Collection[RequestNonce], now_us: int) -> None:
    """Use them up. Raises IntegrityError if another process used one in the meantime."""
    expires = now_us + NONCE_KEPT_S * 1_000_000
    _INSERT.many(
        tx,
        [{"key": one.key, "nonce": one.nonce, "expires_us": expires} for one in nonces],
    )


def take(tx: Tx, one: RequestNonce, now_us: int) -> bool:
    """Use one up in the transaction of what it asks for; False if it was used before."""
    if (one.key, one.nonce) in used(tx, [one]):
        return False
    insert_all(tx, [one], now_us)
    return True


def sweep(tx: Tx, now_us: int) -> int:
    """Forget those that no request could use any more."""
    return int(tx.execute(delete(nonce).where(and_(nonce.c.expires_us < now_us))).rowcount)
