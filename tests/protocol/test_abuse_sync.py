"""Abuse of answers and receipts, by name: a hub (or who sits on its line) tries to make an agent let go."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from protocol import wire
from protocol.checkpoint import make_note
from protocol.envelope import make
from protocol.errors import Code, ShanmenError, TooLargeError, VerifyError
from protocol.header import Continues
from protocol.leaf import State, batch_leaf, event_leaf, generation_leaf, parse_leaf
from protocol.limits import LEAF_BYTES_MAX
from protocol.merkle import Frontier, consistency_path, leaf_hash
from protocol.messages import (
    Accepted,
    Answer,
    Evidence,
    EvidenceHeader,
    EvidenceItem,
    Fork,
    HeaderItem,
    Later,
    ObjectItem,
    Overlap,
    Refused,
    SegmentItem,
)
from protocol.receipt import LeafProof, Proofs
from protocol.segment import header_only, parse
from protocol.sync import AgentSync, LedgerError
from tests.protocol.bend import header_list, resigned
from tests.protocol.makers import (
    AGENT,
    LOG,
    NOW_US,
    OTHER_AGENT,
    RESOURCE,
    STRANGER,
    STREAM,
    chain_of,
    columns,
    sealed,
)
from tests.protocol.memory_hub import MemoryHub, MemoryLedger
from tests.protocol.objects import registration as example_registration


class Case:
    """One agent, one hub, one request in flight with the hub's honest answer."""

    def __init__(self, *items, hub: MemoryHub | None = None, sync: AgentSync | None = None) -> None:
        self.hub = hub or MemoryHub()
        self.segments = chain_of(4)
        self.sync = sync or self.hub.agent()
        self.ask(*(items or (SegmentItem(self.segments[0].raw),)))

    def ask(self, *items) -> None:
        self.body = self.sync.request(items, inbox=(1, 0), software="a")
        self.honest = self.hub.payload(self.body)

    def send(self, *segments) -> None:
        """A whole honest exchange."""
        body = self.sync.request([SegmentItem(s.raw) for s in segments], inbox=(1, 0), software="a")
        assert len(self.sync.receive(self.hub.handle(body), now_us=NOW_US).accepted) == len(
            segments
        )

    def receive(self, answer: Answer):
        return self.sync.receive(self.hub.sync.answer(answer), now_us=NOW_US)

    def refuses(self, answer: Answer, code: Code | None = None) -> ShanmenError:
        """Refused, and nothing of the agent's state moved; the honest answer still counts."""
        before = (self.sync.checkpoint, self.sync.hub)
        with pytest.raises(ShanmenError) as caught:
            self.receive(answer)
        assert (self.sync.checkpoint, self.sync.hub) == before
        if code:
            assert caught.value.code is code
        return caught.value

    def with_receipt(self, **changes: object) -> Answer:
        return replace(self.honest, receipt=replace(self.honest.receipt, **changes))

    def with_proof(self, **changes: object) -> Answer:
        (proof,) = self.honest.receipt.proofs
        return self.with_receipt(proofs=(replace(proof, **changes),))


def forked() -> Case:
    """The agent forks at seq 1; the hub has four segments there."""
    case = Case()
    case.receive(case.honest)
    case.send(*case.segments[1:])
    other = sealed(columns(5, 50), seq=1, prev=case.segments[0].id, seed=50)
    case.ask(SegmentItem(other.raw))
    return case


def evidence_of(case: Case) -> Evidence:
    (verdict,) = case.honest.items
    assert isinstance(verdict, Fork)
    return verdict.evidence


def with_evidence(case: Case, **changes: object) -> Answer:
    return replace(case.honest, items=(Fork(replace(evidence_of(case), **changes)),))


