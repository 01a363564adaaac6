"""People who may log in: name, role, hash of the passphrase."""

import msgspec
from sqlalchemy import insert, select, update

from hub.domain.users import Role
from hub.store import audit, rows
from hub.store.audit import Actor
from hub.store.engine import Tx
from hub.store.tables import user
from protocol.errors import Code, RefusedError


class UserRow(msgspec.Struct, frozen=True, kw_only=True):
    """One person."""

    id: int
    name: str  #: what is typed at login
    role: Role
    hash: str  #: Argon2id with its parameters and salt
    disabled: bool
    created_us: int
    changed_us: int


def add(tx: Tx, *, name: str, role: Role, secret_hash: str, by: Actor, now_us: int) -> UserRow:
    """Enter a person. Raises RefusedError if the name is taken."""
    if get(tx, name) is not None:
        raise RefusedError(Code.CONFLICT, field="name", value=name)
    fields = {
        "name": name,
        "role": role.value,
        "hash": secret_hash,
        "disabled": False,
        "created_us": now_us,
        "changed_us": now_us,
    }
    tx.execute(insert(user), fields)
    audit.record(tx, by, now_us, "user.add", name, before=None, after={"role": role.value})
    made = get(tx, name)
    assert made is not None
    return made


def get(tx: Tx, name: str) -> UserRow | None:
    """The person of that name, or None."""
    return _typed(rows.one(UserRow, tx.execute(select(user).where(user.c.name == name)).first()))


def by_id(tx: Tx, user_id: int) -> UserRow | None:
    """The person of that number, or None."""
    return _typed(rows.one(UserRow, tx.execute(select(user).where(user.c.id == user_id)).first()))


def all_of(tx: Tx) -> list[UserRow]:
    """Everybody, by name."""
    found = rows.many(UserRow, list(tx.execute(select(user).order_by(user.c.name))))
    return [msgspec.structs.replace(one, role=Role(one.role)) for one in found]


def set_hash(tx: Tx, row: UserRow, secret_hash: str, by: Actor, now_us: int) -> None:
    """Give a person another passphrase; the trail says that, not what."""
    tx.execute(update(user).where(user.c.id == row.id), {"hash": secret_hash, "changed_us": now_us})
    audit.record(tx, by, now_us, "user.passwd", row.name, before=None, after=None)


def set_disabled(tx: Tx, row: UserRow, by: Actor, now_us: int, *, disabled: bool) -> None:
    """Shut a person out, or let them in again."""
    tx.execute(
        update(user).where(user.c.id == row.id), {"disabled": disabled, "changed_us": now_us}
    )
    audit.record(
        tx,
        by,
        now_us,
        "user.disable" if disabled else "user.enable",
        row.name,
        before={"disabled": row.disabled},
        after={"disabled": disabled},
    )


def _typed(row: UserRow | None) -> UserRow | None:
    return None if row is None else msgspec.structs.replace(row, role=Role(row.role))
