"""Batches against the hub's core: every verdict, proven to the agent's own verifier."""

import asyncio
import threading
from pathlib import Path

import msgspec
import pytest

from hub.domain.agents import AgentState
from hub.store import agents, entries, inbox, objects, streams, wraps
from hub.store.inbox import InboxRow
from protocol import messages
from protocol.envelope import SigningKey
from protocol.errors import Code, UnavailableError, VerifyError
from protocol.grades import Grade
from protocol.ids import resource_id
from protocol.keys import EpochKey
from protocol.leaf import State, batch_leaf
from protocol.limits import LEAF_BYTES_MAX, SYNC_ITEMS_MAX
from protocol.messages import ObjectItem
from protocol.notes import Gap, make_gap
from protocol.registration import make_registration
from protocol.wraps import make_wrap
from tests.hub.kit import (
    BY,
    HUB_KEY,
    T0,
    Agent,
    Killed,
    at_points,
    head,
    item,
    items,
    kill_at,
    running,
    verdicts,
)


async def test_accepted_and_read_back(hub, agent) -> None:
    bays = agent.resource()
    sealed = bays.many(3)
    outcome = await agent.send(hub, bays.registration, *items(sealed))
    assert verdicts(outcome) == ["Accepted"] * 4
    assert all(one.accepted for one in outcome.items)
    rows = await hub.reading.segments_of(bays.id)
    assert [row.id for row in rows] == [one.id for one in sealed]
    assert [await hub.reading.segment(row.id) for row in rows] == [one.raw for one in sealed]
    assert await hub.reading.part(sealed[1].id, 0) == bytes(sealed[1].body)
    row, raw = await hub.reading.entry(bays.id)
    assert raw == bays.entry.raw
    assert row.code == "330523-00000001"
    found = await hub.reading.entries(entries.Filter(text="车位"))
    assert ([one.id for one in found.items], found.total) == ([bays.id], 1)
    assert await hub.reading.resource_of_segment(sealed[0].id) == (agent.id, bays.id)


async def test_group_commit_is_one_pack_and_one_checkpoint_for_many_agents(hub) -> None:
    crowd = [Agent(f"g{n}") for n in range(8)]
    for one in crowd:
        await one.enrol(hub)
    first, *others = [
        one.send(hub, source.registration, item(source.seal()))
        for one in crowd
        for source in (one.resource(),)
    ]
    loop, held, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    passed: list[str] = []

    def hold_the_first(name: str) -> None:
        passed.append(name)
        if name == "pack.folder-synced" and passed.count(name) == 1:
            loop.call_soon_threadsafe(held.set)
            assert go_on.wait(10)

    with at_points(hold_the_first):
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            try:
                tasks.create_task(first)
                await held.wait()
                for one in others:
                    tasks.create_task(one)
                while hub.ingest.waiting < len(others):
                    await asyncio.sleep(0)
            finally:
                go_on.set()
    # One group of the first alone, one of all that came while it was under way.
    steps = ("pack.folder-synced", "accept.before", "accept.after", "checkpoint.signed",
             "last-checkpoint.after")  # fmt: skip
    at = {step: [n for n, name in enumerate(passed) if name == step] for step in steps}
    assert {step: len(places) for step, places in at.items()} == dict.fromkeys(steps, 2)
    for group in (0, 1):
        assert sorted(steps, key=lambda step: at[step][group]) == list(steps)
    assert passed[-len(others) :] == ["answer.ready"] * len(others)


async def test_replayed_batch(hub, agent) -> None:
    bays = agent.resource()
    sealed = bays.many(2)
    await agent.send(hub, bays.registration, *items(sealed))
    again = await agent.send(hub, bays.registration, *items(sealed))
    assert verdicts(again) == ["Duplicate"] * 3
    assert all(one.accepted for one in again.items), "the old leaf is proven to today's checkpoint"
    assert len(await hub.reading.segments_of(bays.id)) == 2
    assert again.checkpoint.size == 1, "nothing new, no leaf"


async def test_same_item_twice_in_one_batch(hub, agent) -> None:
    bays = agent.resource()
    one = bays.seal()
    outcome = await agent.send(
        hub, bays.registration, bays.registration, item(one), item(one), head(one)
    )
    assert verdicts(outcome) == ["Accepted"] * 5
    assert len(await hub.reading.segments_of(bays.id)) == 1
    two = bays.seal()
    outcome = await agent.send(hub, head(two), item(two))
    assert verdicts(outcome) == ["Accepted", "Later"]
    outcome = await agent.send(hub, item(two))
    assert outcome.items[0].state is State.BODY


