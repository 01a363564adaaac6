"""Kills, full disks, orphans and lost packs: what was answered is there, what is there is whole."""

import asyncio
import contextlib
import hashlib
import itertools
import os
import threading
from pathlib import Path

import msgspec
import pytest

from hub import ingest
from hub.ledger import Ledger
from hub.store import leaves, packs, streams
from hub.store.bodies import Bodies
from hub.sweeper import ORPHAN_AGE_S, Sweeper
from protocol import merkle
from protocol.checkpoint import parse_note
from protocol.errors import Code, FatalError, UnavailableError
from protocol.leaf import BatchLeaf, parse_leaf
from tests.hub.kit import (
    HUB_KEY,
    Agent,
    Killed,
    at_points,
    item,
    items,
    kill_at,
    running,
    verdicts,
)

POINTS = (
    "pack.open",
    "pack.written",
    "pack.synced",
    "pack.renamed",
    "pack.folder-synced",
    "accept.before",
    "accept.after",
    "checkpoint.signed",
    "last-checkpoint.before",
    "last-checkpoint.after",
    "answer.ready",
)


def pack_files(hub) -> list[tuple[str, float]]:
    return [one for prefix in hub.bodies.prefixes() for one in hub.bodies.files(prefix)]


async def check_whole(hub) -> None:
    """Invariant 2 and 3: rows, leaves, bodies and chain agree."""

    def look(tx):
        trees = {}
        for generation in range(1, leaves.live(tx).generation + 1):
            head = leaves.head(tx, generation)
            trees[generation] = head, leaves.data_between(tx, generation, 0, head.size)
        rows = tx.exec_driver_sql("SELECT * FROM segment").all()
        return trees, rows, packs.sizes(tx)

    trees, rows, sizes = await hub.store.read(look)
    named = {}
    for generation, (head, data) in trees.items():
        assert len(data) == head.size
        assert merkle.root_of(data) == merkle.Frontier.load(head.frontier).root()
        for index, one in enumerate(data):
            parsed = parse_leaf(one)
            if isinstance(parsed, BatchLeaf):
                place = generation, index
                named |= {(int(state), which): place for state, which in parsed.items}
    for row in rows:
        assert named[row.state, row.id] == (row.generation, row.leaf)
        assert (await hub.reading.segment(row.id))[:4] == b"SMSG"
    for name, size in sizes.items():
        assert hub.bodies.size_of(name) == size
    by_stream: dict[int, list[int]] = {}
    for row in sorted(rows, key=lambda row: row.seq):
        by_stream.setdefault(row.stream, []).append(row.seq)
    assert all(seqs == list(range(len(seqs))) for seqs in by_stream.values())


@pytest.mark.parametrize("name", POINTS)
async def test_hub_killed_between_body_and_metadata(tmp_path: Path, name: str) -> None:
    """At every point: the agent sends again, gets a proof, and nothing stands there twice."""
    agent = Agent("a")
    bays = agent.resource()
    first, second = bays.many(2)
    with contextlib.suppress(Killed):
        async with running(tmp_path) as hub:
            await agent.enrol(hub)
            await agent.send(hub, bays.registration, item(first))
            with kill_at(name):
                await agent.send(hub, item(second))
            pytest.fail(f"{name} was not passed")
    async with running(tmp_path) as hub:
        await check_whole(hub)
        outcome = await agent.send(hub, item(first), item(second))
        assert all(one.accepted for one in outcome.items)
        assert len(await hub.reading.segments_of(bays.id)) == 2
        await check_whole(hub)


async def test_checkpoint_signed_before_commit(tmp_path: Path) -> None:
    """A commit that fails leaves no checkpoint behind, neither signed nor on disk."""
    agent = Agent("a")
    passed: list[str] = []
    async with running(tmp_path) as hub:
        await agent.enrol(hub)
        bays = agent.resource()
        await agent.send(hub, bays.registration)
        before = hub.last.read()

        def full(name: str) -> None:
            passed.append(name)
            if name == "accept.before":
                raise UnavailableError(Code.DISK_FULL)

        with at_points(full), pytest.raises(UnavailableError):
            await agent.send(hub, item(bays.seal()))
        assert "accept.before" in passed
        assert not {"checkpoint.signed", "last-checkpoint.before", "answer.ready"} & set(passed)
        assert hub.last.read() == before
        head = await hub.store.read(leaves.live)
        assert {parse_note(note).size for note in before} == {head.size}


