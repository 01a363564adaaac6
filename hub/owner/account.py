"""Whether the hub shows everything that its ledger says it took: what is missing is named.

A segment's leaf names its gateway and its id, not its resource. So every id of a segment in leaves
of a resource's gateway must be shown as a segment of one of that gateway's resources. What was
accounted for once is remembered: the ledger up to a position, and each stream's last segment.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from hub.owner.ledger import Ledger
from hub.owner.sources import Fetched, Sources
from hub.owner.state import Known, Top
from protocol.errors import Code, DecodeError, RefusedError, VerifyError
from protocol.ids import PrincipalId, ResourceId, StreamId, show
from protocol.ids import parse as parse_id
from protocol.leaf import BatchLeaf, State
from protocol.segment import Segment

#: What a hub answers about a segment of somebody else's resource.
_OTHERS: Final = frozenset({Code.NOT_OWNER, Code.UNKNOWN_RESOURCE})


class WithheldError(VerifyError):
    """The hub has, or had, segments that it does not show."""

    def __init__(self, missing: Sequence[str]) -> None:
        super().__init__(Code.GAP, field="withheld", expected=", ".join(missing[:3]))
        self.missing = list(missing)  # for people: ids, or a stream and its number


@dataclass(slots=True)
class Accounted:
    """The outcome: what to remember, and what the hub says is another owner's."""

    known: Known
    others: int = 0  # segments of these gateways that the hub says we may not see


@dataclass(slots=True)
class Account:
    """The accounting of one reading."""

    sources: Sources
    known: Known
    ledgers: Sequence[Ledger]
    #: (generation, size) of a checkpoint that was verified before the heads were asked for.
    before: tuple[int, int] | None = None
    _tops: dict[str, Top] = field(default_factory=dict)

    def check_tops(self, heads: Iterable[Fetched], resource: ResourceId) -> None:
        """No stream of this resource may be shown shorter than it was. Raises WithheldError.

        What a `continues` names proves nothing here: a restored gateway names its own last
        segment, which the hub may never have had. Whether it had it the leaves say.
        """
        shown = {one.head.id for one in heads}
        for one in heads:
            self._remember(one.head)
        missing = [
            f"{show(StreamId(top.stream))}/{top.seq}"
            for top in self.known.tops.values()
            if top.resource == show(resource) and top.segment not in shown
        ]
        if missing:
            raise WithheldError(missing)

    async def check_leaves(
        self, heads: Sequence[Fetched], resource: ResourceId, agents: Iterable[PrincipalId]
    ) -> Accounted:
        """Every segment that a leaf names for one of these gateways is shown somewhere.

        Only what is new since the last accounting is read. Raises WithheldError, VerifyError.
        """
        explained = {bytes(one.head.id) for one in heads}
        known, others = self.known, 0
        for agent in sorted(set(agents)):
            named, places = await self._named(agent)
            left = {item for item in named if item not in explained}
            if left:
                left -= await self._elsewhere(agent, resource)
            missing, hidden = [], 0
            for item in sorted(left):
                verdict = await self._one(item, resource)
                hidden += verdict == "other"
                if verdict == "missing":
                    missing.append(item.hex())
            if missing:
                raise WithheldError(missing)
            others += hidden
            if not hidden:  # what the hub keeps to itself is asked for, and told, each time
                known = msgspec.structs.replace(known, scanned=known.scanned | places)
        return Accounted(msgspec.structs.replace(known, tops=known.tops | self._tops), others)

    async def _named(self, agent: PrincipalId) -> tuple[set[bytes], dict[str, int]]:
        """Ids of segments in this gateway's leaves that were not accounted for yet."""
        named: set[bytes] = set()
        places: dict[str, int] = {}
        for ledger in self.ledgers:
            generation, size = ledger.checkpoint.generation, ledger.checkpoint.size
            if self.before is not None and generation >= self.before[0]:
                size = min(size, self.before[1]) if generation == self.before[0] else 0
            place = f"{show(agent)}/{generation}"
            first = self.known.scanned.get(place, 0)
            async for leaf in ledger.leaves(first, size):
                if isinstance(leaf, BatchLeaf) and leaf.agent == agent:
                    named |= {bytes(item) for state, item in leaf.items if state != State.OBJECT}
            places[place] = max(first, size)
        return named, places

    async def _elsewhere(self, agent: PrincipalId, resource: ResourceId) -> set[bytes]:
        """Ids of segments shown of the gateway's other resources; their streams are remembered."""
        found: set[bytes] = set()
        async for one in self.sources.listed():
            other = ResourceId(parse_id(one.resource))
            if other == resource or parse_id(one.agent) != agent:
                continue
            async for shown in self.sources.heads(other):
                if shown.head.header.agent == agent:
                    found.add(bytes(shown.head.id))
                    self._remember(shown.head)
        return found

    async def _one(self, item: bytes, resource: ResourceId) -> str:
        """What the hub says of one segment that it lists nowhere."""
        try:
            head = await self.sources.segment(item)
        except RefusedError as error:
            return "other" if error.code in _OTHERS else "missing"
        except DecodeError:
            return "missing"
        # It has it, and it is of this resource: then it should have been listed.
        same = head.header.resource == resource or bytes(head.id) != item
        if same:
            return "missing"
        self._remember(head)
        return "shown"

    def _remember(self, head: Segment) -> None:
        header = head.header
        name = f"{show(header.resource)}/{show(header.stream)}"
        top = self._tops.get(name)
        if top is None or header.seq > top.seq:
            self._tops[name] = Top(
                resource=show(header.resource),
                stream=bytes(header.stream),
                seq=header.seq,
                segment=bytes(head.id),
            )