async def test_reordered_segments(hub, agent) -> None:
    bays = agent.resource()
    first, second, third = bays.many(3)
    outcome = await agent.send(hub, bays.registration, item(second), item(first), item(third))
    assert verdicts(outcome) == ["Accepted", "Missing", "Accepted", "Missing"]
    assert outcome.items[1].verdict.have is None
    assert outcome.items[3].verdict.have == 0
    assert verdicts(await agent.send(hub, item(second), item(third))) == ["Accepted"] * 2


async def test_gap_in_stream(hub, agent) -> None:
    bays = agent.resource()
    sealed = bays.many(5)
    await agent.send(hub, bays.registration, item(sealed[0]))
    outcome = await agent.send(hub, item(sealed[4]))
    assert outcome.items[0].verdict == messages.Missing(0)
    assert not outcome.items[0].accepted


async def test_segment_before_its_entry_is_asked_for_again(hub, agent) -> None:
    bays = agent.resource()
    one = bays.seal()
    assert verdicts(await agent.send(hub, item(one))) == ["UnknownResource"]
    assert verdicts(await agent.send(hub, bays.registration, item(one))) == ["Accepted"] * 2


async def test_stream_id_of_other_agent(hub, agent) -> None:
    other = Agent("b")
    await other.enrol(hub)
    mine, theirs = agent.resource(), other.resource()
    await agent.send(hub, mine.registration, *items(mine.many(3)))
    theirs.stream, theirs.seq, theirs.prev = mine.stream, mine.seq, mine.prev
    outcome = await other.send(hub, theirs.registration, item(theirs.sealed()))
    assert outcome.items[1].verdict == messages.Missing(None)
    rows = await hub.store.read(streams.all_of, agent.id)
    assert [(row.seq, row.head) for row in rows] == [(2, mine.prev)]


async def test_signer_key_not_of_agent(hub, agent) -> None:
    stranger = SigningKey(b"\x55" * 32)
    bays = agent.resource()
    outcome = await agent.send(hub, bays.registration, item(bays.sealed(signer=stranger)))
    assert outcome.items[1].verdict.code == Code.WRONG_SIGNER.key


async def test_agent_of_other_site_writes_here(hub, agent) -> None:
    """An enrolled agent of another site names a resource of this one, in entry, header and wrap."""
    other = Agent("b")
    await other.enrol(hub)
    mine, theirs = agent.resource("bays"), other.resource("other")
    await agent.send(hub, mine.registration, item(mine.seal()))
    forged = msgspec.structs.replace(mine.payload, agent_key=other.signing.key_id)
    claim = make_registration(forged, other.signing)
    named = theirs.sealed(entry=mine.entry.object_id, resource=mine.id)
    own_entry = theirs.sealed(resource=mine.id)
    outcome = await other.send(
        hub, theirs.registration, ObjectItem(claim.raw), item(named), item(own_entry)
    )
    assert [one.accepted for one in outcome.items] == [True, False, False, False]
    assert {one.verdict.code for one in outcome.items[1:]} == {Code.WRONG_AGENT.key}
    assert len(await hub.reading.segments_of(mine.id)) == 1


async def test_agent_named_in_header_is_the_sender(hub, agent) -> None:
    other = Agent("b")
    bays = agent.resource()
    outcome = await agent.send(hub, bays.registration, item(bays.sealed(agent=other.id)))
    assert outcome.items[1].verdict.code == Code.WRONG_AGENT.key


async def test_entry_grade_mismatch(hub, agent) -> None:
    bays = agent.resource()
    outcome = await agent.send(hub, bays.registration, item(bays.sealed(grade=Grade.FULLY_OPEN)))
    assert outcome.items[1].verdict.code == Code.ENTRY_MISMATCH.key


async def test_suite_differs_from_entry(hub, agent) -> None:
    bays = agent.resource()
    await agent.send(hub, bays.registration)
    await hub.store.write(
        "test",
        lambda tx: tx.exec_driver_sql("UPDATE entry SET suite = 2"),
    )
    outcome = await agent.send(hub, item(bays.seal()))
    assert outcome.items[0].verdict.code == Code.ENTRY_MISMATCH.key


