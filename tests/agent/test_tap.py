"""`shanmen-agent watch`: what was committed is shown, in bounds, and what is personal is not."""

import asyncio
import contextlib
import json
import stat
import tempfile
from pathlib import Path

import msgspec
import pytest

from agent import cli
from agent.commands.tap_lines import Lines
from agent.commands.tap_socket import SOCKET, TapServer, watch
from agent.host.faults import Fault
from agent.host.messages import Messages
from agent.intake.tap import WAITING_MAX, WATCHERS_MAX, Shown, Tap, Watcher, Wish
from agent.store.ports import CoreSettings, ResourceSettings
from devices.driver import Promise, Reading, Rejected, Rows
from protocol.grades import Grade
from protocol.packs import Field
from protocol.records import Record
from tests.agent.kit import NOW_US, SECRET, Site, pack

TICKETS = ResourceSettings(
    local="tickets",
    pack=pack(
        "test.tickets",
        fields=[
            Field(name="persons", zh="人数", en="persons", type="int", unit="人", maximum=9,
                  grade=Grade.FULLY_OPEN),
            Field(name="holder", zh="持票人", en="holder", type="string", personal="personal",
                  group="personal", grade=Grade.SHAREABLE),
        ],
    ),
)  # fmt: skip


def check(persons: object, *, holder: str = "zhang-san", **more) -> Record:
    values = {"persons": persons, "holder": holder}
    return Record(event_time_us=NOW_US, device="E1", values=values, **more)


def given(*records: Record, resource: str = "tickets", **more) -> Reading:
    rows = [Rows(resource=resource, records=list(records))] if records else []
    return Reading(rows=rows, promise=Promise.A, **more)


@contextlib.asynccontextmanager
async def watched(folder, wish: Wish | None = None, **more):
    """A core whose main file is watched; yields (give, watcher)."""
    site = Site(
        Path(tempfile.mkdtemp(dir=folder)),
        settings=CoreSettings(resources=(TICKETS, SECRET), **more),
    )
    async with site.running():
        watcher = Watcher(wish or Wish())
        site.core.main.journal.tap.watchers.append(watcher)

        async def give(*readings: Reading) -> list[Shown]:
            async with asyncio.timeout(10):
                done = [site.core.pipeline.submit(one, driver="mqtt") for one in readings]
                await asyncio.gather(*done)
            return [watcher.waiting.get_nowait() for _ in range(watcher.waiting.qsize())]

        yield give, watcher


async def test_personal_values_are_shown_only_where_they_were_asked_for(tmp_path):
    async with watched(tmp_path) as (give, _):
        (one,) = await give(given(check(2, quality=1)))
        assert one.values == {"persons": 2}
        assert one.hidden == ("holder",)
        assert (one.resource, one.device, one.outcome) == ("tickets", "E1", "taken")
        assert one.quality == ("clock_gateway",)
    async with watched(tmp_path, Wish(personal=True)) as (give, _):
        (one,) = await give(given(check(2)))
        assert one.values == {"persons": 2, "holder": "zhang-san"}
        assert one.hidden == ()


async def test_each_record_is_shown_with_what_became_of_it(tmp_path):
    async with watched(tmp_path) as (give, _):
        twice = given(check(1), identity=b"one")
        shown = await give(twice, twice, given(check(12), check(3)))
        assert [(one.values.get("persons"), one.outcome) for one in shown] == [
            (1, "taken"),
            (1, "repeat"),
            (12, "refused"),
            (3, "taken"),
        ]
        assert shown[2].reason == "range"
        (again,) = await give(twice)
        assert again.outcome == "repeat"


@pytest.mark.parametrize(
    "wrong",
    [
        {"values": ["x"]},
        {"values": {"persons": object()}},
        {"device": 7},
        {"quality": "bad"},
        {"event_time_us": "noon"},
        {"values": {"holder": "\udce9"}},
        {"values": {"persons": 1 << 200}},
    ],
)
async def test_a_driver_that_makes_nonsense_breaks_neither_the_commit_nor_the_show(tmp_path, wrong):
    good, bad = check(1), check(2)
    fields = {name: getattr(bad, name) for name in bad.__struct_fields__} | wrong
    async with watched(tmp_path, Wish(personal=True)) as (give, _):
        shown = await give(given(good, Record(**fields), check(3)))
        assert [one.outcome for one in shown] == ["taken", "refused", "taken"]
        assert all(msgspec.json.encode(one) for one in shown)


