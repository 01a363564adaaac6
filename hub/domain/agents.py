"""What may become of an agent (采集代理) at the hub: the table of its states."""

from enum import StrEnum
from typing import Final

from protocol.errors import Code, RefusedError


class AgentState(StrEnum):
    """Whether an agent's batches are taken."""

    WAITING = "waiting"  #: enrolled, an operator has yet to approve it
    ACTIVE = "active"
    SUSPENDED = "suspended"  #: by an operator, or because two copies of it run


#: From each state, where an operator (or the hub itself) may lead it.
NEXT: Final = {
    AgentState.WAITING: frozenset({AgentState.ACTIVE, AgentState.SUSPENDED}),
    AgentState.ACTIVE: frozenset({AgentState.SUSPENDED, AgentState.WAITING}),
    AgentState.SUSPENDED: frozenset({AgentState.ACTIVE, AgentState.WAITING}),
}


def check_move(old: AgentState, new: AgentState) -> None:
    """Raise RefusedError unless an agent in state `old` may become `new`."""
    if new not in NEXT[old]:
        raise RefusedError(
            Code.CONFLICT, field="state", value=new.value, expected=", ".join(sorted(NEXT[old]))
        )
