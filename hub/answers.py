"""From outcomes to the signed answer: one checkpoint, and a proof under it for whatever is claimed.

Runs after COMMIT on the writer's thread, against committed rows only: what an answer says is
durable, and its checkpoint is one that every later reader will find consistent.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from hub.domain import outcomes
from hub.domain.outcomes import Outcome
from hub.evidence import Pages, Room, Shown
from hub.ledger import FIRST_GENERATION, Ledger, Proof
from hub.store import leaves, objects
from hub.store.agents import AgentRow
from hub.store.engine import Tx
from hub.store.leaves import HeadRow
from protocol import messages, receipt
from protocol.checkpoint import generation_of
from protocol.errors import DecodeError
from protocol.ids import StreamId
from protocol.leaf import State
from protocol.receipt import LeafProof, Proofs
from protocol.wraps import Seen

STATEMENTS_MAX: Final = 16


class Committed(msgspec.Struct, frozen=True, kw_only=True):
    """What all answers of a group share."""

    head: HeadRow
    checkpoint: str
    leaves: dict[bytes, tuple[int, int]]  #: accepted id -> generation, leaf


class Answers:
    """Builds the answers of one group from one snapshot of committed rows."""

    def __init__(self, tx: Tx, ledger: Ledger, committed: Committed) -> None:
        self._tx = tx
        self._ledger = ledger
        self._committed = committed

    def receipt_and_verdicts(
        self, agent: AgentRow, results: Sequence[Outcome], seen: Seen | None
    ) -> tuple[Proofs, list[messages.ItemVerdict]]:
        """The proofs of one batch's answer, and its verdicts that point into them."""
        generation = self._committed.head.generation
        room = Room(self._tx, generation)
        waiting = self._claim(results, room)
        evidence = Pages(self._tx, generation, room)
        evidence.collect(results)
        pages = evidence.pages
        waiting |= {number for number, page in pages.items() if page.cut}
        proofs = self._prove(room.leaves)
        place = {index: number for number, index in enumerate(proofs)}
        verdicts = [
            messages.Later(0) if number in waiting else self._verdict(one, pages.get(number), place)
            for number, one in enumerate(results)
        ]
        shown = tuple(
            LeafProof(leaf=one.leaf, index=one.index, path=tuple(one.path))
            for one in proofs.values()
        )
        return (
            Proofs(
                checkpoint=self._committed.checkpoint,
                proofs=shown,
                consistency=tuple(self._consistency(seen)),
                statements=tuple(self._statements(self._known_generation(agent, seen))),
            ),
            verdicts,
        )

    # --- proofs ----------------------------------------------------------------------------------

    def _prove(self, indexes: Iterable[int]) -> dict[int, Proof]:
        head = self._committed.head
        return self._ledger.inclusion(self._tx, head.generation, indexes, head.size)

    def _claim(self, results: Sequence[Outcome], room: Room) -> set[int]:
        """Take room for every leaf that a verdict speaks of; returns the items that must wait."""
        live = self._committed.head.generation
        for one in results:
            if isinstance(one, outcomes.Accepted):
                room.claim(self._committed.leaves[one.id][1])
        old = {
            number: one.leaf
            for number, one in enumerate(results)
            if isinstance(one, outcomes.Duplicate) and one.generation == live
        }
        room.know(old.values())
        return {number for number, index in old.items() if not room.take(index)}

    def _consistency(self, seen: Seen | None) -> list[bytes]:
        """From the agent's last checkpoint to this one, or to where its generation was frozen.

        Nothing where it cannot be proven: the agent decides what that means.
        """
        if seen is None or seen.size == 0:
            return []
        head = self._committed.head
        if seen.origin != head.origin:
            frozen = _generation(seen.origin)
            old = None if frozen is None else leaves.head(self._tx, frozen)
            if old is None or old.origin != seen.origin:
                return []
            head = old
        if seen.size > head.size:
            return []
        return self._ledger.consistency(self._tx, head.generation, seen.size, head.size)

    def _statements(self, known: int) -> Iterable[receipt.Receipt]:
        """Leaf 0 of every generation after the one the agent knows, under its own checkpoint."""
        live = self._committed.head.generation
        for generation in range(max(known + 1, live - STATEMENTS_MAX + 1), live + 1):
            head = leaves.head(self._tx, generation)
            if head is None:
                continue
            proof = self._ledger.inclusion(self._tx, generation, [0], head.size)[0]
            yield receipt.Receipt(
                leaf=proof.leaf,
                index=0,
                path=tuple(proof.path),
                checkpoint=self._ledger.sign(head),
            )

    def _known_generation(self, agent: AgentRow, seen: Seen | None) -> int:
        """The generation that the agent believes in: of its checkpoint, else of its enrolment."""
        live = self._committed.head.generation
        if live == FIRST_GENERATION:
            return live
        if seen is not None:
            known = _generation(seen.origin)
            return live if known is None else known
        # Enrolled and not synced since. One that was re-admitted believes in an older generation
        # than its row says, so it is told them all; it skips what it knows.
        enrolled = objects.get(self._tx, agent.enrolment)
        return live if enrolled is None else FIRST_GENERATION

    # --- verdicts --------------------------------------------------------------------------------

    def _verdict(
        self, one: Outcome, page: Shown | None, place: dict[int, int]
    ) -> messages.ItemVerdict:
        said: messages.ItemVerdict
        match one:
            case outcomes.Accepted():
                said = messages.Accepted()
            case outcomes.Duplicate():
                said = messages.Duplicate()
            case outcomes.Missing():
                said = messages.Missing(None if one.have < 0 else one.have)
            case outcomes.UnknownResource():
                said = messages.UnknownResource()
            case outcomes.Refused():
                said = messages.refused(one.code, one.reason)
            case outcomes.Later():
                said = messages.Later(one.seconds)
            case outcomes.Overlap():
                said = messages.Overlap(_shown(page, place))
            case outcomes.Fork() | outcomes.Page():
                said = messages.Fork(_shown(page, place))
        return said


def _generation(origin: str) -> int | None:
    try:
        return generation_of(origin)
    except DecodeError:
        return None


def _shown(page: Shown | None, place: dict[int, int]) -> messages.Evidence:
    if page is None or not page.rows:
        return messages.Evidence(then=None if page is None else _stream(page.then))
    return messages.Evidence(
        headers=tuple(
            messages.EvidenceHeader(State(row.state), row.head, place[row.leaf])
            for row in page.rows
        ),
        head=page.head,
        more=page.more,
        then=_stream(page.then),
    )


def _stream(then: bytes | None) -> StreamId | None:
    return None if then is None else StreamId(then)