async def test_more_open_entry_needs_the_owner(hub, agent) -> None:
    closed = agent.resource("gate", grade=Grade.GENERALLY_OPEN)
    await agent.send(hub, closed.registration)
    opened = agent.resource(
        "gate", grade=Grade.FULLY_OPEN, version=2, previous=closed.entry.object_id
    )
    outcome = await agent.send(hub, opened.registration)
    assert outcome.items[0].verdict.code == Code.NOT_OWNER.key
    row, _raw = await hub.reading.entry(closed.id)
    assert row.grade == Grade.GENERALLY_OPEN


async def test_newer_entry_is_in_force_and_older_still_serves_old_segments(hub, agent) -> None:
    first = agent.resource()
    one = first.seal()
    second = agent.resource(version=2, previous=first.entry.object_id, name_zh="新名")
    await agent.send(hub, first.registration, second.registration)
    assert verdicts(await agent.send(hub, item(one))) == ["Accepted"]
    row, _raw = await hub.reading.entry(first.id)
    assert (row.name_zh, row.version) == ("新名", 2)
    late = agent.resource(name_zh="旧名")  # version 1 again, another object
    assert verdicts(await agent.send(hub, late.registration)) == ["Accepted"]
    row, _raw = await hub.reading.entry(first.id)
    assert row.name_zh == "新名"


async def test_nonce_replayed_on_other_process(hub, agent) -> None:
    """The unique index says so, not a process's memory: a second hub core on the same database."""
    bays = agent.resource()
    nonce = agent.nonce()
    await agent.send(hub, bays.registration, nonce=nonce)
    async with running(hub.folder) as other:
        with pytest.raises(VerifyError) as caught:
            await agent.send(other, item(bays.seal()), nonce=nonce)
    assert caught.value.code is Code.REPLAYED
    assert await hub.reading.segments_of(bays.id) == []


async def test_two_streams_of_one_resource(hub, agent) -> None:
    bays = agent.resource()
    await agent.send(hub, bays.registration, *items(bays.many(2)))
    bays.new_stream(b"\x02" * 16)
    outcome = await agent.send(hub, item(bays.sealed()))
    assert verdicts(outcome) == ["Fork"]
    assert len(await hub.store.read(streams.all_of, agent.id)) == 1


async def test_new_stream_bounds_the_old_one(hub, agent) -> None:
    bays = agent.resource()
    await agent.send(hub, bays.registration, *items(bays.many(2)))
    late = bays.sealed()
    old = bays.stream
    said = bays.follow(b"\x02" * 16)
    bays.row += 10
    assert verdicts(await agent.send(hub, item(bays.seal(continues=said)))) == ["Accepted"]
    outcome = await agent.send(hub, item(late))
    assert verdicts(outcome) == ["Fork"]
    assert outcome.items[0].evidence[-1].header.stream == old


async def test_segments_named_by_the_new_stream_may_still_arrive(hub, agent) -> None:
    bays = agent.resource()
    sealed = bays.many(4)
    await agent.send(hub, bays.registration, *items(sealed[:2]))
    said = bays.follow(b"\x02" * 16, reason="damage")
    assert said.seq == 3
    new = bays.seal(continues=said)
    outcome = await agent.send(hub, item(new), *items(sealed[2:]))
    assert verdicts(outcome) == ["Accepted"] * 3


async def test_two_clones_taking_turns_are_suspended(hub, agent) -> None:
    bays = agent.resource()
    await agent.send(hub, bays.registration, item(bays.seal()))
    for number, run in enumerate((b"run-0002", b"run-0001"), 2):
        bays.run = run
        said = bays.follow(bytes([number]) * 16)
        bays.row += 100
        assert verdicts(await agent.send(hub, item(bays.seal(continues=said)))) == ["Accepted"]
    row = await hub.store.read(agents.get, agent.id)
    assert (row.state, row.reason) == (AgentState.SUSPENDED, "clone-suspected")
    found = await hub.store.read(objects.of_kind, "review", HUB_KEY.principal)
    assert [one.leaf for one in found] == [3], "the decision stands in the ledger"
    outcome = await agent.send(hub, item(bays.sealed()))
    assert verdicts(outcome) == ["Later"], "nothing in either spool is lost"
    await hub.store.write(
        "resume", agents.set_state, agent.id, AgentState.ACTIVE, BY, T0, reason=""
    )
    assert verdicts(await agent.send(hub, item(bays.seal()))) == ["Accepted"]


