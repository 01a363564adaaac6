"""`shanmen read` believes nothing: each lie of a hub is found and its segment named; honest data comes out whole."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from hub.owner import cli, keyfile
from hub.owner.join import add_principal
from hub.owner.reading import Interval, open_reading
from hub.owner.state import Known, Memory
from hub.owner.verify import UnprovenError
from protocol.envelope import SigningKey
from protocol.errors import Code, RefusedError, ShanmenError, UnavailableError, VerifyError
from protocol.grades import Grade
from protocol.ids import PrincipalId, SegmentId, StreamId, show
from protocol.leaf import State
from protocol.records import to_records
from protocol.segment import Continues
from protocol.wraps import Seen
from tests.owner.conftest import PASSPHRASE
from tests.owner.world import DAY, T0, Log, World, rand

pytestmark = pytest.mark.usefixtures("in_english")


@asynccontextmanager
async def joined(world: World, key: Path) -> AsyncIterator[str]:
    """The world's hub as a server that the key's owner has joined."""
    async with world.server() as server:
        url = str(server.make_url("")).rstrip("/")
        await add_principal(key, url=url, token=world.token.text, ca="")
        yield url


async def read(
    world: World, key: Path, name: str = "east-gate", interval: Interval = Interval()
) -> list:
    async with joined(world, key):
        return await read_again(key, name, interval)


async def read_again(key: Path, name: str = "east-gate", interval: Interval = Interval()) -> list:
    keys = keyfile.unlock(key, PASSPHRASE)
    records = []
    async with open_reading(key, keys, name, hub=None) as reading:
        async for columns in reading.records(interval):
            records += to_records(columns)
    return records


def east_gate(key: Path) -> list[str]:
    """The command that reads the world's resource."""
    phrase = str(key.parent / "phrase")
    return ["read", "east-gate", "--key", str(key), "--passphrase-file", phrase]


async def test_sealed_records_come_back_as_they_were(key: Path) -> None:
    world = World()
    world.fill()
    records = await read(world, key)
    assert len(records) == 30
    assert [one.event_time_us for one in records] == [T0 + n * 1_000_000 for n in range(30)]
    assert records[4].values == {"gate_no": "E1", "persons": 2, "ticket_ref": rand("t4", 8)}


async def test_open_records_come_back_without_any_wrap(key: Path) -> None:
    world = World(grade=Grade.GENERALLY_OPEN)
    world.fill()
    assert len(await read(world, key)) == 30
    assert "/v1/wraps" not in world.asked


async def test_resource_is_found_by_id_too_and_only_by_what_derives_it(key: Path) -> None:
    world = World()
    world.fill()
    assert len(await read(world, key, show(world.resource))) == 30
    with pytest.raises(RefusedError):
        await read(world, key, "west-gate")


async def test_pages_and_interval(key: Path) -> None:
    world = World(page=2)
    world.fill(5)
    assert len(await read(world, key)) == 50
    world.asked.clear()
    wanted = Interval(T0 + 15_000_000, T0 + 25_000_000)
    records = await read(world, key, interval=wanted)
    assert {one.event_time_us // 10_000_000 for one in records} == {
        T0 // 10_000_000 + 1,
        T0 // 10_000_000 + 2,
    }
    assert sum(path.startswith("/v1/segments/") for path in world.asked) == 2


async def test_long_ledger_and_its_growth(key: Path) -> None:
    world = World()
    world.fill(2)
    for number in range(700):
        world.log.append(
            b"\x95\x01\xa5grant"
            b"\xc4\x20" + rand(str(number), 32) + b"\xc4\x20" + rand("r", 32) + b"\x01"
        )
    async with joined(world, key):
        assert len(await read_again(key)) == 20
        world.accept(world.segment(first=20))
        assert len(await read_again(key)) == 30
    assert Memory(key).find(None).last().size == 703  # type: ignore[union-attr]


async def test_header_only_segment_is_told_and_its_body_may_follow(key: Path) -> None:
    world = World()
    world.fill(1)
    late = world.segment(first=10)
    world.accept(late, state=State.HEADER)
    async with joined(world, key):
        keys = keyfile.unlock(key, PASSPHRASE)
        async with open_reading(key, keys, "east-gate", hub=None) as reading:
            assert [one.id for one in reading.found.without_body] == [late.id]
        world.accept(late)
        assert len(await read_again(key)) == 20


