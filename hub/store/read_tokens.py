"""Bearer tokens for reading the catalog: 128 random bits, stored as a hash, revocable."""

import hashlib

import msgspec
from sqlalchemy import and_, insert, select, update

from hub.store import audit, rows
from hub.store.audit import Actor
from hub.store.engine import Tx
from hub.store.tables import read_token


class ReadTokenRow(msgspec.Struct, frozen=True, kw_only=True):
    """A read token as the hub knows it."""

    id: int
    hash: bytes
    name: str
    created_us: int
    revoked_us: int | None


def digest(secret: bytes) -> bytes:
    """What is stored of a token: 128 random bits need no slow hash, only no way back."""
    return hashlib.sha256(b"shanmen/read-token\x00" + secret).digest()


def add(tx: Tx, *, secret: bytes, name: str, by: Actor, now_us: int) -> int:
    """Enter a token; returns the number by which it is revoked."""
    made = tx.execute(
        insert(read_token).returning(read_token.c.id),
        {"hash": digest(secret), "name": name, "created_us": now_us},
    ).scalar_one()
    audit.record(tx, by, now_us, "read-token.add", str(made), before=None, after={"name": name})
    return int(made)


def find(tx: Tx, secret: bytes) -> ReadTokenRow | None:
    """The live token with that secret, or None. Compares hashes, in the index."""
    query = select(read_token).where(
        and_(read_token.c.hash == digest(secret), read_token.c.revoked_us.is_(None))
    )
    return rows.one(ReadTokenRow, tx.execute(query).first())


def all_of(tx: Tx) -> list[ReadTokenRow]:
    """Every read token, oldest first."""
    return rows.many(ReadTokenRow, list(tx.execute(select(read_token).order_by(read_token.c.id))))


def revoke(tx: Tx, token_id: int, by: Actor, now_us: int) -> bool:
    """End a token; False if there is no live one of that number."""
    done = tx.execute(
        update(read_token).where(
            and_(read_token.c.id == token_id, read_token.c.revoked_us.is_(None))
        ),
        {"revoked_us": now_us},
    )
    if done.rowcount != 1:
        return False
    audit.record(
        tx,
        by,
        now_us,
        "read-token.revoke",
        str(token_id),
        before={"revoked": False},
        after={"revoked": True},
    )
    return True