async def test_checkpoint_is_signed_over_the_committed_head(tmp_path: Path) -> None:
    agent = Agent("a")
    async with running(tmp_path) as hub:
        await agent.enrol(hub)
        bays = agent.resource()
        for _ in range(4):
            outcome = await agent.send(hub, bays.registration, item(bays.seal()))
            head = await hub.store.read(leaves.live)
            assert outcome.checkpoint.size == head.size
            assert outcome.checkpoint.root == merkle.Frontier.load(head.frontier).root()
            assert outcome.checkpoint.text in hub.last.read()


async def test_disk_full_hub(tmp_path: Path) -> None:
    """SQLITE_FULL: no answer, nothing half there, and it goes on by itself once there is room."""
    agent = Agent("a")
    async with running(tmp_path) as hub:
        await agent.enrol(hub)
        bays = agent.resource()
        await agent.send(hub, bays.registration, *items(bays.many(10)))

        def limit(pages: int) -> None:
            def fix(tx) -> None:
                now = tx.exec_driver_sql("PRAGMA page_count").scalar()
                tx.exec_driver_sql(f"PRAGMA max_page_count={now + pages}")

            hub.store._max_page_count = None
            hub.store.read_committed(fix)

        await hub.store.on_writer(lambda: limit(2))
        waiting = bays.many(400, count=1)
        with pytest.raises(UnavailableError) as caught:
            await agent.send(hub, *items(waiting))
        assert caught.value.code is Code.DISK_FULL
        await check_whole(hub)
        outcome = await agent.send(hub, *items(waiting))  # the connection was opened anew: no limit
        assert set(verdicts(outcome)) == {"Accepted"}
        await check_whole(hub)


async def test_full_disk_under_the_packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = Agent("a")
    async with running(tmp_path) as hub:
        await agent.enrol(hub)
        bays = agent.resource()
        await agent.send(hub, bays.registration)
        one = bays.seal()

        def full(_handle: int, _chunks: object) -> int:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "writev", full)
            with pytest.raises(UnavailableError):
                await agent.send(hub, item(one))
        assert pack_files(hub) == []
        assert verdicts(await agent.send(hub, item(one))) == ["Accepted"]


async def test_a_failed_fsync_is_no_acceptance(tmp_path: Path, monkeypatch) -> None:
    agent = Agent("a")
    async with running(tmp_path) as hub:
        await agent.enrol(hub)
        bays = agent.resource()
        await agent.send(hub, bays.registration)
        one = bays.seal()

        def broken(_handle: int) -> None:
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", broken)
            with pytest.raises(UnavailableError):
                await agent.send(hub, item(one))
        assert await hub.store.read(streams.all_of, agent.id) == []


async def test_an_end_that_nobody_foresaw_leaves_nobody_waiting(tmp_path, monkeypatch) -> None:
    """One group fails while the next is being verified and a third is in the queue."""
    monkeypatch.setattr(ingest, "GROUP_SEGMENTS", 1)
    crowd = [Agent(name) for name in "abc"]
    async with running(tmp_path) as hub:
        for one in crowd:
            await one.enrol(hub)
        sent = [one.send(hub, one.resource().registration) for one in crowd]
        with kill_at("accept.before"):
            async with asyncio.timeout(20):
                ends = await asyncio.gather(*sent, return_exceptions=True)
        assert [type(end) for end in ends] == [Killed] * 3
        with pytest.raises(UnavailableError):
            await crowd[0].send(hub, crowd[0].resource().registration)


