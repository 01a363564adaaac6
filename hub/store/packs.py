"""Packs: immutable files of segment bodies, as the database knows them."""

import msgspec
from sqlalchemy import bindparam, delete, exists, insert, select

from hub.store.engine import Tx
from hub.store.prepared import Prepared
from hub.store.tables import pack, segment


class PackRow(msgspec.Struct, frozen=True, kw_only=True):
    """One pack that segments refer to."""

    name: str  #: hex SHA-256 of its bytes: the file's name
    size: int
    created_us: int


_BY_NAME = Prepared(select(pack.c.n).where(pack.c.name == bindparam("name")))
_ADD = Prepared(
    insert(pack)
    .values(name=bindparam("name"), size=bindparam("size"), created_us=bindparam("created_us"))
    .returning(pack.c.n)
)


def use(tx: Tx, row: PackRow) -> int:
    """The number of the pack, entered if it is new."""
    known = _BY_NAME.rows(tx, {"name": row.name})
    if known:
        return int(known[0][0])
    return int(_ADD.rows(tx, msgspec.structs.asdict(row))[0][0])


def names(tx: Tx, prefix: str = "") -> set[str]:
    """The names (of one prefix) of packs that a segment refers to."""
    query = select(pack.c.name).where(
        pack.c.name >= prefix,
        pack.c.name < prefix + "g",  # above every hex digit
        exists().where(segment.c.pack == pack.c.n),
    )
    return {row.name for row in tx.execute(query)}


def sizes(tx: Tx) -> dict[str, int]:
    """Name and size in bytes of all packs that a segment refers to."""
    query = select(pack.c.name, pack.c.size).where(exists().where(segment.c.pack == pack.c.n))
    return {row.name: row.size for row in tx.execute(query)}


def is_used(tx: Tx, name: str) -> bool:
    """Whether a segment refers to the pack."""
    query = select(pack.c.n).where(pack.c.name == name, exists().where(segment.c.pack == pack.c.n))
    return tx.execute(query).first() is not None


def forget(tx: Tx, name: str) -> None:
    """Take out the row of a pack that no segment refers to."""
    tx.execute(delete(pack).where(pack.c.name == name, ~exists().where(segment.c.pack == pack.c.n)))
