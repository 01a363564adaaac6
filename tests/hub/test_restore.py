"""Backups, and hubs that were put back in time."""

import asyncio
import itertools
import shutil
from pathlib import Path

import pytest

from hub import maintenance
from hub.domain.users import Role
from hub.maintenance import backup, begin_generation, check_start, put_in_place, stage
from hub.store import audit, leaves, read_tokens, sessions, tokens, users
from hub.store.engine import Store
from hub.store.tokens import TokenRow
from protocol.errors import Code, ConfigError, FatalError, VerifyError
from protocol.leaf import GenerationLeaf, State, parse_leaf
from protocol.limits import SYNC_ITEMS_MAX
from protocol.messages import EvidenceItem, Later
from protocol.receipt import verify_receipt
from tests.hub.kit import BY, Agent, HubCore, Killed, head, item, items, kill_at, running, verdicts


async def check(hub: HubCore) -> None:
    await hub.store.read(check_start, hub.ledger, hub.last.read())


async def restore(
    source: Path, data: Path, *, above: int = 0, keep: bool = False
) -> maintenance.Restored:
    """What `shanmen-hub restore` does; keep: with a backup that can be written."""
    staged = stage(source, data)
    hub = HubCore(data)
    await hub.store.close()
    store = Store(staged)
    try:
        done = await begin_generation(
            store,
            hub.bodies,
            hub.ledger,
            hub.last.read(),
            by=BY,
            now_us=hub.now,
            noted=maintenance.opened_before(source),
            above=above,
        )
    finally:
        await store.close()
    if keep:
        assert maintenance.note_opened(source, done.generation)
    put_in_place(data)
    hub.ingest.close()
    return done


async def test_hub_restored_from_backup(tmp_path: Path) -> None:
    """Restored: new generation, statement, every held segment proven again, the rest completed."""
    data, saved = tmp_path / "data", tmp_path / "saved"
    data.mkdir()
    agent, quiet = Agent("a"), Agent("quiet")
    bays, gates = agent.resource("bays"), agent.resource("gates")
    old, new = bays.many(3), []
    async with running(data) as hub:
        await agent.enrol(hub)
        await quiet.enrol(hub)
        await agent.send(hub, bays.registration, *items(old))
        made = await backup(hub.store, hub.bodies, saved, now_us=hub.tick())
        assert (made.size, made.packs) == (1, 1)
        new = bays.many(2)
        outcome = await agent.send(hub, *items(new), gates.registration, item(gates.seal()))
        assert outcome.backed_up_to == 1
        assert outcome.checkpoint.size == 2
    done = await restore(saved, data)
    assert (done.generation, done.previous_size, done.lost_bodies) == (2, 1, 0)
    async with running(data) as hub:
        await check(hub)
        outcome = await agent.send(hub, bays.registration, *items(old[1:]))
        assert outcome.new_generation
        assert (outcome.hub.generation, outcome.backed_up_to) == (2, 0)
        assert verdicts(outcome) == ["Accepted"] * 3, "recorded anew, in the new generation"
        outcome = await agent.send(hub, *items(old), *items(new), gates.registration)
        assert all(one.accepted for one in outcome.items)
        assert verdicts(outcome)[:5] == [
            "Accepted",
            "Duplicate",
            "Duplicate",
            "Accepted",
            "Accepted",
        ]
        assert len(await hub.reading.segments_of(bays.id)) == 5
        assert await hub.reading.segment(old[0].id) == old[0].raw
        frozen = await hub.store.read(leaves.head, 1)
        assert (frozen.live, frozen.size) == (False, 1), "the old tree stays served"


