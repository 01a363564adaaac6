"""A hub that took segments must show them: the ledger says how many there are."""

import asyncio
from pathlib import Path

import pytest
from aiohttp import web

from hub.owner import cli
from hub.owner.account import WithheldError
from hub.owner.state import Memory
from hub.owner.verify import UnprovenError
from protocol import wire
from protocol.envelope import make
from protocol.errors import VerifyError
from protocol.ids import StreamId, resource_id, show
from protocol.notes import Correction, Gap, make_correction, make_gap
from protocol.segment import Continues
from tests.owner.test_read import joined, read, read_again
from tests.owner.world import T0, World, rand

pytestmark = pytest.mark.usefixtures("in_english")


@pytest.mark.parametrize("kept", [0, 3, 5])
async def test_withheld_tail_is_found_at_the_first_reading(key: Path, kept: int) -> None:
    world = World()
    world.fill(6)
    missing = {one.id.hex() for one in world.chains[b"s" * 16][kept:]}
    del world.items[kept:]
    with pytest.raises(WithheldError) as found:
        await read(world, key)
    assert set(found.value.missing) == missing


async def test_withheld_tail_that_the_hub_denies_to_have(key: Path) -> None:
    world = World()
    world.fill(3)
    world.bodies.pop(world.chains[b"s" * 16][2].id.hex())
    del world.items[2:]
    with pytest.raises(WithheldError):
        await read(world, key)


async def test_withheld_stream_that_a_shown_one_continues(key: Path) -> None:
    world = World()
    world.fill(2)
    last = world.chains[b"s" * 16][-1]
    follows = Continues(StreamId(b"s" * 16), 1, last.id, "fork")
    world.accept(world.segment(b"t" * 16, first=20, continues=follows))
    del world.items[:2]
    with pytest.raises(WithheldError) as found:
        await read(world, key)
    assert last.id.hex() in found.value.missing


async def test_stream_is_never_shown_shorter_than_it_was(key: Path) -> None:
    world = World()
    world.fill(3)
    async with joined(world, key):
        assert len(await read_again(key)) == 30
        shown = world.items.pop()
        world.accept(world.segment(b"t" * 16, first=100))  # the ledger goes on
        with pytest.raises(WithheldError) as found:
            await read_again(key)
        assert found.value.missing == [f"{show(StreamId(b's' * 16))}/2"]
        world.items.append(shown)
        assert len(await read_again(key)) == 40


async def test_only_new_leaves_are_read_again(key: Path) -> None:
    world = World()
    for number in range(300):
        world.accept(world.segment(first=number, count=1, rows=[(b"r" * 8, number, number)]))
    world.wrap()
    async with joined(world, key):
        assert len(await read_again(key)) == 300
        (place,) = Memory(key).find(None).scanned.values()
        assert place == 300
        world.asked.clear()
        world.accept(world.segment(first=300, count=1, rows=[(b"r" * 8, 300, 300)]))
        withheld = world.items.pop()
        with pytest.raises(WithheldError):
            await read_again(key)
        world.items.append(withheld)
        world.items.pop(10)  # a hole is found by the chain, whatever was scanned
        with pytest.raises(UnprovenError):
            await read_again(key)


async def test_segments_of_the_gateways_other_resources_are_no_loss(key: Path) -> None:
    world = World()
    world.fill(2)
    other = World(name="west-gate")
    other.log = world.log
    other.fill(2)

    def fault(request: web.Request) -> web.StreamResponse | None:
        path = request.path.strip("/").split("/")
        if path == ["v1", "resources"]:
            agent = show(world.agent.principal)
            lines = [{"resource": show(one.resource), "agent": agent} for one in (world, other)]
            return web.json_response({"items": lines, "next": None})
        if path[:3] == ["v1", "resources", show(other.resource)] and path[3] == "segments":
            return web.Response(body=wire.encode({"items": other.items, "next": None}))
        if path[:2] == ["v1", "segments"] and path[2] in other.bodies:
            return web.Response(body=other.bodies[path[2]])
        return None

    world.fault = fault
    async with joined(world, key):
        assert len(await read_again(key)) == 20
        # What was shown of the other one is remembered as well.
        assert {top.resource for top in Memory(key).find(None).tops.values()} == {
            show(world.resource),
            show(other.resource),
        }


