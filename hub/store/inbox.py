"""What waits for an agent: signed inbox messages, numbered, until acknowledged or expired."""

import msgspec
from sqlalchemy import and_, bindparam, delete, func, insert, or_, select

from hub.store.engine import Tx
from hub.store.prepared import Prepared
from hub.store.tables import inbox

_WAITING = Prepared(
    select(inbox)
    .where(
        and_(
            inbox.c.agent == bindparam("agent"),
            inbox.c.expires_us > bindparam("now"),
            or_(
                inbox.c.generation > bindparam("generation"),
                and_(
                    inbox.c.generation == bindparam("generation"),
                    inbox.c.n > bindparam("number"),
                ),
            ),
        )
    )
    .order_by(inbox.c.generation, inbox.c.n)
    .limit(bindparam("limit"))
)


class InboxRow(msgspec.Struct, frozen=True, kw_only=True):
    """One signed message for one agent."""

    agent: bytes
    generation: int
    n: int
    expires_us: int
    raw: bytes  #: hub envelope `inbox`


def next_number(tx: Tx, agent_id: bytes, generation: int) -> int:
    """The number that the agent's next message gets, from 1 in each generation."""
    query = select(func.max(inbox.c.n)).where(
        and_(inbox.c.agent == agent_id, inbox.c.generation == generation)
    )
    return int(tx.execute(query).scalar() or 0) + 1


def put(tx: Tx, row: InboxRow) -> None:
    """Queue a message under the number that it was signed with."""
    tx.execute(insert(inbox), msgspec.structs.asdict(row))


def take_back(tx: Tx, agent_id: bytes, number: tuple[int, int]) -> None:
    """Forget a message (generation, n) that a newer one replaces; numbers above it stay given."""
    generation, n = number
    tx.execute(
        delete(inbox).where(
            and_(inbox.c.agent == agent_id, inbox.c.generation == generation, inbox.c.n == n)
        )
    )


def waiting(
    tx: Tx, agent_id: bytes, after: tuple[int, int], now_us: int, *, limit: int = 32
) -> list[InboxRow]:
    """Messages above the acknowledged (generation, n) that have not expired, in order."""
    generation, number = after
    return _WAITING.structs(
        InboxRow,
        tx,
        {
            "agent": agent_id,
            "now": now_us,
            "generation": generation,
            "number": number,
            "limit": limit,
        },
    )


def sweep(tx: Tx, now_us: int) -> int:
    """Forget what has expired, but each agent's newest message: numbers are never given twice."""
    keep = select(inbox.c.agent, inbox.c.generation, func.max(inbox.c.n).label("n")).group_by(
        inbox.c.agent, inbox.c.generation
    )
    kept = {tuple(row) for row in tx.execute(keep)}
    old = select(inbox.c.agent, inbox.c.generation, inbox.c.n).where(inbox.c.expires_us <= now_us)
    gone = [row for row in tx.execute(old) if tuple(row) not in kept]
    for agent_id, generation, n in gone:
        tx.execute(
            delete(inbox).where(
                and_(inbox.c.agent == agent_id, inbox.c.generation == generation, inbox.c.n == n)
            )
        )
    return len(gone)