def test_answer_unsigned():
    case = Case()
    honest = case.hub.sync.answer(case.honest)
    envelope = wire.decode_any(honest, limit=10**6)
    for wrong in (
        make("answer", case.honest, STRANGER).raw,
        make("answer", case.honest, AGENT).raw,
        wire.encode([*envelope[:3], []]),
        wire.encode([*envelope[:2], envelope[2] + b"\0", envelope[3]]),
        wire.encode([1, "time", *envelope[2:]]),
        wire.encode(case.honest),
        b"",
        honest[:-1],
    ):
        with pytest.raises(ShanmenError):
            case.sync.receive(wrong, now_us=0)
    assert len(case.receive(case.honest).accepted) == 1


def test_answer_for_other_request():
    case = Case()
    first = case.honest
    case.ask(SegmentItem(case.segments[0].raw), SegmentItem(case.segments[1].raw))
    case.refuses(first, Code.ANSWER_FOR_OTHER_REQUEST)
    case.receive(case.honest)
    case.refuses(case.honest, Code.ANSWER_FOR_OTHER_REQUEST)  # the same answer a second time


def test_answer_with_fewer_or_more_verdicts():
    case = Case()
    case.refuses(replace(case.honest, items=()))
    case.refuses(replace(case.honest, items=(Accepted(), Accepted())))
    case.refuses(replace(case.honest, error="busy"))  # failed as a whole, and yet verdicts


def test_verdict_cannot_delete():
    """No verdict without a leaf makes an item count; those that refuse it never do."""
    case = Case()
    case.refuses(replace(case.honest, receipt=None), Code.PROOF_INVALID)
    case.refuses(case.with_receipt(proofs=()), Code.PROOF_INVALID)
    for verdict in (Refused("grade-forbidden"), Later(5), Fork(Evidence()), Overlap(Evidence())):
        case.ask(SegmentItem(case.segments[0].raw))
        outcome = case.receive(replace(case.honest, items=(verdict,), receipt=None))
        assert outcome.accepted == ()
        assert outcome.covered == ()


def test_header_only_receipt_keeps_body():
    """A leaf that has the header only proves nothing for a body that was sent."""
    hub = MemoryHub()
    (segment, *_) = chain_of(1)
    first = Case(HeaderItem(header_only(segment), "damaged"), hub=hub)
    assert first.receive(first.honest).items[0].state is State.HEADER
    case = Case(SegmentItem(segment.raw), hub=hub, sync=first.sync)
    case.honest = replace(
        case.honest, receipt=replace(case.honest.receipt, proofs=(hub.ledger.proof(1),))
    )
    case.refuses(case.honest, Code.PROOF_INVALID)


def test_receipt_forged():
    case = Case()
    origin, size = case.hub.ledger.origin, case.hub.ledger.frontier.size
    root = case.hub.ledger.frontier.root()
    for note in (
        make_note(origin, size, root, STRANGER),
        make_note(origin.replace("hub", "bub"), size, root, LOG),
        make_note(origin, size, bytes(32), LOG),
        case.honest.receipt.checkpoint.replace(f"\n{size}\n", f"\n{size + 1}\n"),
        case.honest.receipt.checkpoint[:-30] + case.honest.receipt.checkpoint[-29:],
        "",
    ):
        case.refuses(case.with_receipt(checkpoint=note))
    flipped = bytearray(case.honest.receipt.proofs[0].path[0])
    flipped[5] ^= 1
    case.refuses(case.with_proof(path=(bytes(flipped),)), Code.PROOF_INVALID)
    case.refuses(
        case.with_proof(
            leaf=batch_leaf(AGENT.principal, [(State.BODY, case.segments[1].id)], NOW_US)
        )
    )


def test_receipt_for_other_leaf():
    """A true leaf of this agent, truly in the tree, that names something else."""
    case = Case()
    case.receive(case.honest)
    case.ask(SegmentItem(case.segments[1].raw))
    case.refuses(case.with_receipt(proofs=(case.hub.ledger.proof(1),)), Code.PROOF_INVALID)
    case.refuses(case.with_proof(index=1))
    assert case.receive(case.honest).accepted


