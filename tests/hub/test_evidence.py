"""Fork and overlap: what the hub shows, as the agent's own verifier takes it."""

import pytest

from hub import evidence
from protocol.leaf import State
from protocol.limits import EVIDENCE_PAGE_MAX
from protocol.messages import EvidenceItem
from tests.hub.kit import Agent, head, item, items, verdicts


async def test_seq_reused_with_other_content(hub, agent) -> None:
    """An image is restored: number 2 comes again with other rows in it."""
    bays = agent.resource()
    first = bays.many(2)
    seq, prev, row = bays.seq, bays.prev, bays.row
    lost = bays.many(3, value=1)
    await agent.send(hub, bays.registration, *items(first), *items(lost))
    bays.seq, bays.prev, bays.row = seq, prev, row
    other = bays.sealed(value=2)
    outcome = await agent.send(hub, item(other))
    assert verdicts(outcome) == ["Fork"]
    assert [one.id for one in outcome.items[0].evidence] == [one.id for one in lost]
    assert [one.id for one in outcome.covered] == [one.id for one in lost]
    rows = await hub.reading.segments_of(bays.id)
    assert [row.id for row in rows] == [one.id for one in (*first, *lost)]


async def test_fork_shows_header_only_segments_as_not_covered(hub, agent) -> None:
    bays = agent.resource()
    seq, prev, row = bays.seq, bays.prev, bays.row
    lost = bays.many(2, value=1)
    await agent.send(hub, bays.registration, head(lost[0]), item(lost[1]))
    bays.seq, bays.prev, bays.row = seq, prev, row
    outcome = await agent.send(hub, item(bays.sealed(value=2)))
    assert [one.state for one in outcome.items[0].evidence] == [State.HEADER, State.BODY]
    assert [one.id for one in outcome.covered] == [lost[1].id]


async def test_fork_of_the_next_number_names_the_accepted_head(hub, agent) -> None:
    bays = agent.resource()
    await agent.send(hub, bays.registration, *items(bays.many(3)))
    outcome = await agent.send(hub, item(bays.sealed(prev=b"\x09" * 32)))
    assert verdicts(outcome) == ["Fork"]
    assert outcome.items[0].evidence[-1].id == bays.prev


async def test_evidence_comes_in_pages_of_256(hub, agent) -> None:
    bays = agent.resource()
    seq, prev, row = bays.seq, bays.prev, bays.row
    lost = bays.many(EVIDENCE_PAGE_MAX + 40, count=1, value=1)
    for at in range(0, len(lost), 100):
        batch = items(lost[at : at + 100])
        await agent.send(hub, bays.registration, *batch)
    bays.seq, bays.prev, bays.row = seq, prev, row
    outcome = await agent.send(hub, item(bays.sealed(value=2)))
    page = outcome.items[0].evidence
    assert [one.id for one in page] == [one.id for one in lost[:EVIDENCE_PAGE_MAX]]
    assert outcome.items[0].more
    last = page[-1].header.seq
    outcome = await agent.send(hub, EvidenceItem(bays.id, bays.stream, last))
    rest = outcome.items[0].evidence
    assert [one.id for one in rest] == [one.id for one in lost[EVIDENCE_PAGE_MAX:]]
    assert not outcome.items[0].more


async def test_a_stream_beside_others_is_shown_them_from_their_beginning(hub, agent) -> None:
    """The image is older than the resource: its stream is refused, and every other one is shown."""
    bays = agent.resource()
    first = bays.many(2)
    said = bays.follow(b"\x02" * 16)
    second = [bays.seal(continues=said), *bays.many(2)]
    await agent.send(hub, bays.registration, *items(first), *items(second))
    bays.new_stream(b"\x03" * 16)
    bays.run, bays.row = b"run-0002", 0
    outcome = await agent.send(hub, item(bays.sealed()))
    [fork] = outcome.items
    assert verdicts(outcome) == ["Fork"]
    assert [one.id for one in fork.evidence] == [one.id for one in first]
    assert (fork.more, fork.then) == (False, b"\x02" * 16)
    [page] = (await agent.send(hub, EvidenceItem(bays.id, fork.then, None))).items
    assert [one.id for one in page.evidence] == [one.id for one in second]
    assert (page.more, page.then) == (False, None)


