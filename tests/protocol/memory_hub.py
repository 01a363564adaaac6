"""A hub that keeps everything in memory: chain, ledger, evidence; the fake other end of a link."""

from dataclasses import dataclass, field
from hashlib import sha256

from protocol.chain import Head, Verdict, judge, rows_overlap
from protocol.checkpoint import Checkpoint, log_origin, make_note, parse_note, vkey_text
from protocol.envelope import only_key
from protocol.envelope import parse as parse_envelope
from protocol.errors import ShanmenError
from protocol.generation import HubIdentity
from protocol.leaf import State, batch_leaf, generation_leaf
from protocol.merkle import Frontier, consistency_path, inclusion_path, leaf_hash
from protocol.messages import (
    Accepted,
    Answer,
    Duplicate,
    Evidence,
    EvidenceHeader,
    EvidenceItem,
    Fork,
    HeaderItem,
    Missing,
    ObjectItem,
    Overlap,
    SegmentItem,
    refused,
)
from protocol.receipt import LeafProof, Proofs, Receipt
from protocol.segment import Segment, check_body, parse
from protocol.sync import AgentSync, HubSync
from tests.protocol.makers import AGENT, HUB, LOG, NOW_US


class MemoryLedger:
    """A Merkle log: leaves and the roots of complete subtrees."""

    def __init__(self, generation: int = 1) -> None:
        self.origin = log_origin(HUB.principal, generation)
        self.generation = generation
        self.leaves: list[bytes] = []
        self.frontier = Frontier()
        self.hashes: dict[tuple[int, int], bytes] = {}

    def append(self, leaf: bytes) -> int:
        for level, index, digest in self.frontier.append(leaf_hash(leaf)):
            self.hashes[level, index] = digest
        self.leaves.append(leaf)
        return len(self.leaves) - 1

    def read(self, level: int, index: int) -> bytes:
        return self.hashes[level, index]

    def note(self) -> str:
        return make_note(self.origin, self.frontier.size, self.frontier.root(), LOG)

    def proof(self, index: int) -> LeafProof:
        path = tuple(inclusion_path(self.read, index, self.frontier.size))
        return LeafProof(leaf=self.leaves[index], index=index, path=path)

    def receipt(self, index: int) -> Receipt:
        proof = self.proof(index)
        return Receipt(leaf=proof.leaf, index=index, path=proof.path, checkpoint=self.note())


@dataclass
class Stored:
    segment: Segment
    state: State
    leaf: int