@pytest.mark.parametrize("known", [True, False])
async def test_stream_that_continues_another_is_told(
    key: Path, capsys: pytest.CaptureFixture[str], known: bool
) -> None:
    """A restored gateway names its own last segment, which the hub may never have had."""
    world = World()
    world.fill(2)
    named = world.chains[b"s" * 16][-1].id if known else SegmentId(rand("own", 32))
    follows = Continues(StreamId(b"s" * 16), 1, named, "fork")
    world.accept(world.segment(b"t" * 16, first=20, continues=follows))
    async with joined(world, key):
        status, out, err = await run(capsys, *east_gate(key))
    assert (status, len(out.splitlines())) == (0, 30)
    assert "continues another: fork" in err


# --- lies -----------------------------------------------------------------------------------------


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def body_flipped(world: World) -> SegmentId:
    world.fill()
    victim = world.chains[b"s" * 16][1]
    world.bodies[victim.id.hex()] = flip(victim.raw, len(victim.raw) - 3)
    return victim.id


def other_segments_body(world: World) -> SegmentId:
    world.fill()
    first, second, _ = world.chains[b"s" * 16]
    world.bodies[second.id.hex()] = first.raw
    return second.id


def leaf_of_another_agent(world: World) -> SegmentId:
    world.fill(2)
    world.accept(made := world.segment(first=20), leaf_agent=PrincipalId(rand("x", 16)))
    return made.id


def leaf_that_names_another(world: World) -> SegmentId:
    world.fill(2)
    world.accept(made := world.segment(first=20), named=SegmentId(rand("x", 32)))
    return made.id


def header_leaf_sold_as_body(world: World) -> SegmentId:
    world.fill(2)
    world.accept(made := world.segment(first=20), state=State.HEADER)
    world.items[-1][0] = int(State.BODY)
    return made.id


def leaf_beyond_the_checkpoint(world: World) -> SegmentId:
    world.fill(2)
    world.accept(made := world.segment(first=20))
    world.items[-1][1] = 99
    return made.id


def segment_left_out(world: World) -> SegmentId:
    world.fill(3)
    del world.items[1]
    return world.chains[b"s" * 16][2].id


def first_segment_left_out(world: World) -> SegmentId:
    world.fill(3)
    del world.items[0]
    return world.chains[b"s" * 16][1].id


def chain_broken(world: World) -> SegmentId:
    world.fill(2)
    world.accept(made := world.segment(first=20, prev=SegmentId(rand("p", 32))))
    return made.id


def rows_named_twice(world: World) -> SegmentId:
    world.fill(2)
    world.accept(made := world.segment(b"t" * 16, first=12))
    return made.id


def entry_of_other_grade(world: World) -> SegmentId:
    world.fill(2)
    looser = World(grade=Grade.PUBLICABLE)
    world.objects.update(looser.objects)
    world.accept(made := world.segment(first=20, entry=looser.entry.object_id))
    return made.id


def entry_swapped(world: World) -> SegmentId:
    world.fill(1)
    world.objects[world.entry.object_id.hex()] = world.register(name_zh="西门").raw
    return world.chains[b"s" * 16][0].id


def values_outside_the_schema(world: World) -> SegmentId:
    world.fill(1)
    columns = world.records(10, 10)
    columns.fields["persons"][3] = -5
    world.accept(made := world.segment(first=10, columns=columns))
    return made.id


def records_outside_the_keys_interval(world: World) -> SegmentId:
    world.fill(1)
    columns = world.records(10, 10)
    columns.event_time[-1] = T0 + DAY
    world.accept(made := world.segment(first=10, columns=columns))
    return made.id


def sealed_with_an_unwrapped_key(world: World) -> SegmentId:
    world.fill(1)
    keys = {
        n: type(k)(
            resource=k.resource, epoch=1, group=n, key=rand("other", 32), from_us=T0, to_us=T0 + DAY
        )
        for n, k in world.epoch_keys().items()
    }
    world.accept(made := world.segment(first=10, keys=keys))
    return made.id


