"""The ledger's rows: leaves, hashes of complete subtrees, and the head of each generation."""

from collections.abc import Collection, Iterable

import msgspec
from sqlalchemy import and_, insert, or_, select, update

from hub.store import rows
from hub.store.engine import Tx
from hub.store.tables import leaf, ledger, node

Node = tuple[int, int, bytes]  # level, index, hash of a complete subtree


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
    query = select(ledger).where(ledger.c.live.is_(True))
    return rows.one(HeadRow, tx.execute(query).first())


def lock(tx: Tx) -> HeadRow | None:
    """As `live`, and nobody else appends until this transaction ends (PostgreSQL: row lock)."""
    query = select(ledger).where(ledger.c.live.is_(True)).with_for_update()
    return rows.one(HeadRow, tx.execute(query).first())


def head(tx: Tx, generation: int) -> HeadRow | None:
    """The head of one generation, or None."""
    query = select(ledger).where(ledger.c.generation == generation)
    return rows.one(HeadRow, tx.execute(query).first())


def begin(tx: Tx, row: HeadRow) -> None:
    """Open a generation; the one before it is frozen."""
    tx.execute(update(ledger).values(live=False))
    tx.execute(insert(ledger), msgspec.structs.asdict(row))


_MOVE = update(ledger)


def move(tx: Tx, old: HeadRow, *, size: int, frontier: bytes, changes: int) -> bool:
    """Set the live head, if it still is where it was."""
    done = tx.execute(
        _MOVE.where(and_(ledger.c.generation == old.generation, ledger.c.size == old.size)),
        {"size": size, "frontier": frontier, "changes": changes},
    )
    return done.rowcount == 1


def append(
    tx: Tx, generation: int, leaves: Iterable[tuple[int, bytes]], nodes: Iterable[Node]
) -> None:
    """Keep leaves (index, data) and the subtree hashes that they complete."""
    tx.execute(
        insert(leaf),
        [{"generation": generation, "idx": index, "data": data} for index, data in leaves],
    )
    tx.execute(
        insert(node),
        [
            {"generation": generation, "level": level, "idx": index, "hash": digest}
            for level, index, digest in nodes
        ],
    )


def data(tx: Tx, generation: int, indexes: Collection[int]) -> dict[int, bytes]:
    """Leaves by index."""
    query = select(leaf.c.idx, leaf.c.data).where(
        and_(leaf.c.generation == generation, leaf.c.idx.in_(list(indexes)))
    )
    return {row.idx: row.data for row in tx.execute(query)}


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
    if not by_level:
        return {}
    query = select(node.c.level, node.c.idx, node.c.hash).where(
        node.c.generation == generation,
        or_(
            *(
                and_(node.c.level == level, node.c.idx.in_(indexes))
                for level, indexes in by_level.items()
            )
        ),
    )
    return {(row.level, row.idx): row.hash for row in tx.execute(query)}


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