def test_receipt_path_wrong_length():
    case = Case()
    (proof,) = case.honest.receipt.proofs
    case.refuses(case.with_proof(path=(*proof.path, bytes(32))), Code.PROOF_INVALID)
    case.refuses(case.with_proof(path=proof.path[:-1]), Code.PROOF_INVALID)
    case.refuses(case.with_proof(path=(proof.path[0][:31],)))
    case.refuses(case.with_proof(index=2**62))
    case.refuses(case.with_proof(path=(bytes(32),) * 64))


def test_receipt_with_old_checkpoint():
    """The leaf is proven under a checkpoint that the agent has already seen grow."""
    case = Case()
    old = case.honest
    case.receive(case.honest)
    case.send(case.segments[1])
    case.ask(SegmentItem(case.segments[0].raw))
    stale = replace(case.honest, receipt=replace(old.receipt))
    error = case.refuses(stale, Code.TREE_SMALLER)
    assert isinstance(error, LedgerError)
    # Path to the old root under the new checkpoint, and the other way round.
    case.refuses(case.with_receipt(proofs=old.receipt.proofs), Code.PROOF_INVALID)


def test_smaller_tree_same_generation():
    case = Case()
    old = case.honest.receipt
    case.receive(case.honest)
    case.send(*case.segments[1:])
    case.ask()
    error = case.refuses(case.with_receipt(checkpoint=old.checkpoint, proofs=(), consistency=()))
    assert isinstance(error, LedgerError)
    assert error.code is Code.TREE_SMALLER
    assert (error.old, error.new) == (case.sync.checkpoint.text, old.checkpoint)


def rewritten(hub: MemoryHub, size: int) -> MemoryLedger:
    """Another history of the same origin and size."""
    ledger = MemoryLedger(hub.ledger.generation)
    for n in range(size):
        ledger.append(event_leaf("grant", b"%032d" % n, b"h" * 32, NOW_US))
    return ledger


def test_checkpoint_rolled_back():
    """History rewritten: same size or larger, signed by the true key; no proof can hide it."""
    case = Case()
    case.receive(case.honest)
    case.send(case.segments[1])
    seen = case.sync.checkpoint
    for size in (seen.size, seen.size + 1, seen.size + 5):
        case.ask()
        other = rewritten(case.hub, size)
        error = case.refuses(case.with_receipt(checkpoint=other.note(), proofs=(), consistency=()))
        assert isinstance(error, LedgerError)
        assert error.code is Code.CONSISTENCY_INVALID
        assert (error.old, error.new) == (seen.text, other.note())


def test_consistency_proof_missing():
    case = Case()
    case.receive(case.honest)
    case.ask(SegmentItem(case.segments[1].raw))
    assert case.honest.receipt.consistency
    assert isinstance(case.refuses(case.with_receipt(consistency=())), LedgerError)
    longer = (*case.honest.receipt.consistency, bytes(32))
    assert isinstance(case.refuses(case.with_receipt(consistency=longer)), LedgerError)
    assert case.receive(case.honest).accepted


def appended(case: Case, leaf: bytes) -> Answer:
    """The honest hub's ledger with one more leaf, which is given as the proof."""
    ledger = case.hub.ledger
    index = ledger.append(leaf)
    seen = case.sync.checkpoint
    return case.with_receipt(
        checkpoint=ledger.note(),
        proofs=(ledger.proof(index),),
        consistency=tuple(consistency_path(ledger.read, seen.size, ledger.frontier.size)),
    )


def test_leaf_of_other_agent():
    case = Case()
    leaf = batch_leaf(OTHER_AGENT.principal, [(State.BODY, case.segments[0].id)], NOW_US)
    case.refuses(appended(case, leaf), Code.WRONG_AGENT)


