"""The ledger's rows: leaves, hashes of complete subtrees, and the head of each generation."""

from collections.abc import Collection, Iterable

import msgspec
from sqlalchemy import and_, bindparam, func, insert, select, update

from hub.store.engine import Tx
from hub.store.prepared import Prepared
from hub.store.tables import leaf, ledger, node

Node = tuple[int, int, bytes]  # level, index, hash of a complete subtree


_LIVE = Prepared(select(ledger).where(ledger.c.live.is_(True)))
_LOCK = Prepared(select(ledger).where(ledger.c.live.is_(True)).with_for_update())
_HEAD = Prepared(select(ledger).where(ledger.c.generation == bindparam("generation")))
_MOVE = Prepared(
    update(ledger)
    .where(
        and_(ledger.c.generation == bindparam("b_generation"), ledger.c.size == bindparam("b_size"))
    )
    .values(size=bindparam("size"), frontier=bindparam("frontier"), changes=bindparam("changes"))
)
_ADD_LEAF = Prepared(insert(leaf))
_ADD_NODE = Prepared(insert(node))
_DATA = Prepared(
    select(leaf.c.idx, leaf.c.data).where(
        and_(
            leaf.c.generation == bindparam("generation"),
            leaf.c.idx.in_(bindparam("indexes", expanding=True)),
        )
    ),
    lists=("indexes",),
)
_SIZES = Prepared(
    select(leaf.c.idx, func.length(leaf.c.data)).where(
        and_(
            leaf.c.generation == bindparam("generation"),
            leaf.c.idx.in_(bindparam("indexes", expanding=True)),
        )
    ),
    lists=("indexes",),
)
_NODES = Prepared(
    select(node.c.idx, node.c.hash).where(
        and_(
            node.c.generation == bindparam("generation"),
            node.c.level == bindparam("level"),
            node.c.idx.in_(bindparam("indexes", expanding=True)),
        )
    ),
    lists=("indexes",),
)


class HeadRow(msgspec.Struct, frozen=True, kw_only=True):
    """One generation of the ledger as committed."""

    generation: int
    origin: str
    size: int
    frontier: bytes  #: protocol.merkle.Frontier.dump
    changes: int  #: counter of SegmentRow.change
    live: bool  #: whether leaves are appended to it (older generations are frozen)


def live(tx: Tx) -> HeadRow | None:
    """The head that grows, or None before the hub was initialised."""
    return next(iter(_LIVE.structs(HeadRow, tx, {})), None)


def lock(tx: Tx) -> HeadRow | None:
    """As `live`, and nobody else appends until this transaction ends (PostgreSQL: row lock)."""
    return next(iter(_LOCK.structs(HeadRow, tx, {})), None)


def head(tx: Tx, generation: int) -> HeadRow | None:
    """The head of one generation, or None."""
    return next(iter(_HEAD.structs(HeadRow, tx, {"generation": generation})), None)


def begin(tx: Tx, row: HeadRow) -> None:
    """Open a generation; the one before it is frozen."""
    tx.execute(update(ledger).values(live=False))
    tx.execute(insert(ledger), msgspec.structs.asdict(row))


def move(tx: Tx, old: HeadRow, *, size: int, frontier: bytes, changes: int) -> bool:
    """Set the live head, if it still is where it was."""
    moved = _MOVE.run(
        tx,
        {
            "b_generation": old.generation,
            "b_size": old.size,
            "size": size,
            "frontier": frontier,
            "changes": changes,
        },
    )
    return moved == 1


def append(
    tx: Tx, generation: int, leaves: Iterable[tuple[int, bytes]], nodes: Iterable[Node]
) -> None:
    """Keep leaves (index, data) and the subtree hashes that they complete."""
    _ADD_LEAF.many(
        tx,
        [{"generation": generation, "idx": index, "data": data} for index, data in leaves],
    )
    _ADD_NODE.many(
        tx,
        [
            {"generation": generation, "level": level, "idx": index, "hash": digest}
            for level, index, digest in nodes
        ],
    )


def data(tx: Tx, generation: int, indexes: Collection[int]) -> dict[int, bytes]:
    """Leaves by index."""
    found = _DATA.rows(tx, {"indexes": list(indexes), "generation": generation})
    return {index: bytes(one) for index, one in found}


def sizes(tx: Tx, generation: int, indexes: Collection[int]) -> dict[int, int]:
    """Sizes of leaves in bytes, by index."""
    found = _SIZES.rows(tx, {"indexes": list(indexes), "generation": generation})
    return dict(found)


def data_between(tx: Tx, generation: int, start: int, end: int) -> list[bytes]:
    """Leaves start … end - 1, in order."""
    query = (
        select(leaf.c.data)
        .where(and_(leaf.c.generation == generation, leaf.c.idx >= start, leaf.c.idx < end))
        .order_by(leaf.c.idx)
    )
    return [row.data for row in tx.execute(query)]


def nodes(
    tx: Tx, generation: int, wanted: Collection[tuple[int, int]]
) -> dict[tuple[int, int], bytes]:
    """Subtree hashes by (level, index); the absent are left out."""
    by_level: dict[int, list[int]] = {}
    for level, index in wanted:
        by_level.setdefault(level, []).append(index)
    found: dict[tuple[int, int], bytes] = {}
    for level, indexes in by_level.items():
        values = {"indexes": indexes, "generation": generation, "level": level}
        found |= {(level, index): digest for index, digest in _NODES.rows(tx, values)}
    return found


def nodes_between(tx: Tx, generation: int, level: int, start: int, end: int) -> list[bytes]:
    """Hashes of one level, start … end - 1: what a tile holds."""
    query = (
        select(node.c.hash)
        .where(
            and_(
                node.c.generation == generation,
                node.c.level == level,
                node.c.idx >= start,
                node.c.idx < end,
            )
        )
        .order_by(node.c.idx)
    )
    return [row.hash for row in tx.execute(query)]