async def test_what_no_driver_understood_is_shown_without_its_content(tmp_path):
    bad = given(rejected=[Rejected(device="E7", reason="unknown-device", raw=b"zhang", detail="x")])
    async with watched(tmp_path) as (give, _):
        (one,) = await give(bad)
        assert (one.device, one.outcome, one.reason) == ("E7", "refused", "unknown-device")
        assert (one.raw, one.detail) == ("", "")
    # Of a driver that may feed the vault it stands in the vault, which is never opened here.
    async with watched(tmp_path, Wish(personal=True)) as (give, _):
        (one,) = await give(bad)
        assert (one.device, one.raw, one.detail) == ("E7", "", "")
    feeds = {"mqtt": ["tickets"]}
    async with watched(tmp_path, Wish(personal=True), feeds=feeds) as (give, _):
        (one,) = await give(bad)
        assert (one.raw, one.detail) == (b"zhang".hex(), "x")


async def test_a_field_that_no_pack_describes_counts_as_personal(tmp_path):
    stray = Record(event_time_us=NOW_US, device="E1", values={"persons": 1, "telephone": "138"})
    async with watched(tmp_path) as (give, _):
        (one,) = await give(given(stray))
        assert "138" not in repr(one)
        assert "telephone" in one.hidden


async def test_the_vault_is_never_shown(tmp_path):
    async with watched(tmp_path, Wish(personal=True)) as (give, _):
        secret = Record(event_time_us=NOW_US, device="d1", values={"number": 7, "text": "hidden"})
        both = Reading(
            rows=[
                Rows(resource="tickets", records=[check(1)]),
                Rows(resource="secret", records=[secret]),
            ],
            promise=Promise.A,
        )
        assert await give(given(secret, resource="secret")) == []
        assert [one.resource for one in await give(both)] == ["tickets"]


async def test_only_what_is_wished_for_and_never_more_than_fits(tmp_path):
    async with watched(tmp_path, Wish(devices=("E1",))) as (give, watcher):
        other = Record(event_time_us=NOW_US, device="E2", values={"persons": 1})
        assert len(await give(given(other, check(1)))) == 1
        watcher.waiting = asyncio.Queue(3)
        shown = await give(*(given(check(n)) for n in range(8)))
        assert [one.values["persons"] for one in shown] == [0, 1, 2]
        assert [one.skipped for one in await give(given(check(1)), given(check(2)))] == [5, 0]
    async with watched(tmp_path, Wish(resources=("gate",))) as (give, _):
        assert await give(given(check(1))) == []


async def test_nobody_watches_and_nothing_is_made(tmp_path):
    async with watched(tmp_path) as (give, watcher):
        watcher.waiting = asyncio.Queue(1)
        await give(given(check(1)))
    tap = Tap({})
    tap.committed([object()], object())  # not even looked at
    assert WAITING_MAX >= 100


# --- the socket -----------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def serving(folder):
    tap = Tap({})
    server = TapServer(folder, tap)
    await server.start()
    try:
        yield tap, server
    finally:
        await server.stop()


def show(tap: Tap, number: int = 1) -> None:
    one = Shown(at_us=NOW_US, driver="m", device="E1", resource="tickets", values={"n": number})
    for watcher in tap.watchers:
        watcher.show(one)


async def begun(folder, wish: Wish | None = None):
    shown = watch(folder, wish or Wish())
    async with asyncio.timeout(5):
        assert await anext(shown) is None
    return shown


async def test_records_come_over_the_socket_until_the_agent_ends(tmp_path):
    async with serving(tmp_path) as (tap, server):
        assert stat.S_IMODE((tmp_path / SOCKET).stat().st_mode) == 0o600
        shown = await begun(tmp_path)
        show(tap, 1)
        show(tap, 2)
        async with asyncio.timeout(5):
            assert [(await anext(shown)).values["n"] for _ in range(2)] == [1, 2]
            await server.stop()
            with pytest.raises(Fault, match="watch-ended"):
                await anext(shown)
    with pytest.raises(Fault, match="not-running"):
        await begun(tmp_path)


