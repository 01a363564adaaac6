"""Agents: who may send, their keys and state."""

import msgspec
from sqlalchemy import bindparam, insert, select, update

from hub.domain.agents import AgentState, check_move
from hub.store import audit, keys, rows, streams
from hub.store.audit import Actor
from hub.store.engine import Tx
from hub.store.prepared import Prepared
from hub.store.tables import agent
from protocol import ids
from protocol.errors import Code, RefusedError

_GET = Prepared(select(agent).where(agent.c.id == bindparam("id")))


class AgentRow(msgspec.Struct, frozen=True, kw_only=True):
    """One enrolled agent."""

    id: bytes
    site: str
    name: str
    software: str
    signing: bytes  #: public signing key
    sealing: bytes  #: public sealing key
    owner: bytes | None  #: principal id pinned at the gateway
    state: AgentState
    reason: str  #: why suspended, for people
    enrolment: bytes  #: object id of the enrolment
    created_us: int
    seen_us: int  #: of its last batch, coarse
    inbox_generation: int  #: last acknowledged inbox message
    inbox_number: int


def add(tx: Tx, row: AgentRow, by: Actor) -> None:
    """Enter an enrolled agent and its signing key. Raises RefusedError if the id is known."""
    if get(tx, row.id) is not None:
        raise RefusedError(Code.CONFLICT, field="agent", value=ids.show(row.id))
    tx.execute(insert(agent), msgspec.structs.asdict(row) | {"state": row.state.value})
    keys.add(tx, principal=row.id, kind="agent", public=row.signing, now_us=row.created_us)
    after = {"site": row.site, "name": row.name, "state": row.state.value}
    audit.record(tx, by, row.created_us, "agent.add", ids.show(row.id), before=None, after=after)


def get(tx: Tx, agent_id: bytes) -> AgentRow | None:
    """The agent of that principal id, or None."""
    found = _GET.structs(AgentRow, tx, {"id": agent_id})
    return _typed(found[0]) if found else None


def by_key(tx: Tx, key_id: bytes) -> AgentRow | None:
    """The agent that signs with that key, or None."""
    known = keys.get(tx, key_id)
    return None if known is None else get(tx, known.principal)


def all_of(tx: Tx, *, site: str | None = None) -> list[AgentRow]:
    """Every agent (of one site), in order of enrolment."""
    query = select(agent).order_by(agent.c.created_us, agent.c.id)
    if site is not None:
        query = query.where(agent.c.site == site)
    return [_typed(one) for one in rows.many(AgentRow, list(tx.execute(query)))]


def set_state(
    tx: Tx, agent_id: bytes, new: AgentState, by: Actor, now_us: int, *, reason: str = ""
) -> AgentRow:
    """Approve, suspend or resume. Raises RefusedError for an unknown agent or a forbidden move.

    Resumed, it is judged from now on: turns that two clones took before must not suspend the one
    that stays when it begins a stream after the other's.
    """
    old = get(tx, agent_id)
    if old is None:
        raise RefusedError(Code.UNKNOWN_AGENT, field="agent", value=agent_id.hex())
    check_move(old.state, new)
    tx.execute(update(agent).where(agent.c.id == agent_id), {"state": new.value, "reason": reason})
    if new is AgentState.ACTIVE:
        streams.forget_runs(tx, agent_id)
    audit.record(
        tx,
        by,
        now_us,
        f"agent.{new.value}",
        ids.show(agent_id),
        before={"state": old.state.value, "reason": old.reason},
        after={"state": new.value, "reason": reason},
    )
    return msgspec.structs.replace(old, state=new, reason=reason)


def seen(tx: Tx, agent_id: bytes, now_us: int, inbox: tuple[int, int], software: str) -> None:
    """Note a batch: when, the inbox number it acknowledges, the software that sent it."""
    generation, number = inbox
    tx.execute(
        update(agent).where(agent.c.id == agent_id),
        {
            "seen_us": now_us,
            "inbox_generation": generation,
            "inbox_number": number,
            "software": software,
        },
    )


def _typed(row: AgentRow) -> AgentRow:
    """The state as its enum (rows hold text)."""
    return msgspec.structs.replace(row, state=AgentState(row.state))
