"""What one batch of a group will write, as `judge` found and `accept` does it."""

from dataclasses import dataclass, field

from hub.domain.chains import Resource, Stream
from hub.domain.outcomes import Accepted, Outcome
from hub.store.agents import AgentRow
from hub.store.entries import ResourceRow
from hub.verify import CheckedObject, CheckedSegment
from protocol.leaf import State
from protocol.registration import Registration


@dataclass(slots=True)
class NewSegment:
    """A segment to append; its leaf and change number are given when the group is written."""

    checked: CheckedSegment
    resource: Resource
    stream: Stream
    state: State


@dataclass(slots=True)
class NewEntry:
    """A registration entry to keep, and whether it becomes the one in force."""

    checked: CheckedObject
    payload: Registration
    resource: Resource
    in_force: bool
    before: ResourceRow | None


@dataclass(slots=True)
class NewStream:
    """A stream to begin, the streams that this bounds, and whether two processes take turns."""

    resource: Resource
    stream: Stream
    bounded: list[Stream]
    is_clone: bool


@dataclass(slots=True)
class Judged:
    """One batch's outcomes, and what it writes."""

    agent: AgentRow
    size: int  # items of the batch
    outcomes: list[Outcome] = field(default_factory=list)
    entries: list[NewEntry] = field(default_factory=list)
    objects: list[CheckedObject] = field(default_factory=list)
    streams: list[NewStream] = field(default_factory=list)
    segments: list[NewSegment] = field(default_factory=list)
    completions: list[CheckedSegment] = field(default_factory=list)
    renewed: list[tuple[State, bytes]] = field(default_factory=list)

    @property
    def accepted(self) -> list[tuple[State, bytes]]:
        """What the batch's leaf names: each item once, in the batch's order.

        After them, what an older generation of the ledger had recorded and this answer must
        prove: its old leaf leads to no checkpoint that is signed today, so it gets a new one.
        """
        named = [(one.state, one.id) for one in self.outcomes if isinstance(one, Accepted)]
        return list(dict.fromkeys(named + self.renewed))