def test_leaf_kind_confusion():
    """Leaves of other kinds that carry the same 32 bytes prove no delivery."""
    case = Case()
    segment = case.segments[0].id
    for leaf in (
        event_leaf("grant", segment, segment, NOW_US),
        event_leaf("batch-", segment, segment, NOW_US),
        generation_leaf(case.hub.ledger.origin, 1, segment, "x", NOW_US),
        batch_leaf(AGENT.principal, [(State.OBJECT, segment)], NOW_US),
        batch_leaf(AGENT.principal, [(State.HEADER, segment)], NOW_US),
    ):
        case.refuses(appended(case, leaf), Code.PROOF_INVALID)
    for leaf in (
        b"",
        b"\xc0",
        wire.encode([1, "batch"]),
        wire.encode([1, "batch", AGENT.principal, [[1, segment]], NOW_US, 0]),
    ):
        case.refuses(appended(case, leaf))


def test_leaf_oversize():
    most = [(State.BODY, b"%032d" % n) for n in range(1024)]
    assert len(batch_leaf(AGENT.principal, most, NOW_US)) <= LEAF_BYTES_MAX
    with pytest.raises(ShanmenError):
        batch_leaf(AGENT.principal, [*most, most[0]], NOW_US)
    with pytest.raises(TooLargeError):
        parse_leaf(bytes(LEAF_BYTES_MAX + 1))
    with pytest.raises(ShanmenError):
        event_leaf("grant", b"o" * 32, b"h" * 70_000, NOW_US)
    case = Case()
    case.refuses(case.with_proof(leaf=bytes(LEAF_BYTES_MAX + 1)))


def test_fork_answer_without_evidence():
    """It drops nothing: the agent opens a new stream and alarms."""
    case = forked()
    for verdict in (
        Fork(Evidence()),
        Fork(Evidence(head=(3, case.segments[3].id))),
        Overlap(Evidence()),
    ):
        case.ask(SegmentItem(sealed(columns(5, 50), seq=1, prev=case.segments[0].id, seed=50).raw))
        outcome = case.receive(replace(case.honest, items=(verdict,), receipt=None))
        assert outcome.covered == ()
        assert outcome.items[0].evidence == ()
        assert not outcome.items[0].accepted


def test_fork_evidence_must_be_the_agents_own():
    case = forked()
    (first, *rest) = evidence_of(case).headers
    foreign = sealed(columns(5, 9), seq=1, prev=case.segments[0].id, signer=OTHER_AGENT)
    lent = resigned(foreign, header=header_list(foreign), signer=AGENT)  # our key, their agent id
    for head in (
        foreign.head,
        lent[: len(foreign.head)],
        first.head[:-1],
        first.head[:-64] + bytes(64),
        case.segments[1].raw,
    ):
        case.refuses(
            with_evidence(case, headers=(EvidenceHeader(State.BODY, head, first.proof), *rest))
        )


def test_fork_evidence_of_another_agent_that_a_leaf_names():
    """Our key signed a header under another agent's id, and the hub put it into a leaf of ours."""
    case = forked()
    foreign = sealed(columns(5, 9), seq=1, prev=case.segments[0].id, agent=OTHER_AGENT.principal)
    index = case.hub.ledger.append(batch_leaf(AGENT.principal, [(State.BODY, foreign.id)], NOW_US))
    ledger, seen = case.hub.ledger, case.sync.checkpoint
    path = consistency_path(ledger.read, seen.size, ledger.frontier.size)
    answer = with_evidence(
        case,
        headers=(EvidenceHeader(State.BODY, foreign.head, 0),),
        head=(1, foreign.id),
    )
    receipt = Proofs(
        checkpoint=ledger.note(), proofs=(ledger.proof(index),), consistency=tuple(path)
    )
    case.refuses(replace(answer, receipt=receipt), Code.WRONG_AGENT)


def test_fork_evidence_must_be_proven():
    case = forked()
    headers = evidence_of(case).headers
    unproven = sealed(columns(5, 77), seq=1, prev=case.segments[0].id, seed=77)
    for wrong in (
        (EvidenceHeader(State.BODY, unproven.head, 0), *headers[1:]),  # ours, never accepted
        tuple(replace(h, proof=99) for h in headers),
        (EvidenceHeader(State.HEADER, headers[0].head, headers[0].proof), *headers[1:]),
        (EvidenceHeader(State.OBJECT, headers[0].head, headers[0].proof), *headers[1:]),
    ):
        case.refuses(with_evidence(case, headers=wrong), Code.PROOF_INVALID)
    case.refuses(replace(case.honest, receipt=None), Code.PROOF_INVALID)