async def test_who_hangs_up_is_forgotten_and_a_fifth_is_refused(tmp_path):
    async with serving(tmp_path) as (tap, _):
        many = [await begun(tmp_path) for _ in range(WATCHERS_MAX)]
        with pytest.raises(Fault, match="watch-busy"):
            await begun(tmp_path)
        await many.pop().aclose()
        async with asyncio.timeout(5):
            while len(tap.watchers) == WATCHERS_MAX:
                await asyncio.sleep(0.01)
        many.append(await begun(tmp_path))
        for one in many:
            await one.aclose()


async def test_a_terminal_that_takes_nothing_is_left_in_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr("agent.commands.tap_socket._TIMEOUT_S", 0.2)
    async with serving(tmp_path) as (tap, _):
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / SOCKET))
        writer.write(b"{}\n")
        assert await reader.readline() == b"\n"
        reader._transport.pause_reading()
        async with asyncio.timeout(20):
            while tap.watchers:
                show(tap, "x" * 10_000)
                await asyncio.sleep(0)
        writer.close()


@pytest.mark.parametrize("wish", [b"nonsense\n", b'{"resources": 3}\n', b"x" * 70_000 + b"\n"])
async def test_a_wish_that_cannot_be_read_is_refused(tmp_path, wish):
    async with serving(tmp_path) as (tap, _):
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / SOCKET))
        writer.write(wish)
        async with asyncio.timeout(5):
            assert json.loads(await reader.readline()) == {"type": "refusal", "why": "wish"}
        assert not tap.watchers
        writer.close()


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        (b"", "watch-ended"),
        (b'{"type":"refu', "watch-ended"),
        (b'{"type":"refusal","why":"busy"}\n', "watch-busy"),
        (b'{"type":"refusal","why":"wish"}\n', "watch-wish"),
        (b'{"type":"refusal","why":"of a later version"}\n', "watch-wish"),
    ],
)
@pytest.mark.parametrize("lang", ["zh", "en"])
async def test_why_nothing_is_shown_is_told_as_it_is(tmp_path, said, fault, lang):
    """An agent that ends while somebody connects is not one that is busy."""

    async def answer(reader, writer):
        await reader.readline()
        writer.write(said)
        writer.close()

    async with await asyncio.start_unix_server(answer, str(tmp_path / SOCKET)):
        with pytest.raises(Fault, match=fault) as raised:
            await begun(tmp_path)
    assert "{" not in Messages(lang)(f"fault.{fault}.text", **raised.value.fields)


# --- lines for a person ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lang", "words"),
    [
        ("zh", ("人数=2 人", "持票人=•••", "被拒绝")),
        ("en", ("persons=2 人", "holder=•••", "refused")),
    ],
)
def test_a_line_speaks_the_words_of_the_pack(lang, words):
    one = Shown(
        at_us=NOW_US, driver="m", device="E1\x1b[2J", resource="tickets", outcome="refused",
        reason="unknown-device", quality=("late",), values={"persons": 2}, hidden=("holder",),
        skipped=3,
    )  # fmt: skip
    skipped, line = Lines([TICKETS], Messages(lang)).of(one, now_us=NOW_US)
    assert "3" in skipped
    assert all(word in line for word in words)
    assert "[late]" in line
    assert "\x1b" not in line
    (old,) = Lines([], Messages(lang)).of(
        Shown(at_us=0, driver="m", device="E1", values={"n": 1}), now_us=NOW_US
    )
    assert old == "1970-01-01T00:00:00Z  m/E1  n=1"
    (never,) = Lines([], Messages(lang)).of(
        Shown(at_us=1 << 62, driver="m", device="E1"), now_us=NOW_US
    )
    assert never == f"{1 << 62}  m/E1"


def test_the_command_names_what_it_does_not_know(tmp_path, capsys):
    config = tmp_path / "agent.toml"
    config.write_text(
        f'data = "{tmp_path}/d"\n[hub]\nurl = "https://hub"\n'
        '[[resource]]\nid = "p1-bays"\npack = "parking.bay"\n'
    )
    assert cli.main(["watch", "-c", str(config), "--resource", "p1-bay"]) == 2
    assert "p1-bays" in capsys.readouterr().err
    assert cli.main(["watch", "-c", str(config)]) == 8