async def test_segments_that_arrive_while_we_list_accuse_nobody(key: Path) -> None:
    world = World()
    world.fill(2)
    late = world.segment(first=20)
    asked: list[str] = []

    def fault(request: web.Request) -> None:
        if request.path.endswith("/checkpoint") and not asked:
            asked.append(request.path)
            world.accept(late)

    world.fault = fault
    assert len(await read(world, key)) == 30


async def test_what_the_hub_calls_anothers_is_told_every_time(
    key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World()
    world.fill(3)
    hidden = world.chains[b"s" * 16][2].id.hex()
    world.items.pop()
    refusal = {"error": {"key": "not-owner"}}
    world.fault = lambda request: (
        web.json_response(refusal, status=403) if request.path.endswith(hidden) else None
    )
    async with joined(world, key):
        for _ in range(2):
            status, _, err = await run(key, capsys)
            assert status == cli.INCOMPLETE
            assert "1 segments that, by its word, are another owner's" in err


# --- notes ----------------------------------------------------------------------------------------


def gap(world: World, **changes: object) -> bytes:
    fields = {
        "resource": world.resource, "stream": StreamId(b"s" * 16), "unit": "time", "first": T0,
        "last": T0 + 5_000_000, "count": 7, "reason": "spool full\x1b[2J", "nonce": rand("g", 16),
    }  # fmt: skip
    return make_gap(Gap(**(fields | changes)), world.agent).raw  # type: ignore[arg-type]


async def run(key: Path, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str, str]:
    words = ["read", "east-gate", "--key", str(key)]
    words += ["--passphrase-file", str(key.parent / "phrase"), *more]
    status = await asyncio.to_thread(cli.main, words)
    out, err = capsys.readouterr()
    return status, out, err


async def test_declared_gap_makes_a_reading_incomplete(
    key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World()
    world.fill(2)
    world.notes = [gap(world), gap(world, unit="row", first=3, last=9, count=None)]
    async with joined(world, key):
        status, out, err = await run(key, capsys)
        assert (status, len(out.splitlines())) == (cli.INCOMPLETE, 20)
        assert "2 declared gaps; 7 records lost" in err
        assert "spool full" in err
        assert "\x1b" not in err
        world.notes.pop()
        status, _, err = await run(key, capsys, "--since", "2026-11-21T00:00:10Z")
        assert (status, "declared" in err) == (cli.OK, False), "the gap is before the interval"


async def test_correction_is_told_and_times_stay(
    key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World()
    world.fill(2)
    made = Correction(
        stream=StreamId(b"s" * 16), first_seq=1, last_seq=1, offset_us=-90_500_000,
        nonce=rand("c", 16),
    )  # fmt: skip
    world.notes = [make_correction(made, world.agent).raw]
    async with joined(world, key):
        status, out, err = await run(key, capsys)
    assert status == cli.OK
    assert "-90.500000 s" in err
    assert "2026-11-21T00:00:10Z to 2026-11-21T00:00:19Z" in err
    assert '"event_time":"2026-11-21T00:00:10Z"' in out


@pytest.mark.parametrize("lie", ["other signer", "other resource", "other stream"])
async def test_false_note_is_not_believed(key: Path, lie: str) -> None:
    world = World()
    world.fill(1)
    if lie == "other signer":
        fields = wire.decode_any(_payload(gap(world)), limit=65536)
        world.notes = [make("gap", fields, world.hub).raw]  # type: ignore[arg-type]
    elif lie == "other resource":
        world.notes = [gap(world, resource=resource_id(world.agent.principal, "x"))]
    else:
        made = Correction(
            stream=StreamId(b"x" * 16), first_seq=0, last_seq=0, offset_us=1, nonce=rand("c", 16)
        )
        world.notes = [make_correction(made, world.agent).raw]
    with pytest.raises(VerifyError):
        await read(world, key)


def _payload(raw: bytes) -> bytes:
    from protocol.envelope import parse

    return parse(raw).payload


# --- wrong use ------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--since", "--until"])
async def test_time_that_is_none_is_wrong_use(
    key: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    status, _, err = await run(key, capsys, option, "garbage")
    assert status == cli.USAGE
    assert "2026-05-01T08:00:00Z" in err
    assert "NOT VERIFIED" not in err


async def test_token_that_is_none_is_wrong_use(
    key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["principal", "add", "--key", str(key), "--hub", "http://127.0.0.1:1"]
    status = await asyncio.to_thread(cli.main, [*words, "--token", "SM1-garbage"])
    _, err = capsys.readouterr()
    assert status == cli.USAGE
    assert "SM1-" in err
    assert "NOT VERIFIED" not in err