@pytest.mark.parametrize("asks", ["for a page", "by a fork", "by an overlap"])
async def test_a_full_batch_after_a_restore_gets_the_whole_evidence(
    tmp_path: Path, asks: str
) -> None:
    """The leaf of a full batch has no room for old headers: that is not a fork without evidence."""
    data, saved = tmp_path / "data", tmp_path / "saved"
    data.mkdir()
    agent = Agent("a")
    bays, gates = agent.resource("bays"), agent.resource("gates")
    async with running(data) as hub:
        await agent.enrol(hub)
        old = bays.many(30, count=1)
        await agent.send(hub, bays.registration, gates.registration, *items(old))
        await backup(hub.store, hub.bodies, saved, now_us=hub.tick())
    await restore(saved, data)
    first = old[0].header
    if asks == "by a fork":
        bays.seq, bays.prev = 0, first.prev
        question = item(bays.sealed(value=1))
    elif asks == "by an overlap":
        said = bays.follow(b"\x02" * 16)
        rows = ((bays.run, 0, 29),)
        question = item(bays.sealed(30, continues=said, rows=rows))
    else:
        question = EvidenceItem(bays.id, first.stream, None)
    expected = "Overlap" if asks == "by an overlap" else "Fork"
    async with running(data) as hub:
        for room in (10, 1, 19):
            others = items(gates.many(SYNC_ITEMS_MAX - room, count=1))
            outcome = await agent.send(hub, *others, question)
            assert all(one.accepted for one in outcome.items[:-1])
            last = outcome.items[-1]
            if room < 19:
                assert isinstance(last.verdict, Later)
        assert type(last.verdict).__name__ == expected
        assert {one.id for one in last.evidence} == {one.id for one in old}
        assert {one.id for one in outcome.covered} == {one.id for one in old}


async def test_agent_that_never_synced_follows_the_statement(tmp_path: Path) -> None:
    data, saved = tmp_path / "data", tmp_path / "saved"
    data.mkdir()
    agent, source = Agent("a"), Agent("b").resource()
    async with running(data) as hub:
        await agent.enrol(hub)
        await source.agent.enrol(hub)
        # Its enrolment stands in generation 1 (here: any object of that id).
        await source.agent.send(hub, source.registration)
        await hub.store.write(
            "test",
            lambda tx: tx.exec_driver_sql(
                "UPDATE agent SET enrolment = ? WHERE id = ?",
                (source.entry.object_id, agent.id),
            ),
        )
        await backup(hub.store, hub.bodies, saved, now_us=hub.tick())
    await restore(saved, data)
    async with running(data) as hub:
        bays = agent.resource()
        outcome = await agent.send(hub, bays.registration, item(bays.seal()))
        assert (outcome.new_generation, verdicts(outcome)) == (True, ["Accepted"] * 2)


async def test_checkpoint_rolled_back(tmp_path: Path) -> None:
    """A database put back beside a newer `last-checkpoint` serves nothing until `restore`."""
    data, saved = tmp_path / "data", tmp_path / "saved"
    data.mkdir()
    agent = Agent("a")
    bays = agent.resource()
    async with running(data) as hub:
        await agent.enrol(hub)
        await agent.send(hub, bays.registration, item(bays.seal()))
        await check(hub)
    shutil.copytree(data, saved)
    async with running(data) as hub:
        await agent.send(hub, item(bays.seal()))
        await check(hub)
    shutil.copy(saved / "hub.db", data / "hub.db")
    async with running(data) as hub:
        with pytest.raises(FatalError) as caught:
            await check(hub)
        assert caught.value.code is Code.TREE_SMALLER
        notes = hub.last.read()
        await begin_generation(hub.store, hub.bodies, hub.ledger, notes, by=BY, now_us=hub.now)
        await check(hub)
        assert (await agent.send(hub, item(bays.seal()))).new_generation


async def test_a_database_of_another_history_serves_nothing(tmp_path: Path) -> None:
    """Put back *and* grown again past the file: sizes do not show it, the root does."""
    data, saved = tmp_path / "data", tmp_path / "saved"
    data.mkdir()
    agent = Agent("a")
    bays = agent.resource()
    async with running(data) as hub:
        await agent.enrol(hub)
        await agent.send(hub, bays.registration, item(bays.seal()))
    shutil.copytree(data, saved)
    async with running(data) as hub:
        await agent.send(hub, item(bays.sealed(value=1)))
    async with running(saved) as hub:
        other = Agent("a", nonces=itertools.count(1000))
        await other.send(hub, item(bays.seal(value=2)))
        await other.send(hub, item(bays.seal(value=2)))
    shutil.copy(saved / "hub.db", data / "hub.db")
    async with running(data) as hub:
        with pytest.raises(FatalError) as caught:
            await check(hub)
        assert caught.value.code is Code.CONSISTENCY_INVALID