async def test_object_orphaned(tmp_path: Path) -> None:
    """A pack of a hub that died goes after a day; one that is referred to never goes."""
    agent = Agent("a")
    bays = agent.resource()
    kept, lost = bays.many(2)
    with contextlib.suppress(Killed):
        async with running(tmp_path) as hub:
            await agent.enrol(hub)
            await agent.send(hub, bays.registration, item(kept))
            with kill_at("accept.before"):
                await agent.send(hub, item(lost))
    async with running(tmp_path) as hub:
        sweeper = Sweeper(hub.store, hub.bodies)
        now_us = int(max(at for _, at in pack_files(hub)) * 1_000_000)
        assert len(pack_files(hub)) == 2
        assert await sweeper.sweep(now_us + (ORPHAN_AGE_S - 60) * 1_000_000) == 0
        assert await sweeper.sweep(now_us + (ORPHAN_AGE_S + 60) * 1_000_000) == 1
        assert await sweeper.sweep(now_us + 30 * ORPHAN_AGE_S * 1_000_000) == 0
        assert await hub.reading.segment(kept.id) == kept.raw
        assert verdicts(await agent.send(hub, item(lost))) == ["Accepted"]
        await check_whole(hub)


async def test_sending_the_same_bodies_again_refreshes_an_orphans_age(tmp_path: Path) -> None:
    agent = Agent("a")
    bays = agent.resource()
    async with running(tmp_path) as hub:
        await agent.enrol(hub)
        await agent.send(hub, bays.registration)
        one = bays.seal()
        written = hub.bodies.write([one.body])
        path = next((tmp_path / "packs").glob("*/*.pack"))
        os.utime(path, (1, 1))
        assert hub.bodies.write([one.body]) == written
        assert path.stat().st_mtime > 1
        assert verdicts(await agent.send(hub, item(one))) == ["Accepted"]


async def test_a_pack_swept_under_the_transaction_is_asked_for_again(tmp_path: Path) -> None:
    """Between the pack's fsync and the lock somebody removes the file: `later`, not a lost body."""
    agent = Agent("a")
    async with running(tmp_path) as hub:
        await agent.enrol(hub)
        bays = agent.resource()
        await agent.send(hub, bays.registration)
        one = bays.seal()

        def sweep(name: str) -> None:
            if name == "pack.folder-synced":
                next((tmp_path / "packs").glob("*/*.pack")).unlink()

        with at_points(sweep):
            outcome = await agent.send(hub, item(one))
        assert verdicts(outcome) == ["Later"]
        assert verdicts(await agent.send(hub, item(one))) == ["Accepted"]
        await check_whole(hub)


async def test_object_missing(tmp_path: Path) -> None:
    """A pack that is gone is said to be gone: never an empty body, never a wrong one."""
    agent = Agent("a")
    async with running(tmp_path) as hub:
        await agent.enrol(hub)
        bays = agent.resource()
        one = bays.seal()
        await agent.send(hub, bays.registration, item(one))
        next((tmp_path / "packs").glob("*/*.pack")).unlink()
        with pytest.raises(FatalError) as caught:
            await hub.reading.segment(one.id)
        assert caught.value.code is Code.STORAGE_DAMAGED
        with pytest.raises(FatalError):
            await hub.reading.part(one.id, 0)
        # An agent that still holds it sends it again: a duplicate by its row, but not on the disk.
        outcome = await agent.send(hub, item(one))
        assert verdicts(outcome) == ["Accepted"]
        assert await hub.reading.segment(one.id) == one.raw
        assert verdicts(await agent.send(hub, item(one))) == ["Duplicate"]
        await check_whole(hub)


async def test_conflict_costs_only_the_item(tmp_path: Path, monkeypatch) -> None:
    """Another process moves one stream between the judging and the compare-and-set."""
    crowd = [Agent(f"c{n}") for n in range(5)]
    async with running(tmp_path) as hub:
        sources = [one.resource() for one in crowd]
        for one, source in zip(crowd, sources, strict=True):
            await one.enrol(hub)
            await one.send(hub, source.registration, item(source.seal()))
        rows = await hub.store.read(streams.all_of, crowd[3].id)
        real = streams.move

        def raced(tx, moves) -> bool:
            wanted = list(moves)
            return real(tx, wanted) and all(one.stream != rows[0].n for one in wanted)

        with monkeypatch.context() as patch:
            patch.setattr(streams, "move", raced)
            outcomes = await asyncio.gather(
                *(
                    one.send(hub, *items(source.many(3)))
                    for one, source in zip(crowd, sources, strict=True)
                )
            )
        for number, outcome in enumerate(outcomes):
            expected = ["Later", "Missing", "Missing"] if number == 3 else ["Accepted"] * 3
            assert verdicts(outcome) == expected, number
        await check_whole(hub)


