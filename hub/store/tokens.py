"""One-time tokens: for a gateway's enrolment at one site, or for an owner's principal."""

from enum import StrEnum

import msgspec
from sqlalchemy import and_, insert, select, update

from hub.store import audit, rows
from hub.store.audit import Actor
from hub.store.engine import Tx
from hub.store.tables import token


class TokenKind(StrEnum):
    """What a token lets its holder do once."""

    SITE = "site"
    OWNER = "owner"


class TokenRow(msgspec.Struct, frozen=True, kw_only=True):
    """A token as the hub knows it: never its secret."""

    id: bytes
    public: bytes  #: public key of the token's signing key
    kind: str
    site: str | None
    state: str  #: new, used, void
    expires_us: int
    request: bytes | None  #: object id of the request that used it
    created_us: int


def add(tx: Tx, row: TokenRow, by: Actor) -> None:
    """Enter a new token."""
    tx.execute(insert(token), msgspec.structs.asdict(row))
    after = {"kind": row.kind, "site": row.site, "expires_us": row.expires_us}
    audit.record(tx, by, row.created_us, "token.add", row.id.hex(), before=None, after=after)


def get(tx: Tx, token_id: bytes) -> TokenRow | None:
    """The token of that id, or None."""
    return rows.one(TokenRow, tx.execute(select(token).where(token.c.id == token_id)).first())


def take(tx: Tx, token_id: bytes, request: bytes) -> bool:
    """Use a token up, by compare-and-set; False if somebody has. Atomic with what it pays for."""
    taken = tx.execute(
        update(token).where(and_(token.c.id == token_id, token.c.state == "new")),
        {"state": "used", "request": request},
    )
    return taken.rowcount == 1


def void_all(tx: Tx, by: Actor, now_us: int) -> int:
    """End every unused token: after a restore, older tokens may have been used in the lost time."""
    done = tx.execute(update(token).where(token.c.state == "new"), {"state": "void"})
    audit.record(tx, by, now_us, "token.void-all", "", before=None, after={"count": done.rowcount})
    return int(done.rowcount)