async def test_restored_hub_without_statement(tmp_path: Path) -> None:
    """A hub that goes on in a new generation and does not say why is not believed."""
    agent = Agent("a")
    bays = agent.resource()
    one = bays.seal()
    async with running(tmp_path) as hub:
        await agent.enrol(hub)
        await agent.send(hub, bays.registration, item(one))
        await begin_generation(hub.store, hub.bodies, hub.ledger, [], by=BY, now_us=hub.now)

        def silent(*_args: object) -> list[object]:
            return []

        from hub.answers import Answers

        real, Answers._statements = Answers._statements, silent
        try:
            with pytest.raises(VerifyError) as caught:
                await agent.send(hub, item(one))
        finally:
            Answers._statements = real
        assert caught.value.code is Code.GENERATION_UNKNOWN
        assert (await agent.send(hub, item(one))).new_generation


async def test_generation_statement_names_what_it_follows(tmp_path: Path) -> None:
    async with running(tmp_path) as hub:
        agent = Agent("a")
        await agent.enrol(hub)
        bays = agent.resource()
        outcome = await agent.send(hub, bays.registration, item(bays.seal()))
        last = outcome.checkpoint
        await begin_generation(
            hub.store, hub.bodies, hub.ledger, hub.last.read(), by=BY, now_us=hub.now
        )
        live = await hub.store.read(leaves.live)
        data = await hub.store.read(leaves.data, 2, [0])
        said = parse_leaf(data[0])
        assert isinstance(said, GenerationLeaf)
        assert (said.previous_origin, said.size, said.root) == (last.origin, last.size, last.root)
        assert (live.generation, live.size) == (2, 1)
        assert await hub.store.read(audit.verify) is None


async def test_no_generation_number_is_used_twice(tmp_path: Path) -> None:
    """The same old backup twice: the second restore knows of the first by the file outside."""
    data, saved = tmp_path / "data", tmp_path / "saved"
    data.mkdir()
    agent = Agent("a")
    async with running(data) as hub:
        await agent.enrol(hub)
        await agent.send(hub, agent.resource().registration)
        await backup(hub.store, hub.bodies, saved, now_us=hub.tick())
    assert (await restore(saved, data)).generation == 2
    async with running(data) as hub:
        await agent.send(hub, agent.resource().registration)
    assert (await restore(saved, data)).generation == 3
    async with running(data) as hub:
        await check(hub)


async def test_restored_without_packs_goes_on_header_only(tmp_path: Path) -> None:
    """A pack is missing: its segments are header-only until an agent in its grace sends them."""
    data, saved = tmp_path / "data", tmp_path / "saved"
    data.mkdir()
    agent = Agent("a")
    bays = agent.resource()
    gone, kept = bays.seal(), bays.seal()
    async with running(data) as hub:
        await agent.enrol(hub)
        await agent.send(hub, bays.registration, item(gone))
        await agent.send(hub, item(kept))
        await backup(hub.store, hub.bodies, saved, now_us=hub.tick())
        rows = await hub.reading.segments_of(bays.id)
    shutil.rmtree(data / "packs")
    first = min((saved / "packs").glob("*/*.pack"), key=lambda path: path.stat().st_size)
    sizes = {path.stat().st_size for path in (saved / "packs").glob("*/*.pack")}
    assert len(rows) == 2
    first.unlink()
    assert len(sizes) in {1, 2}
    done = await restore(saved, data)
    assert done.lost_bodies == 1
    async with running(data) as hub:
        states = {row.id: row.state for row in await hub.reading.segments_of(bays.id)}
        assert sorted(states.values()) == [State.BODY, State.HEADER]
        outcome = await agent.send(hub, item(gone), item(kept))
        assert [one.state for one in outcome.items] == [State.BODY] * 2
        assert await hub.reading.segment(gone.id) == gone.raw
        assert await hub.reading.segment(kept.id) == kept.raw


async def test_older_tokens_are_void_after_a_restore(tmp_path: Path) -> None:
    async with running(tmp_path) as hub:
        token = TokenRow(
            id=b"t" * 8, public=b"p" * 32, kind="site", site="lake", state="new",
            expires_us=hub.now + 10**12, request=None, created_us=hub.now,
        )  # fmt: skip
        await hub.store.write("add", tokens.add, token, BY)
        await hub.store.write(
            "add", lambda tx: read_tokens.add(tx, secret=b"s" * 16, name="x", by=BY, now_us=1)
        )
        await hub.store.write(
            "add",
            lambda tx: sessions.add(
                tx,
                token=b"c" * 32,
                user_id=users.add(
                    tx, name="li", role=Role.ADMIN, secret_hash="x", by=BY, now_us=1
                ).id,
                now_us=1,
            ),
        )
        assert await hub.store.read(sessions.find, sessions.digest(b"c" * 32)) is not None
        done = await begin_generation(hub.store, hub.bodies, hub.ledger, [], by=BY, now_us=hub.now)
        assert done.void_tokens == 1
        assert await hub.store.read(sessions.find, sessions.digest(b"c" * 32)) is None
        assert (await hub.store.read(tokens.get, token.id)).state == "void"
        assert not await hub.store.write("take", tokens.take, token.id, b"r" * 32)
        assert await hub.store.read(read_tokens.find, b"s" * 16) is None