@dataclass
class MemoryHub:
    generation: int = 1
    streams: dict[tuple[bytes, bytes, bytes], list[Stored]] = field(default_factory=dict)
    objects: dict[bytes, int] = field(default_factory=dict)
    page: int = 256

    def __post_init__(self) -> None:
        self.ledger = MemoryLedger(self.generation)
        self.ledger.append(batch_leaf(b"some-other-agent", [(State.OBJECT, b"\x09" * 32)], NOW_US))
        self.sync = HubSync(signer=HUB)
        self.answers = 0
        self.statements: list[Receipt] = []

    @property
    def identity(self) -> HubIdentity:
        return HubIdentity(
            hub=HUB.principal,
            signing_public=HUB.public,
            log_vkey=vkey_text(self.ledger.origin, LOG.public),
            generation=self.ledger.generation,
        )

    def agent(self, checkpoint: Checkpoint | None = None) -> AgentSync:
        return AgentSync(
            agent=AGENT.principal,
            agent_keys=only_key(AGENT.public),
            hub=self.identity,
            checkpoint=checkpoint or parse_note(self.ledger.note()),
        )

    def restore(self, ledger_size: int) -> None:
        """Open a new generation on a backup that had only the first leaves."""
        old = Frontier()
        for leaf in self.ledger.leaves[:ledger_size]:
            old.append(leaf_hash(leaf))
        previous = self.ledger
        self.ledger = MemoryLedger(previous.generation + 1)
        self.ledger.append(generation_leaf(previous.origin, old.size, old.root(), "backup", NOW_US))
        self.streams.clear()
        self.objects.clear()

    # --- one exchange ------------------------------------------------------------------------

    def handle(self, body: bytes) -> bytes:
        return self.sync.answer(self.payload(body))

    def payload(self, body: bytes) -> Answer:
        batch = self.sync.parse_request(body)
        accepted: list[tuple[State, bytes]] = []
        self._staged: list[tuple[object, object]] = []
        self._proofs: dict[int, None] = {}
        verdicts = [self._judge(item, accepted) for item in batch.items]
        if accepted:
            index = self.ledger.append(batch_leaf(batch.agent, accepted, NOW_US))
            self._proofs[index] = None
            for commit in self._staged:
                commit(index)  # type: ignore[operator]
        order = sorted(self._proofs)
        verdicts = [self._evidence(v, order) for v in verdicts]
        seen = batch.checkpoint
        same = seen is not None and seen.origin == self.ledger.origin
        consistency = (
            consistency_path(self.ledger.read, seen.size, self.ledger.frontier.size)
            if same and seen is not None and seen.size <= self.ledger.frontier.size
            else []
        )
        statements = () if same or seen is None else (self.ledger.receipt(0),)
        self.answers += 1
        return Answer(
            request=sha256(body).digest(),
            generation=self.ledger.generation,
            items=tuple(verdicts),
            receipt=Proofs(
                checkpoint=self.ledger.note(),
                proofs=tuple(map(self.ledger.proof, order)),
                consistency=tuple(consistency),
                statements=statements,
            ),
            time=NOW_US,
            budget=8 * 1024 * 1024,
            nonce=self.answers.to_bytes(16, "big"),
        )

    def _judge(self, item: object, accepted: list[tuple[State, bytes]]) -> object:
        if isinstance(item, ObjectItem):
            object_id = parse_envelope(item.raw).object_id
            if object_id in self.objects:
                return self._duplicate(self.objects[object_id])
            accepted.append((State.OBJECT, object_id))
            self._staged.append(lambda index: self.objects.__setitem__(object_id, index))
            self.objects[object_id] = -1
            return Accepted()
        if isinstance(item, EvidenceItem):
            key = (AGENT.principal, item.resource, item.stream)
            return ("fork", key, 0 if item.after is None else item.after + 1)
        assert isinstance(item, SegmentItem | HeaderItem)
        body = isinstance(item, SegmentItem)
        try:
            segment = parse(item.raw, body=body).verify(AGENT.public)
            if body:
                check_body(segment)
        except ShanmenError as error:
            return refused(error.code)
        return self._place(segment, State.BODY if body else State.HEADER, accepted)

    def _duplicate(self, leaf: int) -> object:
        if leaf >= 0:
            self._proofs[leaf] = None
        return Duplicate()

    def _place(self, segment: Segment, state: State, accepted: list[tuple[State, bytes]]) -> object:
        header = segment.header
        key = (header.agent, header.resource, header.stream)
        others = [one for one, many in self.streams.items() if one[:2] == key[:2] and many]
        if others and not self.streams.get(key) and header.seq == 0 and header.continues is None:
            return ("fork", others[0], 0)
        stored = self.streams.setdefault(key, [])
        head = Head(len(stored) - 1, stored[-1].segment.id) if stored else None
        known = stored[header.seq].segment.id if header.seq < len(stored) else None
        verdict = judge(head, header.seq, header.prev, segment.id, known)
        if verdict is Verdict.GAP:
            return Missing(head.seq if head else None)
        if verdict is Verdict.FORK:
            return ("fork", key, min(header.seq, len(stored) - 1))
        if verdict is Verdict.DUPLICATE:
            there = stored[header.seq]
            if there.state is State.HEADER and state is State.BODY:
                there.state = State.BODY
                return self._take(there, accepted)
            return self._duplicate(there.leaf)
        others = [
            one
            for (agent, resource, _), many in self.streams.items()
            for one in many
            if (agent, resource) == key[:2] and rows_overlap(one.segment.header.rows, header.rows)
        ]
        if others:
            return ("overlap", others)
        one = Stored(segment, state, -1)
        stored.append(one)
        return self._take(one, accepted)

    def _take(self, one: Stored, accepted: list[tuple[State, bytes]]) -> object:
        accepted.append((one.state, one.segment.id))
        self._staged.append(lambda index: setattr(one, "leaf", index))
        return Accepted()

    def _evidence(self, verdict: object, order: list[int]) -> object:
        if not isinstance(verdict, tuple):
            return verdict
        if verdict[0] == "overlap":
            many, head, more, then = verdict[1], None, False, None
        else:
            stored = self.streams[verdict[1]]
            many = stored[verdict[2] : verdict[2] + self.page]
            head = (len(stored) - 1, stored[-1].segment.id)
            more = verdict[2] + self.page < len(stored)
            then = None if more else self._following(verdict[1])
        for one in many:
            if one.leaf not in order:
                order.append(one.leaf)
        headers = tuple(
            EvidenceHeader(one.state, one.segment.head, order.index(one.leaf)) for one in many
        )
        evidence = Evidence(headers=headers, head=head, more=more, then=then)
        return Overlap(evidence) if verdict[0] == "overlap" else Fork(evidence)

    def _following(self, key: tuple[bytes, bytes, bytes]) -> bytes | None:
        streams = [one for one, many in self.streams.items() if one[:2] == key[:2] and many]
        after = streams[streams.index(key) + 1 :]
        return after[0][2] if after else None