async def test_what_followed_is_named_after_the_last_page_alone(hub, agent) -> None:
    bays = agent.resource()
    first = bays.many(EVIDENCE_PAGE_MAX + 1, count=1)
    said = bays.follow(b"\x02" * 16)
    second = bays.seal(continues=said)
    await agent.send(hub, bays.registration, *items(first), item(second))
    [page] = (await agent.send(hub, EvidenceItem(bays.id, first[0].header.stream, None))).items
    assert (len(page.evidence), page.more, page.then) == (EVIDENCE_PAGE_MAX, True, None)
    last = page.evidence[-1].header
    [page] = (await agent.send(hub, EvidenceItem(bays.id, last.stream, last.seq))).items
    assert (len(page.evidence), page.more, page.then) == (1, False, b"\x02" * 16)
    [page] = (await agent.send(hub, EvidenceItem(bays.id, last.stream, last.seq + 1))).items
    assert (page.evidence, page.more, page.then) == ((), False, b"\x02" * 16)


async def test_a_stream_that_begins_beside_another_in_one_group_is_proven_next_time(
    hub, agent
) -> None:
    bays = agent.resource()
    first = bays.seal()
    bays.new_stream(b"\x03" * 16)
    beside = bays.sealed(rows=((b"run-0002", 0, 2),))
    outcome = await agent.send(hub, bays.registration, item(first), item(beside))
    assert verdicts(outcome) == ["Accepted", "Accepted", "Later"]
    outcome = await agent.send(hub, item(beside))
    assert [one.id for one in outcome.items[0].evidence] == [first.id]


async def test_many_forks_in_one_answer_stay_within_its_bounds(hub, agent) -> None:
    sources = [agent.resource(f"r{n}") for n in range(5)]
    forks = []
    for source in sources:
        seq, prev, row = source.seq, source.prev, source.row
        await agent.send(hub, source.registration, *items(source.many(200, count=1, value=1)))
        source.seq, source.prev, source.row = seq, prev, row
        forks.append(item(source.sealed(value=2)))
    outcome = await agent.send(hub, *forks)
    assert set(verdicts(outcome)) == {"Fork", "Later"}, "what has no room is for the next answer"
    assert len(outcome.items[0].evidence) == 200
    assert sum(len(one.evidence) for one in outcome.items) <= 2 * EVIDENCE_PAGE_MAX


async def test_evidence_of_another_agents_stream_is_not_given(hub, agent) -> None:
    other = Agent("b")
    await other.enrol(hub)
    bays = agent.resource()
    await agent.send(hub, bays.registration, *items(bays.many(3)))
    outcome = await other.send(hub, EvidenceItem(bays.id, bays.stream, 0))
    assert verdicts(outcome) == ["UnknownResource"]
    outcome = await agent.send(hub, EvidenceItem(bays.id, b"\x07" * 16, 0))
    assert verdicts(outcome) == ["Missing"]


async def test_rows_overlap(hub, agent) -> None:
    """A restored image seals rows again, in a new stream, that were accepted before."""
    bays = agent.resource()
    sealed = bays.many(3, count=10)  # rows 0–9, 10–19, 20–29
    await agent.send(hub, bays.registration, *items(sealed))
    said = bays.follow(b"\x02" * 16, reason="restore")
    bays.row = 25
    outcome = await agent.send(hub, item(bays.sealed(10, continues=said)))
    assert verdicts(outcome) == ["Overlap"]
    assert [one.id for one in outcome.covered] == [sealed[2].id]
    bays.row = 30
    assert verdicts(await agent.send(hub, item(bays.seal(10, continues=said)))) == ["Accepted"]