async def test_old_receipts_still_verify_against_the_frozen_tree(tmp_path: Path) -> None:
    agent = Agent("a")
    bays = agent.resource()
    async with running(tmp_path) as hub:
        await agent.enrol(hub)
        await agent.send(hub, bays.registration, item(bays.seal()))
        await begin_generation(hub.store, hub.bodies, hub.ledger, [], by=BY, now_us=hub.now)
        frozen = await hub.store.read(leaves.head, 1)
        proof = (await hub.store.read(hub.ledger.inclusion, 1, [0], frozen.size))[0]
        from protocol.receipt import Receipt

        receipt = Receipt(
            leaf=proof.leaf, index=0, path=tuple(proof.path), checkpoint=hub.ledger.sign(frozen)
        )
        assert verify_receipt(receipt, hub.ledger.vkey(1), agent.id).agent == agent.id


async def test_backup_is_consistent_while_the_hub_writes_and_copies_only_what_is_new(
    tmp_path: Path,
) -> None:
    data, saved = tmp_path / "data", tmp_path / "saved"
    data.mkdir()
    agent = Agent("a")
    bays = agent.resource()
    async with running(data) as hub:
        await agent.enrol(hub)
        await agent.send(hub, bays.registration)

        async def write() -> None:
            for _ in range(20):
                await agent.send(hub, item(bays.seal()))

        writing = asyncio.ensure_future(write())
        first = await backup(hub.store, hub.bodies, saved, now_us=hub.tick())
        await writing
        again = await backup(hub.store, hub.bodies, saved, now_us=hub.tick())
        assert again.packs == 20
        assert again.copied <= 20 - first.packs
    await restore(saved, tmp_path / "data")
    async with running(data) as hub:
        rows = await hub.reading.segments_of(bays.id)
        assert [row.seq for row in rows] == list(range(20))
        assert all([await hub.reading.segment(row.id) for row in rows])


async def test_restore_refuses_a_folder_without_manifest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        stage(tmp_path, tmp_path)


@pytest.mark.parametrize(
    "name", ["restore.staged", "restore.packs", "restore.before", "restore.moved"]
)
async def test_restore_cut_off_is_run_again(tmp_path: Path, name: str) -> None:
    data, saved = tmp_path / "data", tmp_path / "saved"
    data.mkdir()
    agent = Agent("a")
    bays = agent.resource()
    one = bays.seal()
    async with running(data) as hub:
        await agent.enrol(hub)
        await agent.send(hub, bays.registration, item(one))
        await backup(hub.store, hub.bodies, saved, now_us=hub.tick())
    with kill_at(name), pytest.raises(Killed):
        await restore(saved, data)
    if name == "restore.moved":
        async with running(data) as hub:  # no database: the file outside says so
            with pytest.raises(FatalError):
                await check(hub)
    assert (await restore(saved, data)).generation == 2
    async with running(data) as hub:
        await check(hub)
        assert verdicts(await agent.send(hub, item(one), head(one))) == ["Accepted"] * 2


@pytest.mark.parametrize("name", ["backup.before", "backup.database", "backup.packs"])
async def test_backup_cut_off_is_no_backup(tmp_path: Path, name: str) -> None:
    data, saved = tmp_path / "data", tmp_path / "saved"
    data.mkdir()
    async with running(data) as hub:
        agent = Agent("a")
        await agent.enrol(hub)
        bays = agent.resource()
        await agent.send(hub, bays.registration, item(bays.seal()))
        with kill_at(name), pytest.raises(Killed):
            await backup(hub.store, hub.bodies, saved, now_us=hub.tick())
        outcome = await agent.send(hub, item(bays.seal()))
        assert outcome.backed_up_to == 0
        with pytest.raises(ConfigError):
            stage(saved, tmp_path / "elsewhere")
        await backup(hub.store, hub.bodies, saved, now_us=hub.tick())
        assert (await agent.send(hub, item(bays.seal()))).backed_up_to == 2
