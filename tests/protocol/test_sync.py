"""Both ends of a sync joined over a fake link."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from protocol import wire
from protocol.chain import NO_SEGMENT
from protocol.checkpoint import parse_note
from protocol.errors import Code, DecodeError, ShanmenError, TooLargeError
from protocol.header import Continues
from protocol.leaf import State, batch_leaf, event_leaf, generation_leaf, parse_leaf
from protocol.limits import SYNC_ITEMS_MAX
from protocol.messages import (
    Accepted,
    Batch,
    Duplicate,
    EvidenceItem,
    Fork,
    HeaderItem,
    Missing,
    ObjectItem,
    Overlap,
    Refused,
    SegmentItem,
    decode_batch,
    encode_batch,
    refused,
)
from protocol.receipt import Receipt, verify_receipt
from protocol.segment import Segment, header_only
from protocol.sync import AgentSync, Outcome
from tests.protocol.makers import AGENT, NOW_US, RESOURCE, RUN, STREAM, chain_of, columns, sealed
from tests.protocol.memory_hub import MemoryHub, MemoryLedger
from tests.protocol.objects import registration as example_registration


def exchange(agent: AgentSync, hub: MemoryHub, *items) -> Outcome:
    body = agent.request(items, inbox=(1, 0), software="shanmen-agent 0")
    return agent.receive(hub.handle(body), now_us=NOW_US - 5)


def kinds(outcome: Outcome) -> list[type]:
    return [type(item.verdict) for item in outcome.items]


def test_a_batch_becomes_one_leaf_and_one_checkpoint():
    hub = MemoryHub()
    agent, segments = hub.agent(), chain_of(3)
    before = hub.ledger.frontier.size
    outcome = exchange(agent, hub, *(SegmentItem(s.raw) for s in segments))
    assert kinds(outcome) == [Accepted] * 3
    assert [item.id for item in outcome.accepted] == [s.id for s in segments]
    assert {item.leaf for item in outcome.items} == {before}
    assert {item.state for item in outcome.items} == {State.BODY}
    assert outcome.checkpoint is not None
    assert outcome.checkpoint.size == before + 1 == agent.checkpoint.size
    assert (outcome.offset_us, outcome.error, outcome.new_generation) == (5, None, False)


def test_duplicates_are_proven_under_todays_checkpoint():
    hub = MemoryHub()
    agent, (one, two) = hub.agent(), chain_of(2)
    exchange(agent, hub, SegmentItem(one.raw))
    outcome = exchange(agent, hub, SegmentItem(one.raw), SegmentItem(two.raw))
    assert kinds(outcome) == [Duplicate, Accepted]
    assert [item.leaf for item in outcome.accepted] == [1, 2]
    # A lost answer costs nothing: the same request again gets the same standing.
    lost = agent.request([SegmentItem(one.raw)], inbox=(1, 0), software="a")
    hub.handle(lost)
    assert kinds(exchange(agent, hub, SegmentItem(two.raw))) == [Duplicate]


def test_objects_and_headers():
    hub = MemoryHub()
    agent, (one, two) = hub.agent(), chain_of(2)
    registration = example_registration()
    outcome = exchange(
        agent,
        hub,
        ObjectItem(registration.raw),
        HeaderItem(header_only(one), "body refused"),
        SegmentItem(two.raw),
    )
    assert kinds(outcome) == [Accepted] * 3
    assert [item.state for item in outcome.items] == [State.OBJECT, State.HEADER, State.BODY]
    later = exchange(agent, hub, SegmentItem(one.raw))
    assert [(item.state, item.accepted) for item in later.items] == [(State.BODY, True)]
    again = exchange(
        agent, hub, HeaderItem(header_only(one), "again"), ObjectItem(registration.raw)
    )
    assert [item.accepted for item in again.items] == [True, True]


def test_gap_in_stream_says_what_it_has():
    hub = MemoryHub()
    agent, segments = hub.agent(), chain_of(3)
    assert exchange(agent, hub, SegmentItem(segments[1].raw)).items[0].verdict == Missing(None)
    exchange(agent, hub, SegmentItem(segments[0].raw))
    outcome = exchange(agent, hub, SegmentItem(segments[2].raw))
    assert outcome.items[0].verdict == Missing(0)
    assert outcome.accepted == ()


def test_fork_is_shown_page_by_page():
    hub = MemoryHub(page=3)
    agent, segments = hub.agent(), chain_of(9)
    exchange(agent, hub, *(SegmentItem(s.raw) for s in segments))
    other = sealed(columns(5, 50), seq=2, prev=segments[1].id, seed=50)
    outcome = exchange(agent, hub, SegmentItem(other.raw))
    assert kinds(outcome) == [Fork]
    assert not outcome.items[0].accepted
    covered = list(outcome.covered)
    while outcome.items[0].more:
        outcome = exchange(agent, hub, EvidenceItem(RESOURCE, STREAM, covered[-1].header.seq))
        covered += outcome.covered
    assert [shown.id for shown in covered] == [s.id for s in segments[2:]]
    assert [shown.header for shown in covered] == [s.header for s in segments[2:]]


def test_header_only_evidence_covers_no_rows():
    hub = MemoryHub()
    agent, segments = hub.agent(), chain_of(3)
    exchange(
        agent,
        hub,
        SegmentItem(segments[0].raw),
        HeaderItem(header_only(segments[1]), "damaged"),
        SegmentItem(segments[2].raw),
    )
    other = sealed(columns(5, 50), seq=1, prev=segments[0].id, seed=50)
    outcome = exchange(agent, hub, SegmentItem(other.raw))
    assert [shown.state for shown in outcome.items[0].evidence] == [State.HEADER, State.BODY]
    assert [shown.id for shown in outcome.covered] == [segments[2].id]


def test_overlap_names_who_has_the_rows():
    hub = MemoryHub()
    agent, segments = hub.agent(), chain_of(3)
    exchange(agent, hub, *(SegmentItem(s.raw) for s in segments))
    said = Continues(STREAM, 2, segments[2].id, "fork")
    again = sealed(
        columns(5, 60), stream=b"another-stream-1", rows=[(RUN, 1003, 2001)], continues=said
    )
    outcome = exchange(agent, hub, SegmentItem(again.raw))
    assert kinds(outcome) == [Overlap]
    assert [shown.id for shown in outcome.covered] == [s.id for s in segments[1:]]


def test_a_restored_hub_states_its_generation():
    hub = MemoryHub()
    agent, segments = hub.agent(), chain_of(3)
    exchange(agent, hub, *(SegmentItem(s.raw) for s in segments))
    hub.restore(ledger_size=1)
    outcome = exchange(agent, hub, *(SegmentItem(s.raw) for s in segments))
    assert outcome.new_generation
    assert agent.hub.generation == 2 == outcome.hub.generation
    assert agent.hub.log_vkey == hub.identity.log_vkey
    assert len(outcome.accepted) == 3
    assert not exchange(agent, hub, SegmentItem(segments[0].raw)).new_generation


def test_two_restores_while_the_agent_was_away():
    hub = MemoryHub()
    agent = hub.agent()
    hub.restore(2)
    first = hub.ledger.receipt(0)
    hub.restore(1)
    body = agent.request([], inbox=(1, 0), software="a")
    answer = hub.payload(body)
    answer = replace(
        answer, receipt=replace(answer.receipt, statements=(first, hub.ledger.receipt(0)))
    )
    outcome = agent.receive(hub.sync.answer(answer), now_us=0)
    assert (outcome.new_generation, agent.hub.generation) == (True, 3)


def test_an_answer_that_failed_as_a_whole():
    hub = MemoryHub()
    agent, segment = hub.agent(), chain_of(1)[0]
    body = agent.request([SegmentItem(segment.raw)], inbox=(1, 0), software="a")
    answer = replace(
        hub.payload(body), items=(), receipt=None, error=Code.CLOCK_SKEW.key, retry_after_s=3
    )
    outcome = agent.receive(hub.sync.answer(answer), now_us=0)
    assert (outcome.error, outcome.retry_after_s, outcome.items) == (Code.CLOCK_SKEW, 3, ())
    assert outcome.offset_us == NOW_US
    # A restored hub that is still busy need not prove its generation to say so.
    agent.request([SegmentItem(segment.raw)], inbox=(1, 0), software="a")
    later = replace(answer, generation=9, error=Code.BUSY.key)
    outcome = agent.receive(hub.sync.answer(later), now_us=0)
    assert (outcome.error, outcome.hub.generation, outcome.new_generation) == (Code.BUSY, 1, False)


def test_requests_within_bounds():
    hub = MemoryHub()
    agent, segment = hub.agent(), chain_of(1)[0]
    with pytest.raises(TooLargeError):
        agent.request([SegmentItem(segment.raw)] * (SYNC_ITEMS_MAX + 1), inbox=(0, 0), software="a")
    batch = decode_batch(agent.request([SegmentItem(segment.raw)], inbox=(1, 7), software="a"))
    assert batch.items == (SegmentItem(segment.raw),)
    assert (batch.agent, batch.inbox, batch.version) == (AGENT.principal, (1, 7), 1)
    assert batch.checkpoint is not None
    assert batch.checkpoint.root == parse_note(hub.ledger.note()).root


def test_unknown_keys_of_a_request_are_ignored():
    batch = Batch(agent=AGENT.principal, software="a", items=(), inbox=(0, 0), checkpoint=None)
    grown = wire.decode_any(encode_batch(batch), limit=10_000) | {"new in version 2": [1, {"a": 2}]}
    assert decode_batch(wire.encode(grown)) == batch
    with pytest.raises(DecodeError):
        decode_batch(wire.encode(grown | {"items": [["unknown", b""]]}))


def test_refusals_carry_a_code():
    assert refused(Code.GRADE_FORBIDDEN, "x" * 900) == Refused("grade-forbidden", "x" * 256)


def test_a_receipt_stands_alone():
    hub = MemoryHub()
    agent, segments = hub.agent(), chain_of(2)
    body = agent.request([SegmentItem(s.raw) for s in segments], inbox=(1, 0), software="a")
    answer = hub.payload(body)
    receipt = wire.decode(wire.encode(answer.receipt.receipt(0)), Receipt, limit=100_000)
    leaf = verify_receipt(receipt, hub.identity.log_vkey, AGENT.principal)
    assert leaf.items == tuple((State.BODY, s.id) for s in segments)


def test_leaves_are_read_as_written():
    for leaf in (
        batch_leaf(AGENT.principal, [(State.BODY, b"a" * 32), (State.HEADER, b"b" * 32)], NOW_US),
        event_leaf("enrolment", b"o" * 32, b"h" * 32, NOW_US),
        generation_leaf("shanmen-hub/x/1", 5, b"r" * 32, "disk lost", NOW_US),
    ):
        assert wire.encode(parse_leaf(leaf)) == leaf
    for wrong in (
        b"",
        b"\x90",
        wire.encode([2, "batch", b"a" * 16, [], 0]),
        wire.encode([1, "batch", b"a" * 16, [], 0]),
        wire.encode([1, "Kind", b"o" * 32, b"h" * 32, 0]),
        wire.encode([1, "grant", b"o" * 31, b"h" * 32, 0]),
        wire.encode([1, "batch", b"a" * 16, [[4, b"b" * 32]], 0]),
        wire.encode([1, "generation", "o", 1, b"r" * 32, "x", 0, 1]),
    ):
        with pytest.raises(ShanmenError):
            parse_leaf(wrong)
    for kind in ("batch", "generation", "Up", "", "x" * 25):
        with pytest.raises(ShanmenError):
            event_leaf(kind, b"o" * 32, b"h" * 32, 0)


class LinkMachine(RuleBasedStateMachine):
    """An agent that seals, sends, loses answers, is restored from images; a hub that is restored.

    Held always: what the agent let go of is at the hub, in a ledger, row for row once.
    """

    left = 0  # forks and overlaps met, over all examples

    def __init__(self) -> None:
        super().__init__()
        self.hub = MemoryHub(page=2)
        self.sync = self.hub.agent()
        self.stream_count = 0
        self.next_row = 0
        self.unsealed: list[int] = []  # rows in the journal
        self.chain: list[Segment] = []
        self.spool: dict[int, Segment] = {}  # seq -> held body
        self.gone: set[int] = set()  # rows that the agent dropped
        self.images: list[tuple] = []
        self.run = RUN
        self.new_stream()

    def new_stream(self) -> None:
        self.stream_count += 1
        self.continues = self.stream_count > 1 and Continues(
            self.stream,
            max(0, len(self.chain) - 1),
            self.chain[-1].id if self.chain else NO_SEGMENT,
            "fork",
        )
        self.stream = b"stream-%09d" % self.stream_count
        self.chain, self.spool = [], {}

    @rule(count=st.integers(1, 4))
    def record(self, count):
        self.unsealed += range(self.next_row, self.next_row + count)
        self.next_row += count

    @precondition(lambda self: self.unsealed)
    @rule()
    def seal(self):
        ranges: list[list[int]] = []
        for row in self.unsealed:
            if ranges and ranges[-1][1] == row - 1:
                ranges[-1][1] = row
            else:
                ranges.append([row, row])
        segment = sealed(
            columns(len(self.unsealed), self.unsealed[0]),
            seq=len(self.chain),
            prev=self.chain[-1].id if self.chain else NO_SEGMENT,
            stream=self.stream,
            rows=[(self.run, a, b) for a, b in ranges[:32]],
            continues=None if self.chain else self.continues or None,
            seed=self.stream_count * 997 + self.unsealed[0],
        )
        self.spool[len(self.chain)] = segment
        self.chain.append(segment)
        self.unsealed = []

    @rule(count=st.integers(1, 3), lost=st.booleans())
    def work(self, count, lost):
        self.record(count)
        self.seal()
        self.send(lost, 3)

    @precondition(lambda self: self.spool)
    @rule(lost=st.booleans(), most=st.integers(1, 3))
    def send(self, lost, most):
        items = [self.spool[seq] for seq in sorted(self.spool)[:most]]
        body = self.sync.request([SegmentItem(s.raw) for s in items], inbox=(1, 0), software="a")
        answer = self.hub.handle(body)
        if not lost:
            self.apply(items, self.sync.receive(answer, now_us=NOW_US))

    def apply(self, items, outcome):
        for segment, item in zip(items, outcome.items, strict=True):
            if item.accepted:
                self.spool.pop(segment.header.seq, None)
                self.gone |= rows_of(segment.header)
            elif isinstance(item.verdict, Fork | Overlap):
                assert item.evidence
                return self.leave(item)
        return None

    def leave(self, item):
        LinkMachine.left += 1
        shown = list(item.evidence)
        while item.more or item.then:
            last = shown[-1].header
            question = EvidenceItem(
                RESOURCE, item.then or last.stream, None if item.then else last.seq
            )
            body = self.sync.request([question], inbox=(1, 0), software="a")
            item = self.sync.receive(self.hub.handle(body), now_us=NOW_US).items[0]
            shown += item.evidence
        covered = set().union(*(rows_of(one.header) for one in shown if one.state == State.BODY))
        held = set(self.unsealed).union(*(rows_of(s.header) for s in self.spool.values()))
        self.gone |= held & covered
        self.unsealed = sorted(held - covered)
        self.new_stream()

    @rule()
    def take_image(self):
        self.images.append(
            (
                (self.stream, self.continues),
                list(self.chain),
                dict(self.spool),
                list(self.unsealed),
                self.next_row,
                set(self.gone),
                self.sync.checkpoint,
                self.sync.hub,
                self.run,
            )
        )

    @precondition(lambda self: self.images)
    @rule()
    def restore_image(self):
        (streams, chain, spool, unsealed, next_row, gone, checkpoint, identity, run) = self.images[
            -1
        ]
        self.stream, self.continues = streams
        self.chain, self.spool, self.unsealed, self.gone = (
            list(chain),
            dict(spool),
            list(unsealed),
            set(gone),
        )
        self.sync = self.hub.agent(checkpoint)
        self.sync.hub = identity
        # Rows after the image are new readings of a new run, numbered far away from the old ones.
        self.next_row = max(self.next_row, next_row) + 1000

    @invariant()
    def what_was_let_go_is_at_the_hub_once(self):
        at_hub: list[int] = []
        for stored in self.hub.streams.values():
            for one in stored:
                assert one.leaf >= 0
                leaf = parse_leaf(self.hub.ledger.leaves[one.leaf])
                assert (one.state, one.segment.id) in leaf.items
                at_hub += rows_of(one.segment.header)
        assert len(at_hub) == len(set(at_hub))
        assert self.gone <= set(at_hub)

    @invariant()
    def rows_are_held_or_gone(self):
        held = set(self.unsealed).union(*(rows_of(s.header) for s in self.spool.values()))
        assert not held & self.gone


def rows_of(header) -> set[int]:
    return {row for _, first, last in header.rows for row in range(first, last + 1)}


TestLink = LinkMachine.TestCase
TestLink.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)


def test_the_link_met_forks():
    """The machine above is worth nothing if its restores never lead to a fork."""
    LinkMachine.left = 0
    machine = LinkMachine()
    machine.record(4)
    machine.seal()
    machine.record(2)
    machine.take_image()
    machine.seal()
    machine.send(False, 3)
    machine.restore_image()
    machine.record(3)
    machine.seal()
    machine.send(False, 3)
    machine.send(False, 3)
    machine.seal()
    machine.send(False, 3)
    assert LinkMachine.left
    assert not machine.spool
    assert not machine.unsealed
    machine.what_was_let_go_is_at_the_hub_once()


def test_the_fake_ledger_is_a_ledger():
    ledger = MemoryLedger()
    ledger.append(b"x")
    assert parse_note(ledger.note()).size == 1