async def test_overlap_names_every_segment_with_such_rows(hub, agent) -> None:
    bays = agent.resource()
    sealed = bays.many(5, count=10)
    await agent.send(hub, bays.registration, *items(sealed))
    said = bays.follow(b"\x02" * 16)
    rows = ((bays.run, 5, 25), (b"run-0009", 0, 4), (bays.run, 48, 60))
    outcome = await agent.send(hub, item(bays.sealed(3, continues=said, rows=rows)))
    found = {one.id for one in outcome.items[0].evidence}
    assert found == {one.id for one in (sealed[0], sealed[1], sealed[2], sealed[4])}


async def test_rows_of_another_run_or_resource_do_not_overlap(hub, agent) -> None:
    bays, gates = agent.resource("bays"), agent.resource("gates")
    await agent.send(hub, bays.registration, gates.registration, item(bays.seal(5)))
    assert verdicts(await agent.send(hub, item(gates.seal(5)))) == ["Accepted"]
    bays.run, bays.row = b"run-0002", 0
    assert verdicts(await agent.send(hub, item(bays.seal(5)))) == ["Accepted"]


async def test_rows_below_the_last_that_nobody_has_are_taken(hub, agent) -> None:
    """A backfill epoch is sealed later than younger rows of the same run."""
    bays = agent.resource()
    rows = ((bays.run, 0, 4), (bays.run, 8, 12))
    late = ((bays.run, 5, 7),)
    outcome = await agent.send(
        hub,
        bays.registration,
        item(bays.seal(3, rows=rows)),
        item(bays.seal(3, rows=late)),
        item(bays.sealed(3, rows=((bays.run, 7, 7),))),
    )
    assert verdicts(outcome) == ["Accepted", "Accepted", "Accepted", "Later"]
    outcome = await agent.send(hub, item(bays.sealed(3, rows=((bays.run, 7, 7),))))
    assert verdicts(outcome) == ["Overlap"]


async def test_rows_that_overlap_inside_one_group_are_proven_next_time(hub, agent) -> None:
    bays = agent.resource()
    one = bays.seal(10)
    bays.row = 5
    two = bays.sealed(10)
    outcome = await agent.send(hub, bays.registration, item(one), item(two))
    assert verdicts(outcome) == ["Accepted", "Accepted", "Later"]
    assert verdicts(await agent.send(hub, item(two))) == ["Overlap"]


async def test_a_segment_that_overlaps_itself_is_refused(hub, agent) -> None:
    bays = agent.resource()
    rows = ((bays.run, 0, 5), (bays.run, 3, 8))
    outcome = await agent.send(hub, bays.registration, item(bays.sealed(3, rows=rows)))
    assert verdicts(outcome) == ["Accepted", "Refused"]


async def test_proofs_that_do_not_fit_one_answer_come_with_the_next(hub, agent) -> None:
    """A thousand old leaves, each of some size: the answer stays within its bound, none is lost."""
    sources = [agent.resource(f"r{n}") for n in range(12)]
    sealed = []
    for source in sources:
        await agent.send(hub, source.registration)
    for at in range(0, 1200, 100):
        batch = [source.seal(1, value=at + n) for n, source in enumerate(sources * 8)]
        await agent.send(hub, *items(batch))
        sealed += batch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evidence, "PROOFS_BYTES_MAX", 30_000)
        waiting, rounds = [item(one) for one in sealed[::2]], 0
        while waiting:
            outcome = await agent.send(hub, *waiting[:1000])
            assert set(verdicts(outcome)) <= {"Duplicate", "Later"}
            done = [one.accepted for one in outcome.items]
            assert any(done), "every answer gets some of them done"
            waiting = [one for one, ok in zip(waiting, done, strict=False) if not ok]
            rounds += 1
        assert rounds > 1
        bays = sources[0]
        bays.seq, bays.prev = 3, sealed[24].id
        outcome = await agent.send(hub, item(bays.sealed(1, rows=((b"run-0009", 0, 1),))))
        assert verdicts(outcome) == ["Fork"]
        shown = outcome.items[0]
        assert [one.header.seq for one in shown.evidence] == list(range(3, 3 + len(shown.evidence)))
        assert shown.more