def test_covered_list_shortened():
    """A header left out, at the front, in the middle or at the end, spoils the whole list."""
    case = forked()
    headers = evidence_of(case).headers
    assert len(headers) == 3
    for kept in (
        headers[1:],
        headers[:-1],
        (headers[0], headers[2]),
        headers[::-1],
        (*headers, headers[-1]),
    ):
        case.refuses(with_evidence(case, headers=tuple(kept)), Code.PROOF_INVALID)
    case.refuses(with_evidence(case, head=None))
    case.refuses(with_evidence(case, more=True))  # promises a page after the head
    assert len(case.receive(case.honest).covered) == 3


def test_evidence_of_another_stream_or_for_an_object():
    case = forked()
    case.ask(ObjectItem(example_registration().raw))
    fork = forked()
    case.refuses(replace(case.honest, items=fork.honest.items, receipt=fork.honest.receipt))
    other = forked()
    stray = sealed(columns(5, 50), seq=1, prev=b"\x05" * 32, seed=50, stream=b"another-stream-1")
    other.sync.request([SegmentItem(stray.raw)], inbox=(1, 0), software="a")
    answer = replace(other.honest, request=other.sync._request)
    with pytest.raises(VerifyError):
        other.receive(answer)
    page = forked()
    page.sync.request([EvidenceItem(RESOURCE, STREAM, 2)], inbox=(1, 0), software="a")
    with pytest.raises(VerifyError):  # a page that begins before the one asked for
        page.receive(replace(page.honest, request=page.sync._request))


def test_evidence_of_another_stream_is_for_one_that_begins_anew():
    """Only a stream's first segment that continues nothing may be shown the resource's others."""
    case = forked()
    begun = dict(seq=0, seed=50, stream=b"another-stream-1", rows=[(b"run-id-9", 0, 4)])
    case.ask(SegmentItem(sealed(columns(5, 50), **begun).raw))
    headers = evidence_of(case).headers
    for kept in (headers[1:], headers[:-1], (headers[0], *headers[2:])):
        case.refuses(with_evidence(case, headers=kept), Code.PROOF_INVALID)
    case.refuses(with_evidence(case, more=True, then=b"another-stream-2"))
    outcome = case.receive(case.honest)
    assert [one.id for one in outcome.covered] == [one.id for one in case.segments]
    said = Continues(STREAM, 3, case.segments[3].id, "fork")
    for changes in (dict(continues=said), dict(seq=1, prev=case.segments[0].id)):
        case.sync.request(
            [SegmentItem(sealed(columns(5, 50), **begun | changes).raw)], inbox=(1, 0), software="a"
        )
        answer = replace(case.honest, request=case.sync._request)
        with pytest.raises(VerifyError):
            case.receive(answer)


def test_fork_verdict_for_the_very_segment_that_was_accepted():
    case = forked()
    case.sync.request([SegmentItem(case.segments[1].raw)], inbox=(1, 0), software="a")
    with pytest.raises(VerifyError):
        case.receive(replace(case.honest, request=case.sync._request))


def test_overlap_must_overlap():
    case = forked()
    evidence = evidence_of(case)
    far = sealed(
        columns(5, 50),
        seq=0,
        seed=50,
        stream=b"another-stream-1",
        rows=[(b"run-id-8", 90_000, 90_004)],
    )
    case.sync.request([SegmentItem(far.raw)], inbox=(1, 0), software="a")
    with pytest.raises(VerifyError):
        case.receive(replace(case.honest, request=case.sync._request, items=(Overlap(evidence),)))