async def test_the_clone_that_stays_is_judged_from_its_resumption_on(hub, agent) -> None:
    bays = agent.resource()
    await agent.send(hub, bays.registration, item(bays.seal()))

    async def follow(number: int, run: bytes) -> AgentState:
        bays.run = run
        said = bays.follow(bytes([number]) * 16)
        bays.row += 100
        assert verdicts(await agent.send(hub, item(bays.seal(continues=said)))) == ["Accepted"]
        return (await hub.store.read(agents.get, agent.id)).state

    assert await follow(2, b"run-0002") is AgentState.ACTIVE
    assert await follow(3, b"run-0001") is AgentState.SUSPENDED
    await hub.store.write(
        "resume", agents.set_state, agent.id, AgentState.ACTIVE, BY, T0, reason=""
    )
    assert await follow(4, b"run-0002") is AgentState.ACTIVE, "the one that stays begins anew"
    assert await follow(5, b"run-0001") is AgentState.ACTIVE, "the other's spool, by hand"
    assert await follow(6, b"run-0002") is AgentState.SUSPENDED, "and turns are turns again"


async def test_one_restored_image_is_no_clone(hub, agent) -> None:
    bays = agent.resource()
    await agent.send(hub, bays.registration, item(bays.seal()))
    for number, run in enumerate((b"run-0002", b"run-0002", b"run-0003"), 2):
        bays.run = run
        said = bays.follow(bytes([number]) * 16)
        bays.row += 100
        await agent.send(hub, item(bays.seal(continues=said)))
    assert (await hub.store.read(agents.get, agent.id)).state is AgentState.ACTIVE


async def test_waiting_agent_keeps_everything(hub, agent) -> None:
    await hub.store.write("wait", agents.set_state, agent.id, AgentState.WAITING, BY, T0, reason="")
    bays = agent.resource()
    outcome = await agent.send(hub, bays.registration, item(bays.seal()))
    assert [type(one.verdict) for one in outcome.items] == [messages.Later] * 2


async def test_second_batch_in_flight_is_told_to_wait(hub, agent) -> None:
    bays = agent.resource()
    first = asyncio.ensure_future(agent.send_raw(hub, agent.body(bays.registration)))
    second = asyncio.ensure_future(agent.send_raw(hub, agent.body(bays.registration)))
    done = await asyncio.gather(first, second, return_exceptions=True)
    assert {type(one) for one in done} == {bytes, UnavailableError}


async def test_leaf_oversize(hub, agent) -> None:
    """The largest batch that the protocol lets through still fits a leaf, and is taken."""
    assert len(batch_leaf(agent.id, [(State.BODY, bytes([n % 256]) * 32) for n in range(SYNC_ITEMS_MAX)], T0)) < LEAF_BYTES_MAX  # fmt: skip
    bays = agent.resource()
    sealed = bays.many(SYNC_ITEMS_MAX - 1, count=1)
    outcome = await agent.send(hub, bays.registration, *items(sealed))
    assert set(verdicts(outcome)) == {"Accepted"}
    assert len(await hub.store.read(lambda tx: tx.exec_driver_sql("SELECT data FROM leaf").scalar())) < LEAF_BYTES_MAX  # fmt: skip


async def test_damaged_body_is_refused_and_goes_on_as_header(hub, agent) -> None:
    bays = agent.resource()
    good, bad, after = bays.many(3)
    torn = messages.SegmentItem(bad.raw[:-1] + bytes([bad.raw[-1] ^ 1]))
    outcome = await agent.send(hub, bays.registration, item(good), torn, item(after))
    assert verdicts(outcome) == ["Accepted", "Accepted", "Refused", "Missing"]
    assert outcome.items[2].verdict.code == Code.HASH_MISMATCH.key
    outcome = await agent.send(hub, head(bad), item(after))
    assert [one.state for one in outcome.items] == [State.HEADER, State.BODY]


async def test_header_only_completed_later_by_its_body(hub, agent) -> None:
    bays = agent.resource()
    one, two = bays.many(2)
    await agent.send(hub, bays.registration, head(one), item(two))
    before = await hub.reading.segments_of(bays.id)
    assert [row.state for row in before] == [State.HEADER, State.BODY]
    outcome = await agent.send(hub, item(one))
    assert outcome.items[0].state is State.BODY
    assert await hub.reading.segment(one.id) == one.raw
    cursor = max(row.change for row in before)
    again = await hub.reading.segments_of(bays.id, after=cursor)
    assert [(row.id, row.state) for row in again] == [(one.id, State.BODY)], "readers see it again"
    outcome = await agent.send(hub, head(one))
    assert outcome.items[0].state is State.BODY, (
        "a header asked about again is proven with its body"
    )