@pytest.mark.parametrize(
    "lie",
    [
        body_flipped,
        other_segments_body,
        leaf_of_another_agent,
        leaf_that_names_another,
        header_leaf_sold_as_body,
        leaf_beyond_the_checkpoint,
        segment_left_out,
        first_segment_left_out,
        chain_broken,
        rows_named_twice,
        entry_of_other_grade,
        entry_swapped,
        values_outside_the_schema,
        records_outside_the_keys_interval,
        sealed_with_an_unwrapped_key,
    ],
)
async def test_lie_is_found_and_its_segment_named(
    key: Path, lie: Callable[[World], SegmentId]
) -> None:
    world = World()
    segment = lie(world)
    with pytest.raises(UnprovenError) as found:
        await read(world, key)
    assert found.value.segment == segment.hex()


def head_flipped(world: World) -> None:
    world.fill()
    world.items[1][2] = flip(world.items[1][2], 60)


def signed_by_a_stranger(world: World) -> None:
    world.fill(1)
    world.accept(
        world.segment(
            first=10,
            signer=SigningKey(rand("thief", 32)),
            agent=PrincipalId(SigningKey(rand("thief", 32)).principal),
        )
    )


def agents_key_swapped(world: World) -> None:
    world.fill()
    thief = World(agent=SigningKey(rand("thief", 32)))
    world.objects[show(world.agent.principal)] = thief.objects[show(thief.agent.principal)]


def wrap_of_another_resource(world: World) -> None:
    world.wrap(world.epoch_keys(resource=rand("r", 16)))
    world.accept(world.segment())


def wrap_flipped(world: World) -> None:
    world.fill(1)
    world.wraps[0] = flip(world.wraps[0], len(world.wraps[0]) - 70)


def agent_saw_another_ledger(world: World) -> None:
    world.wrap(seen=Seen(world.log.origin, 1, rand("fork", 32)))
    world.accept(world.segment())
    world.accept(world.segment(first=10))


def agent_saw_a_longer_ledger(world: World) -> None:
    world.wrap(seen=Seen(world.log.origin, 50, rand("fork", 32)))
    world.accept(world.segment())


def checkpoint_of_another_log_key(world: World) -> None:
    world.fill()
    world.log.key = SigningKey(rand("other log", 32))


def tile_changed(world: World) -> None:
    world.fill(4)
    world.log.hashes[0, 1] = rand("tile", 32)


@pytest.mark.parametrize(
    "lie",
    [
        head_flipped,
        signed_by_a_stranger,
        agents_key_swapped,
        wrap_of_another_resource,
        wrap_flipped,
        agent_saw_another_ledger,
        agent_saw_a_longer_ledger,
        checkpoint_of_another_log_key,
        tile_changed,
    ],
)
async def test_lie_about_everything_is_found(key: Path, lie: Callable[[World], None]) -> None:
    world = World()
    lie(world)
    with pytest.raises(ShanmenError) as found:
        await read(world, key)
    assert not isinstance(found.value, UnavailableError)


async def test_wrap_by_another_maker_opens_nothing(key: Path) -> None:
    world = World()
    world.wrap(maker=SigningKey(rand("thief", 32)))
    world.accept(world.segment())
    with pytest.raises(UnprovenError):
        await read(world, key)


async def test_what_the_agent_saw_of_the_same_ledger_agrees(key: Path) -> None:
    world = World()
    for number in range(5):
        world.accept(world.segment(first=number * 10))
        if number == 2:
            world.wrap(seen=Seen(world.log.origin, world.log.tree.size, world.log.tree.root()))
    assert len(await read(world, key)) == 50


@pytest.mark.parametrize("order", [[0], [0, 1], [0, 2, 1], [1, 0, 2, 2], [0, 1, 1, 2, 2]])
async def test_ledger_that_went_back_or_was_rewritten_is_found(key: Path, order: list[int]) -> None:
    world = World()
    world.fill(3)
    async with joined(world, key):
        await read_again(key)
        old = world.log
        world.log = Log(world)
        for number in order:
            world.log.append(old.leaves[number])
        with pytest.raises(VerifyError) as found:
            await read_again(key)
        assert found.value.code in {Code.TREE_SMALLER, Code.CONSISTENCY_INVALID, Code.PROOF_INVALID}
        world.log = old
        assert len(await read_again(key)) == 30, (
            "what was seen is not replaced by what did not verify"
        )