def test_resume_forged():
    """A watermark that the agent did not sign never comes back to its driver."""
    case = Case()
    case.receive(case.honest)
    with_resume = sealed(
        columns(5, 3), seq=1, prev=case.segments[0].id, resume=b"sealed watermark 1"
    )
    case.send(with_resume)
    case.ask(SegmentItem(sealed(columns(5, 50), seq=1, prev=case.segments[0].id, seed=50).raw))
    header = header_list(with_resume)
    header[16] = b"watermark of the thief"
    (entry,) = evidence_of(case).headers
    forged: list[Callable[[], bytes]] = [
        lambda: resigned(with_resume, header=header, signer=STRANGER),
        lambda: with_resume.head.replace(b"watermark 1", b"watermark 2") + bytes(with_resume.body),
        lambda: resigned(with_resume, header=header),  # even with the agent's key: in no leaf
    ]
    for make_raw in forged:
        raw = make_raw()
        head = raw[: len(raw) - len(with_resume.body)]
        bad = with_evidence(
            case, headers=(replace(entry, head=head),), head=(1, parse(head, body=False).id)
        )
        case.refuses(bad)
    outcome = case.receive(case.honest)
    assert [shown.header.resume for shown in outcome.covered] == [b"sealed watermark 1"]


def statement_case() -> Case:
    case = Case()
    case.receive(case.honest)
    case.send(*case.segments[1:])
    case.hub.restore(ledger_size=1)
    case.ask(SegmentItem(case.segments[0].raw))
    return case


def test_restored_hub_without_statement():
    case = statement_case()
    case.refuses(case.with_receipt(statements=()), Code.GENERATION_UNKNOWN)
    case.refuses(replace(case.honest, receipt=None), Code.GENERATION_UNKNOWN)
    case.refuses(replace(case.honest, generation=1))
    case.refuses(replace(case.honest, generation=3), Code.GENERATION_UNKNOWN)
    assert case.receive(case.honest).new_generation


def test_generation_statement_must_name_the_ledger_that_was_left():
    for origin, index in ((None, 1), ("shanmen-hub/other/1", 0)):
        case = statement_case()
        ledger = MemoryLedger(2)
        ledger.append(
            generation_leaf(origin or case.sync.hub.log_vkey.split("+")[0], 1, b"r" * 32, "x", 0)
        )
        ledger.append(ledger.leaves[0])
        case.refuses(
            case.with_receipt(
                checkpoint=ledger.note(), proofs=(), statements=(ledger.receipt(index),)
            ),
            Code.GENERATION_UNKNOWN,
        )
    case = statement_case()
    ledger = MemoryLedger(2)
    ledger.append(event_leaf("grant", b"o" * 32, b"h" * 32, 0))
    case.refuses(
        case.with_receipt(checkpoint=ledger.note(), proofs=(), statements=(ledger.receipt(0),)),
        Code.GENERATION_UNKNOWN,
    )


def test_generation_statement_cannot_rewrite_what_was_verified():
    """It names at least as many leaves as the agent verified: then it must continue them."""
    case = statement_case()
    seen = case.sync.checkpoint
    for size, root in ((seen.size, b"r" * 32), (seen.size + 3, b"r" * 32)):
        ledger = MemoryLedger(2)
        ledger.append(generation_leaf(seen.origin, size, root, "x", 0))
        error = case.refuses(
            case.with_receipt(checkpoint=ledger.note(), proofs=(), statements=(ledger.receipt(0),))
        )
        assert isinstance(error, LedgerError)


def test_a_generation_cannot_go_back():
    case = statement_case()
    case.receive(case.honest)
    old = MemoryHub()
    case.ask()
    case.refuses(
        replace(
            case.honest,
            generation=1,
            receipt=Proofs(checkpoint=old.ledger.note(), statements=(old.ledger.receipt(0),)),
        )
    )


def test_frontier_of_a_checkpoint_is_what_the_agent_keeps():
    case = Case()
    tree = Frontier()
    for leaf in case.hub.ledger.leaves:
        tree.append(leaf_hash(leaf))
    assert case.receive(case.honest).checkpoint.root == tree.root()
    assert isinstance(case.honest.receipt.proofs[0], LeafProof)