async def test_wraps_and_notes_are_kept_for_their_readers(hub, agent) -> None:
    bays, owner = agent.resource(), Agent("owner")
    key = EpochKey(resource=bays.id, epoch=1, group=0, key=b"k" * 32, from_us=0, to_us=10)
    wrap = make_wrap(
        key,
        recipient=owner.id,
        recipient_sealing=owner.sealing.public,
        maker=agent.signing,
        seen=None,
        nonce=bytes(16),
        box_seed=b"s" * 32,
    )
    gap = make_gap(
        Gap(
            resource=bays.id,
            stream=bays.stream,
            unit="row",
            first=0,
            last=3,
            count=4,
            reason="disk-full",
            nonce=bytes(16),
        ),  # fmt: skip
        agent.signing,
    )
    both = ObjectItem(wrap.raw), ObjectItem(gap.raw)
    assert verdicts(await agent.send(hub, *both)) == ["UnknownResource"] * 2
    outcome = await agent.send(hub, bays.registration, *both)
    assert [one.state for one in outcome.items] == [State.OBJECT] * 3
    assert await hub.reading.wraps_for(owner.id) == [wrap.raw]
    assert await hub.reading.wraps_for(owner.id, resource_id(agent.id, "no")) == []
    assert (await hub.reading.object(gap.object_id)).raw == gap.raw


async def test_objects_that_do_not_ride_in_batches_are_refused(hub, agent) -> None:
    from protocol.principal import make_principal

    other = make_principal(agent.signing, agent.sealing.public, kind="agent", nonce=bytes(16))
    outcome = await agent.send(hub, ObjectItem(other.raw))
    assert verdicts(outcome) == ["Refused"]


async def test_run_ends_when_a_point_kills(tmp_path: Path) -> None:
    agent = Agent("a")
    async with running(tmp_path) as hub:
        await agent.enrol(hub)
        with kill_at("accept.before"), pytest.raises(Killed):
            await agent.send(hub, agent.resource().registration)


async def test_pages_of_wraps_end_with_whole_epochs(hub, agent) -> None:
    bays, owner = agent.resource(), Agent("owner")

    def wrap(epoch: int, group: int) -> ObjectItem:
        key = EpochKey(
            resource=bays.id, epoch=epoch, group=group, key=b"k" * 32, from_us=0, to_us=10
        )
        return ObjectItem(
            make_wrap(
                key,
                recipient=owner.id,
                recipient_sealing=owner.sealing.public,
                maker=agent.signing,
                seen=None,
                nonce=bytes(16),
                box_seed=bytes([epoch, group]) * 16,
            ).raw
        )

    made = [wrap(epoch, group) for epoch in range(5) for group in range(3)]
    await agent.send(hub, bays.registration, *reversed(made))

    def page(after: int) -> list[bytes]:
        return hub.store.read(wraps.of, owner.id, bays.id, after=after, limit=4)

    raw = [one.raw for one in made]
    assert await page(-1) == raw[:6]
    assert await page(1) == raw[6:12]
    assert await page(3) == raw[12:]


async def test_inbox_messages_ride_in_answers_until_acknowledged(hub, agent) -> None:
    """In order and within the answer's bound; the hub does not look into them."""
    for n in range(1, 8):
        raw = bytes([n]) * (200 * 1024)
        row = InboxRow(agent=agent.id, generation=1, n=n, expires_us=hub.now + 10**9, raw=raw)
        await hub.store.write("put", inbox.put, row)

    async def ask(last: tuple[int, int]) -> list[int]:
        body = agent.sync.request([], inbox=last, software="kit")
        outcome = agent.sync.receive(await agent.send_raw(hub, body), now_us=hub.now)
        return [one[0] for one in outcome.inbox]

    assert await ask((0, 0)) == [1, 2, 3, 4, 5]
    assert await ask((1, 5)) == [6, 7]
    assert await ask((1, 7)) == []
    row = await hub.store.read(agents.get, agent.id)
    assert (row.inbox_generation, row.inbox_number) == (1, 7)