async def test_restored_hub_is_believed_under_its_statement_and_told(
    key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World()
    world.fill(4)
    words = east_gate(key)
    async with joined(world, key):
        assert len(await read_again(key)) == 40
        world.restore(kept=2, generation=3)
        world.accept(*world.chains[b"s" * 16][2:])  # the gateway sends again what the hub lost
        status, out, err = await run(capsys, *words)
        assert (status, len(out.splitlines())) == (0, 40)
        assert "restored" in err
        status, out, err = await run(capsys, *words)
        assert (status, len(out.splitlines())) == (0, 40)
        assert "restored" not in err, "told once; the new generation is pinned"
        world.restore(kept=2, generation=4)
        world.accept(world.chains[b"s" * 16][3])
        assert len(await read_again(key)) == 40, "segments of three generations"


async def test_hub_that_lost_a_whole_generation(key: Path) -> None:
    world = World()
    world.fill(1)
    world.restore(kept=1, generation=1)
    async with joined(world, key):
        assert len(await read_again(key)) == 10
        first = world.frozen["0"]
        world.log = first
        world.frozen = {}
        world.restore(kept=1, generation=2)  # from a backup older than generation 1
        assert len(await read_again(key)) == 10


@pytest.mark.parametrize("lie", ["no statement", "other size"])
async def test_restored_hub_without_statement_is_not_believed(key: Path, lie: str) -> None:
    world = World()
    world.fill(3)
    async with joined(world, key):
        await read_again(key)
        world.restore(kept=2, size=3 if lie == "other size" else None)
        if lie == "no statement":
            world.log = Log(world, 1)
            world.log.append(world.frozen["0"].leaves[0])
        with pytest.raises(VerifyError) as found:
            await read_again(key)
        assert found.value.code is Code.GENERATION_UNKNOWN


async def test_agents_may_have_seen_more_of_a_frozen_generation(key: Path) -> None:
    world = World()
    world.fill(3)
    world.wraps.clear()
    world.wrap(seen=Seen(world.log.origin, 3, world.log.tree.root()))
    world.restore(kept=2)
    world.accept(world.chains[b"s" * 16][2])
    assert len(await read(world, key)) == 30


def test_memory_never_goes_back_to_an_older_ledger(key: Path) -> None:
    world = World()
    known = Known(
        hub=world.hub.principal,
        url="http://127.0.0.1:1",
        signing_key=b"k" * 32,
        log_key=world.log_key.public,
        generation=0,
    )
    world.fill(1)
    early = msgspec.structs.replace(known, checkpoint=world.log.note())
    first, second = Memory(key), Memory(key)
    world.accept(world.segment(first=10))
    first.put(msgspec.structs.replace(known, checkpoint=world.log.note()))
    second.put(msgspec.structs.replace(early, agents={"a": b"key"}))
    (kept,) = (Memory(key).find(None),)
    assert kept.last().size == 2  # type: ignore[union-attr]
    assert kept.agents == {"a": b"key"}


# --- joining --------------------------------------------------------------------------------------


async def test_hub_is_pinned_by_the_token(key: Path) -> None:
    world = World()
    world.fill()
    async with joined(world, key) as url:
        known = Memory(key).find(url)
        assert (known.hub, known.log_key) == (world.hub.principal, world.log_key.public)
        assert keyfile.read_object(key) == world.posted[0]
        await read_again(key)
        await add_principal(key, url=url, token=world.token.text, ca="")
        assert Memory(key).find(url).last() is not None, (
            "joining again forgets nothing that was seen"
        )


async def test_other_hub_than_the_tokens_gets_no_principal(key: Path) -> None:
    world = World()
    other = World(hub=SigningKey(rand("other hub", 32)))
    async with other.server() as server:
        with pytest.raises(VerifyError) as found:
            await add_principal(key, url=str(server.make_url("")), token=world.token.text, ca="")
    assert found.value.code is Code.WRONG_HUB
    assert other.posted == []


async def test_plain_http_goes_to_loopback_only(key: Path) -> None:
    with pytest.raises(RefusedError) as found:
        await add_principal(key, url="http://hub.example", token=World().token.text, ca="")
    assert found.value.code is Code.PLAIN_HTTP


async def test_hub_that_says_no_is_quoted(key: Path) -> None:
    world = World()
    refusal = web.json_response(
        {"error": {"key": "token-used", "expected": "a new token"}}, status=409
    )
    world.fault = lambda request: refusal if request.method == "POST" else None
    async with world.server() as server:
        with pytest.raises(RefusedError) as found:
            await add_principal(key, url=str(server.make_url("")), token=world.token.text, ca="")
    assert found.value.code is Code.TOKEN_USED


# --- the command ----------------------------------------------------------------------------------


async def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    import asyncio

    status = await asyncio.to_thread(cli.main, list(words))
    out, err = capsys.readouterr()
    return status, out, err


async def test_command_prints_json_lines_and_csv(
    key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World()
    world.fill()
    words = east_gate(key)
    async with joined(world, key):
        status, out, err = await run(capsys, *words)
        assert (status, len(out.splitlines())) == (0, 30)
        row = json.loads(out.splitlines()[4])
        assert row == {
            "event_time": "2026-11-21T00:00:04Z",
            "device": "E1",
            "quality": [],
            "gate_no": "E1",
            "persons": 2,
            "ticket_ref": rand("t4", 8).hex(),
        }
        assert "30 records in 3 segments" in err
        status, out, _ = await run(
            capsys,
            *words,
            "--csv",
            "--since",
            "2026-11-21T00:00:10Z",
            "--until",
            "2026-11-21T00:00:12Z",
        )
        assert out.splitlines() == [
            "event_time,device,quality,device_time,gate_no,persons,ticket_ref",
            f"2026-11-21T00:00:10Z,E1,,,E1,1,{rand('t10', 8).hex()}",
            f"2026-11-21T00:00:11Z,E1,,,E1,2,{rand('t11', 8).hex()}",
        ]


async def test_command_names_the_segment_and_fails(
    key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World()
    segment = body_flipped(world)
    async with joined(world, key):
        status, _, err = await run(capsys, *east_gate(key))
    assert status == cli.UNPROVEN
    assert segment.hex() in err


async def test_command_tells_incomplete_from_false(
    key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World()
    world.fill(1)
    world.accept(late := world.segment(first=10), state=State.HEADER)
    async with joined(world, key):
        status, out, err = await run(capsys, *east_gate(key))
    assert (status, len(out.splitlines())) == (cli.INCOMPLETE, 10)
    assert late.id.hex() in err


async def test_command_without_hub_or_with_wrong_passphrase(
    key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["read", "east-gate", "--key", str(key), "--passphrase-file"]
    assert (await run(capsys, *words, str(key.parent / "phrase")))[0] == cli.USAGE
    (key.parent / "wrong").write_text("wrong wrong wrong\n")
    status, _, err = await run(capsys, *words, str(key.parent / "wrong"))
    assert status == cli.USAGE
    assert "Wrong passphrase" in err
    Memory(key)
    async with joined(World(), key) as url:
        pass
    status, _, err = await run(capsys, *words, str(key.parent / "phrase"), "--hub", url)
    assert status == cli.REFUSED, "the server is gone"


async def test_key_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p").write_text("a long enough phrase\n")
    (tmp_path / "short").write_text("short\n")
    path, phrase = str(tmp_path / "k"), ["--passphrase-file", str(tmp_path / "p")]
    assert (await run(capsys, "key", "new", path, "--passphrase-file", str(tmp_path / "short")))[
        0
    ] == cli.USAGE
    status, made, err = await run(capsys, "key", "new", path, *phrase)
    assert status == 0
    assert "Losing this file" in err
    assert (await run(capsys, "key", "show", path))[1] == made
    assert (await run(capsys, "key", "new", path, *phrase))[0] == cli.USAGE
    assert (await run(capsys, "key", "backup", path, str(tmp_path / "c"), *phrase))[0] == 0
    assert (await run(capsys, "key", "show", str(tmp_path / "c")))[1] == made


async def test_chinese_by_lang(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANG", "zh_CN.UTF-8")
    (tmp_path / "p").write_text("a long enough phrase\n")
    _, _, err = await run(
        capsys, "key", "new", str(tmp_path / "k"), "--passphrase-file", str(tmp_path / "p")
    )
    assert "丢失此文件" in err
