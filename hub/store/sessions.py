"""Who is logged in: hashes of session tokens; the token itself is only in the browser's cookie."""

import hashlib

import msgspec
from sqlalchemy import bindparam, delete, insert, or_, select, update

from hub.domain.users import Role
from hub.store.engine import Tx
from hub.store.prepared import Prepared
from hub.store.tables import session, user


class SessionRow(msgspec.Struct, frozen=True, kw_only=True):
    """A session, and of the person what each request needs."""

    hash: bytes
    user: int  #: UserRow.id
    created_us: int
    seen_us: int
    name: str
    role: Role
    disabled: bool


_FIND = Prepared(
    select(session, user.c.name, user.c.role, user.c.disabled)
    .join(user, user.c.id == session.c.user)
    .where(session.c.hash == bindparam("hash"))
)


def digest(token: bytes) -> bytes:
    """What is stored of a token: 256 random bits need no slow hash, only no way back."""
    return hashlib.sha256(b"shanmen/session\x00" + token).digest()


def add(tx: Tx, *, token: bytes, user_id: int, now_us: int) -> None:
    """Begin a session."""
    fields = {"hash": digest(token), "user": user_id, "created_us": now_us, "seen_us": now_us}
    tx.execute(insert(session), fields)


def find(tx: Tx, token_hash: bytes) -> SessionRow | None:
    """The session of that token's hash, however old, or None."""
    found = _FIND.rows(tx, {"hash": token_hash})
    if not found:
        return None
    token_hash, user_id, created_us, seen_us, name, role, disabled = found[0]
    return SessionRow(
        hash=token_hash, user=user_id, created_us=created_us, seen_us=seen_us,
        name=name, role=Role(role), disabled=bool(disabled),
    )  # fmt: skip


def seen(tx: Tx, token_hash: bytes, now_us: int) -> None:
    """Note a request."""
    tx.execute(update(session).where(session.c.hash == token_hash), {"seen_us": now_us})


def end(tx: Tx, token_hash: bytes) -> None:
    """Log out."""
    tx.execute(delete(session).where(session.c.hash == token_hash))


def end_of_user(tx: Tx, user_id: int) -> int:
    """Log a person out everywhere; returns how many sessions that were."""
    return int(tx.execute(delete(session).where(session.c.user == user_id)).rowcount)


def end_all(tx: Tx) -> None:
    """Log everybody out: the database was put back, and with it sessions that had ended."""
    tx.execute(delete(session))


def sweep(tx: Tx, *, created_before_us: int, seen_before_us: int) -> int:
    """Forget sessions that are too old or were idle for too long; returns how many."""
    old = or_(session.c.created_us < created_before_us, session.c.seen_us < seen_before_us)
    return int(tx.execute(delete(session).where(old)).rowcount)
