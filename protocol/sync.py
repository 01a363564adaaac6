"""One conversation between agent and hub as a state machine, both roles, without IO.

    agent: request(items) -> body  ──▶  hub: parse_request(body) -> Batch
    agent: receive(answer) -> Outcome  ◀──  hub: answer(…) -> bytes

    IDLE ──request──▶ WAITING ──receive (good)──▶ IDLE         a bad answer changes nothing;
                         └─────── request ──────▶ WAITING      asking again forgets the last one

The law of the agent's side: nothing a hub says makes it delete but a verified receipt. An item is
accepted only if a leaf names (state, id), the leaf is a batch of this agent, its path leads to the
answer's checkpoint, the log signed that, and it continues the checkpoint verified last. An answer
that says `accepted` without all of this is refused as a whole, and nothing of it is applied.
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import assert_never

from msgspec import Struct

from protocol.checkpoint import Checkpoint, verify_note
from protocol.envelope import KeyLookup, SigningKey, make, only_key, open_as
from protocol.envelope import parse as parse_envelope
from protocol.errors import Code, DecodeError, TooLargeError, VerifyError
from protocol.evidence import Proven, Shown, check_fork, check_overlap, verify_evidence
from protocol.generation import HubIdentity, LedgerError, next_generation
from protocol.ids import PrincipalId, StreamId
from protocol.leaf import State
from protocol.limits import SYNC_BYTES_MAX, SYNC_ITEMS_MAX
from protocol.messages import (
    Accepted,
    Answer,
    Batch,
    Duplicate,
    EvidenceItem,
    Fork,
    HeaderItem,
    Item,
    ItemVerdict,
    ObjectItem,
    Overlap,
    SegmentItem,
    decode_batch,
    encode_batch,
)
from protocol.receipt import LeafProof, Proofs, agent_leaf, verify_continues, verify_leaf
from protocol.report import Report
from protocol.segment import Segment, parse
from protocol.wraps import Seen

__all__ = ["AgentSync", "HubIdentity", "HubSync", "ItemResult", "LedgerError", "Outcome"]


class ItemResult(Struct, frozen=True, kw_only=True):
    """What became of one item."""

    verdict: ItemVerdict
    id: bytes  # segment id or object id; empty for an EvidenceItem
    state: State | None = None  # what is proven; None: nothing
    leaf: int | None = None  # index of the leaf that proves it
    evidence: tuple[Shown, ...] = ()  # of fork and overlap; empty: the hub showed none
    more: bool = False  # another page of evidence is there
    then: StreamId | None = None  # no page of this stream is left, but another stream is to be read

    @property
    def accepted(self) -> bool:
        """Proven: the only thing that lets the agent let go of it."""
        return self.leaf is not None


class Outcome(Struct, frozen=True, kw_only=True):
    """A verified answer; the agent applies all of it in one transaction."""

    items: tuple[ItemResult, ...]  # one each, in the order of the request
    checkpoint: Checkpoint | None  # newest verified; store it
    hub: HubIdentity  # changed if a restored hub opened a new generation
    new_generation: bool  # send again what is still held
    inbox: tuple[bytes, ...]  # envelopes, each verified by itself when applied
    time_us: int  # hub time
    offset_us: int  # hub time − the agent's clock when the answer came
    budget: int | None  # bytes that the next batch may have
    backed_up_to: int  # leaves below are in the hub's backup
    error: Code | None  # the request failed as a whole
    retry_after_s: int

    @property
    def accepted(self) -> tuple[ItemResult, ...]:
        """The items that are proven to be at the hub."""
        return tuple(item for item in self.items if item.accepted)

    @property
    def covered(self) -> tuple[Shown, ...]:
        """Headers of fork and overlap evidence whose rows are at the hub: those may be dropped."""
        return tuple(
            shown for item in self.items for shown in item.evidence if shown.state == State.BODY
        )


class _Sent(Struct, frozen=True):
    """One item of the request in flight; bodies are not kept."""

    item: HeaderItem | EvidenceItem | None  # None: an object
    id: bytes
    states: tuple[State, ...]  # what proves it


class AgentSync:
    """The agent's side of the conversation.

    agent_keys: the agent's own signing keys by id, for evidence (`envelope.only_key(public)`).
    checkpoint: the last verified one, from the database.
    """

    def __init__(
        self,
        *,
        agent: PrincipalId,
        agent_keys: KeyLookup,
        hub: HubIdentity,
        checkpoint: Checkpoint | None,
    ) -> None:
        self.agent = agent
        self.hub = hub
        self.checkpoint = checkpoint
        self._agent_keys = agent_keys
        self._sent: tuple[_Sent, ...] | None = None
        self._request = b""

    def request(
        self,
        items: Sequence[Item],
        *,
        inbox: tuple[int, int],
        software: str,
        report: Report | None = None,
    ) -> bytes:
        """The body of a batch. Raises TooLargeError over SYNC_ITEMS_MAX or SYNC_BYTES_MAX.

        inbox: generation and number of the last applied inbox message, (0, 0) for none. report:
        what is left besides these items.
        """
        if len(items) > SYNC_ITEMS_MAX:
            raise TooLargeError(Code.TOO_LARGE, field="items", value=len(items))
        last = self.checkpoint
        batch = Batch(
            agent=self.agent,
            software=software,
            items=tuple(items),
            inbox=inbox,
            checkpoint=Seen(last.origin, last.size, last.root) if last else None,
            report=report,
        )
        body = encode_batch(batch)
        if len(body) > SYNC_BYTES_MAX:
            raise TooLargeError(
                Code.TOO_LARGE, field="batch", value=len(body), expected=f"≤ {SYNC_BYTES_MAX}"
            )
        self._sent = tuple(map(_sent, items))
        self._request = sha256(body).digest()
        return body

    def receive(self, answer_raw: bytes, *, now_us: int) -> Outcome:
        """Verify an answer and say what it means.

        now_us: the agent's clock, UTC. Raises VerifyError (LedgerError with both notes) or
        DecodeError; then nothing changed, and the attempt counts as failed.
        """
        answer = self._open(answer_raw)
        sent = self._sent or ()
        failed = bool(answer.error)
        if len(answer.items) != (0 if failed else len(sent)):
            raise DecodeError(
                Code.MALFORMED, field="items", value=len(answer.items), expected=str(len(sent))
            )
        hub, checkpoint, leaves = self._ledger(answer)
        proven: dict[tuple[int, bytes], int] = {}
        for named in leaves:
            proven.update(named)
        results = tuple(
            self._result(one, verdict, proven, leaves)
            for one, verdict in zip(sent, answer.items, strict=False)
        )
        new_generation = hub.generation != self.hub.generation
        self.hub, self.checkpoint, self._sent = hub, checkpoint, None
        return Outcome(
            items=results,
            checkpoint=checkpoint,
            hub=hub,
            new_generation=new_generation,
            inbox=answer.inbox,
            time_us=answer.time,
            offset_us=answer.time - now_us,
            budget=answer.budget,
            backed_up_to=answer.backed_up_to,
            error=Code.from_key(answer.error) if failed else None,
            retry_after_s=answer.retry_after_s,
        )

    def _open(self, raw: bytes) -> Answer:
        envelope = parse_envelope(raw)
        answer = open_as(envelope, "answer", Answer, only_key(self.hub.signing_public))
        if self._sent is None or answer.request != self._request:
            raise VerifyError(Code.ANSWER_FOR_OTHER_REQUEST, field="request", value=answer.request)
        return answer

    def _ledger(self, answer: Answer) -> tuple[HubIdentity, Checkpoint | None, tuple[Proven, ...]]:
        """Verify checkpoint, history and leaves; give what each leaf names."""
        receipt = answer.receipt
        if answer.error:  # says nothing about the ledger that could be applied
            return self.hub, self.checkpoint, ()
        if receipt is None:
            if answer.generation != self.hub.generation:
                raise VerifyError(
                    Code.GENERATION_UNKNOWN, field="generation", value=answer.generation
                )
            return self.hub, self.checkpoint, ()
        if answer.generation == self.hub.generation:
            hub = self.hub
            checkpoint = verify_note(receipt.checkpoint, hub.log_vkey)
            self._continues(checkpoint, receipt)
        else:
            hub = next_generation(self.hub, self.checkpoint, answer.generation, receipt)
            checkpoint = verify_note(receipt.checkpoint, hub.log_vkey)
        leaves = tuple(_named(proof, checkpoint, self.agent) for proof in receipt.proofs)
        return hub, checkpoint, leaves

    def _continues(self, checkpoint: Checkpoint, receipt: Proofs) -> None:
        if self.checkpoint is None:
            return
        try:
            verify_continues(checkpoint, self.checkpoint, receipt.consistency)
        except VerifyError as error:
            raise LedgerError(error, self.checkpoint.text, receipt.checkpoint) from error

    def _result(
        self,
        sent: _Sent,
        verdict: ItemVerdict,
        proven: Mapping[tuple[int, bytes], int],
        leaves: tuple[Proven, ...],
    ) -> ItemResult:
        if isinstance(verdict, Accepted | Duplicate):
            for state in sent.states:
                leaf = proven.get((state, sent.id))
                if leaf is not None:
                    return ItemResult(verdict=verdict, id=sent.id, state=state, leaf=leaf)
            raise VerifyError(
                Code.PROOF_INVALID, field="receipt", value=sent.id, expected="a leaf that names it"
            )
        if isinstance(verdict, Fork | Overlap) and verdict.evidence.headers:
            shown = verify_evidence(verdict.evidence, self.agent, self._agent_keys, leaves)
            self._check_shown(sent.item, verdict, shown)
            return ItemResult(
                verdict=verdict,
                id=sent.id,
                evidence=shown,
                more=verdict.evidence.more,
                then=verdict.evidence.then,
            )
        if isinstance(verdict, Fork) and isinstance(sent.item, EvidenceItem):
            return ItemResult(verdict=verdict, id=sent.id, then=verdict.evidence.then)
        return ItemResult(verdict=verdict, id=sent.id)

    def _check_shown(
        self,
        item: HeaderItem | EvidenceItem | None,
        verdict: Fork | Overlap,
        shown: tuple[Shown, ...],
    ) -> None:
        if item is None or (isinstance(item, EvidenceItem) and isinstance(verdict, Overlap)):
            raise VerifyError(Code.PROOF_INVALID, field="verdict", value=type(verdict).__name__)
        if isinstance(verdict, Fork):
            asked = item if isinstance(item, EvidenceItem) else self._own(item)
            check_fork(shown, verdict.evidence, asked)
        elif isinstance(item, HeaderItem):
            check_overlap(shown, self._own(item))

    def _own(self, item: HeaderItem) -> Segment:
        unverified = parse(item.raw, body=False)
        public = self._agent_keys(unverified.prelude.signer)
        if public is None:
            raise VerifyError(Code.WRONG_SIGNER, field="item", value=unverified.prelude.signer)
        return unverified.verify(public)


class HubSync:
    """The hub's side of the conversation: reads batches, signs answers."""

    def __init__(self, *, signer: SigningKey) -> None:
        self._signer = signer

    def parse_request(self, body: bytes) -> Batch:
        """Read a body whose signature and digest were verified. Raises DecodeError."""
        return decode_batch(body)

    def answer(self, answer: Answer) -> bytes:
        """Sign an answer. Raises TooLargeError over ANSWER_BYTES_MAX."""
        return make("answer", answer, self._signer).raw


def _sent(item: Item) -> _Sent:
    match item:
        case ObjectItem():
            return _Sent(None, parse_envelope(item.raw).object_id, (State.OBJECT,))
        case SegmentItem():
            unverified = parse(item.raw)
            head = HeaderItem(item.raw[: unverified.prelude.head_bytes], "")
            return _Sent(head, unverified.id, (State.BODY,))
        case HeaderItem():
            # A body that arrived after all proves more than was asked for.
            return _Sent(item, parse(item.raw, body=False).id, (State.HEADER, State.BODY))
        case EvidenceItem():
            return _Sent(item, b"", ())
        case _:
            assert_never(item)


def _named(proof: LeafProof, checkpoint: Checkpoint, agent: PrincipalId) -> Proven:
    """What a proven leaf of this agent names. Raises VerifyError."""
    leaf = agent_leaf(verify_leaf(proof, checkpoint), agent)
    return {(int(state), item): proof.index for state, item in leaf.items}
