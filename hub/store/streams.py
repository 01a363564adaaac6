"""Streams: the head of each chain, moved only by compare-and-set."""

from collections.abc import Collection, Iterable

import msgspec
from sqlalchemy import and_, bindparam, insert, select, update

from hub.store import rows
from hub.store.engine import Tx
from hub.store.prepared import Prepared
from hub.store.tables import stream


class StreamRow(msgspec.Struct, frozen=True, kw_only=True):
    """One stream as committed."""

    n: int
    agent: bytes
    resource: bytes
    id: bytes
    seq: int  #: of the last accepted segment
    head: bytes  #: its id
    last_seq: int | None  #: where the stream that continues this one says that it ends
    run: bytes  #: the newest run in its first segment; empty once that is decided (`forget_runs`)
    created_us: int


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """A head's way from one accepted segment to a later one."""

    stream: int  #: StreamRow.n
    old_seq: int
    old_head: bytes
    seq: int
    head: bytes


_OF = Prepared(
    select(stream).where(
        and_(
            stream.c.agent.in_(bindparam("agents", expanding=True)),
            stream.c.resource.in_(bindparam("resources", expanding=True)),
        )
    ),
    lists=("resources", "agents"),
)
_GET = Prepared(select(stream).where(stream.c.n == bindparam("n")))
_MOVE = Prepared(
    update(stream)
    .where(
        and_(
            stream.c.n == bindparam("b_n"),
            stream.c.seq == bindparam("b_seq"),
            stream.c.head == bindparam("b_head"),
        )
    )
    .values(seq=bindparam("seq"), head=bindparam("head"))
)


def of(tx: Tx, agents: Collection[bytes], resources: Collection[bytes]) -> list[StreamRow]:
    """All streams of these agents' resources, oldest first."""
    found = _OF.structs(StreamRow, tx, {"resources": list(resources), "agents": list(agents)})
    return sorted(found, key=lambda one: one.n)


def all_of(tx: Tx, agent: bytes) -> list[StreamRow]:
    """All streams of an agent: `GET /v1/streams`."""
    query = select(stream).where(stream.c.agent == agent).order_by(stream.c.n)
    return rows.many(StreamRow, list(tx.execute(query)))


def get(tx: Tx, n: int) -> StreamRow | None:
    """The stream of that number, or None."""
    return next(iter(_GET.structs(StreamRow, tx, {"n": n})), None)


def following(tx: Tx, row: StreamRow) -> bytes | None:
    """The stream of the same resource that was begun next after this one, or None."""
    query = (
        select(stream.c.id)
        .where(
            and_(
                stream.c.agent == row.agent,
                stream.c.resource == row.resource,
                stream.c.n > row.n,
            )
        )
        .order_by(stream.c.n)
        .limit(1)
    )
    found = tx.execute(query).scalar()
    return None if found is None else bytes(found)


def add(tx: Tx, row: StreamRow) -> int:
    """Begin a stream with its first accepted segment; returns n (the row's own n is ignored).

    Raises IntegrityError if another process began it.
    """
    fields = msgspec.structs.asdict(row)
    del fields["n"]
    return int(tx.execute(insert(stream).returning(stream.c.n), fields).scalar_one())


def close(tx: Tx, n: int, last_seq: int) -> None:
    """Bound a stream that another continues: nothing above `last_seq` will be accepted in it."""
    tx.execute(update(stream).where(stream.c.n == n), {"last_seq": last_seq})


def forget_runs(tx: Tx, agent: bytes) -> None:
    """Forget who began the agent's streams: an operator has decided about what was before."""
    tx.execute(update(stream).where(stream.c.agent == agent), {"run": b""})


def move(tx: Tx, moves: Iterable[Move]) -> bool:
    """Move heads by compare-and-set; False if one of them was not where it should be."""
    many = [
        {
            "b_n": one.stream,
            "b_seq": one.old_seq,
            "b_head": one.old_head,
            "seq": one.seq,
            "head": one.head,
        }
        for one in sorted(moves, key=lambda one: one.stream)
    ]
    return not many or _MOVE.many(tx, many) == len(many)