async def test_any_process_signs_the_same_checkpoint(tmp_path: Path) -> None:
    agent = Agent("a")
    async with running(tmp_path) as hub:
        await agent.enrol(hub)
        bays = agent.resource()
        outcome = await agent.send(hub, bays.registration, item(bays.seal()))
        head = await hub.store.read(leaves.live)
        other = Ledger(name=hub.ledger.origin(1).rpartition("/")[0], key=hub.ledger.key)
        assert other.sign(head) == outcome.checkpoint.text
        assert HUB_KEY.public != hub.ledger.key.public


def test_a_pack_is_named_by_its_bytes(tmp_path: Path) -> None:
    bodies = Bodies(tmp_path / "packs")
    written = bodies.write([b"one", memoryview(b"three"), b""])
    assert written.name == hashlib.sha256(b"onethree").hexdigest()
    assert written.offsets == [0, 3, 8]
    assert bodies.read(written.name, 3, 5) == b"three"
    with pytest.raises(EOFError):
        bodies.read(written.name, 3, 6)
    with pytest.raises(FileNotFoundError):
        bodies.read("00" * 32, 0, 1)


async def test_two_processes_same_number(tmp_path: Path) -> None:
    """A barrier before the lock: both have verified and packed; one is accepted, one is a fork."""
    async with running(tmp_path) as one, running(tmp_path) as two:
        agent, twin = Agent("a"), Agent("a", nonces=itertools.count(1000))
        await agent.enrol(one)
        bays = agent.resource()
        await agent.send(one, bays.registration, item(bays.seal()))
        barrier = threading.Barrier(2, timeout=30)

        def meet(name: str) -> None:
            if name == "pack.folder-synced":
                barrier.wait()

        with at_points(meet):
            outcomes = await asyncio.gather(
                agent.send(one, item(bays.sealed(value=1))),
                twin.send(two, item(bays.sealed(value=2))),
            )
        assert sorted(verdicts(outcomes[0]) + verdicts(outcomes[1])) == ["Accepted", "Fork"]
        await check_whole(one)


async def test_heads_move_by_compare_and_set_only(tmp_path: Path) -> None:
    agent = Agent("a")
    async with running(tmp_path) as hub:
        await agent.enrol(hub)
        bays = agent.resource()
        one = bays.seal()
        await agent.send(hub, bays.registration, item(one))
        row = (await hub.store.read(streams.all_of, agent.id))[0]
        new = streams.Move(stream=row.n, old_seq=0, old_head=one.id, seq=1, head=b"n" * 32)
        for stale in (
            msgspec.structs.replace(new, old_seq=1),
            msgspec.structs.replace(new, old_head=b"x" * 32),
            msgspec.structs.replace(new, stream=row.n + 1),
        ):
            assert not await hub.store.write("move", streams.move, [stale])
        assert await hub.store.write("move", streams.move, [new])
        assert not await hub.store.write("move", streams.move, [new])


async def test_sweeper_checks_again_under_the_lock(tmp_path: Path) -> None:
    """Between its listing and the lock a pack was referred to, or its bodies came again."""
    agent = Agent("a")
    async with running(tmp_path) as hub:
        await agent.enrol(hub)
        bays = agent.resource()
        await agent.send(hub, bays.registration, item(bays.seal()))
        orphan = hub.bodies.write([b"nobody's"]).name
        used = next(iter(await hub.store.read(packs.names)))
        sweeper = Sweeper(hub.store, hub.bodies)

        async def remove(name: str, limit_s: float) -> int:
            return await hub.store.write("sweep", sweeper._remove, f"{name}.pack", limit_s)

        assert await remove(used, 1e12) == 0, "referred to"
        assert await remove(orphan, 1.0) == 0, "young"
        assert await remove(orphan, 1e12) == 1
        assert await remove(orphan, 1e12) == 0, "gone already"
        assert hub.bodies.size_of(used) is not None


async def test_points_stand_around_the_commit(tmp_path: Path) -> None:
    async with running(tmp_path) as hub:
        seen: list[str] = []
        with at_points(seen.append):
            await hub.store.write("step", lambda _tx: seen.append("work"))
        assert seen == ["work", "step.before", "step.after"]
