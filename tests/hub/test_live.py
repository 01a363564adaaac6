"""The live page without a browser: leases, the feed, the tap, and what none of them may do."""

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import msgspec
import pytest

from hub import commands, leases, passwords, verify
from hub.config import ConsoleSection
from hub.console import feed
from hub.console.feed import Tab
from hub.people import Session
from hub.store import inbox, leaves, live_use, summaries
from hub.tap import POINTS_MAX, Ring, Tap, add, decoded, shown_fields
from protocol import envelope, ids, wire
from protocol.grades import Grade
from protocol.inbox import InboxMessage, Live
from tests.hub import kit
from tests.hub.shell import Gateway, Shell, serving
from tests.hub.test_console_login import PASSPHRASE, SAME, cookie_of, csrf_of, get, login, post

TAB = "ab" * 8
MINUTE_US = 60_000_000


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    from argon2 import PasswordHasher

    monkeypatch.setattr(passwords, "_HASHER", PasswordHasher(1, 8, 1))


class Visitor:
    """A logged-in page without its scripts."""

    def __init__(self, shell: Shell, cookie: str, csrf: str):
        self.shell, self.cookie, self.csrf = shell, cookie, csrf

    @classmethod
    async def arrive(cls, shell: Shell, name: str = "li") -> "Visitor":
        with contextlib.suppress(Exception):
            made = commands.UserAdd(name=name, hash=passwords.hash_of(PASSPHRASE))
            await shell.do(made)
        cookie = cookie_of(await login(shell, name))
        return cls(shell, cookie, csrf_of(await get(shell, "/", cookie)))

    async def view(self, *resources: int, tab: str = TAB):
        return await post(
            self.shell, "/live/view", cookie=self.cookie, csrf=self.csrf, tab=tab,
            resources=",".join(map(str, resources)),
        )  # fmt: skip

    @contextlib.asynccontextmanager
    async def stream(self, tab: str = TAB) -> AsyncIterator["Stream"]:
        url = f"{self.shell.url}/live/stream?tab={tab}"
        async with self.shell.session.get(url, headers={"Cookie": self.cookie}) as response:
            yield Stream(response)


class Stream:
    def __init__(self, response: aiohttp.ClientResponse):
        self.status = response.status
        self._response = response
        self.raw = b""

    async def next(self, name: str):
        """The next event of that name; others are passed over."""
        async with asyncio.timeout(10):
            while True:
                lines = []
                while (line := await self._response.content.readline()) not in {b"\n", b""}:
                    lines.append(line)
                    self.raw += line
                if not lines and not line:
                    raise EOFError
                if lines[-1].startswith(b"data: ") and lines[-2] == f"event: {name}\n".encode():
                    return json.loads(lines[-1].removeprefix(b"data: "))


@contextlib.asynccontextmanager
async def site(tmp_path: Path, *grades: Grade, **more) -> AsyncIterator[tuple]:
    async with serving(tmp_path, **more) as shell:
        with contextlib.suppress(Exception):
            await shell.site()
        gateway = Gateway(shell)
        await gateway.join()
        sources = [
            gateway.resource(f"r{n}", name_zh=f"资源{n}", grade=grade)
            for n, grade in enumerate(grades)
        ]
        for one in sources:
            outcome = await gateway.exchange(one.registration)
            assert kit.verdicts(outcome) == ["Accepted"]
        yield shell, gateway, sources


async def messages(shell: Shell, agent: bytes) -> list[InboxMessage]:
    rows = await shell.parts.store.read(inbox.waiting, agent, (0, 0), 0)
    return [envelope.decode_payload(envelope.parse(one.raw), InboxMessage) for one in rows]


async def test_a_lease_is_one_message_that_replaces_the_one_before(tmp_path: Path) -> None:
    async with site(tmp_path, *[Grade.GENERALLY_OPEN] * 3) as (shell, gateway, sources):
        li = await Visitor.arrive(shell)
        before = await shell.parts.store.read(leaves.live)
        async with li.stream() as stream, li.stream("cd" * 8) as other:
            await stream.next("state")
            await other.next("state")
            answer = await li.view(1, 2)
            assert (answer.status, answer.json) == (200, {"live": [1, 2], "used_up": []})
            first = await messages(shell, gateway.id)
            assert [type(one.message) for one in first] == [Live]
            assert set(first[0].message.resources) == {sources[0].id, sources[1].id}
            assert 25 * 1_000_000 < first[0].message.until - shell.parts.clock_us() <= 30_000_000
            # Asked again at once, also by another tab: enough is left, nothing is sent.
            await li.view(1, 2)
            await li.view(2, tab="cd" * 8)
            assert await messages(shell, gateway.id) == first
            # Something new: one message with everything, in place of the one before.
            assert (await li.view(3, tab="cd" * 8)).json["live"] == [3]
            second = await messages(shell, gateway.id)
            assert len(second) == 1
            assert set(second[0].message.resources) == {one.id for one in sources}
            assert second[0].number > first[0].number
        assert (await shell.parts.store.read(leaves.live)).size == before.size, "no leaf"
        trail = await shell.parts.store.read(
            lambda tx: tx.exec_driver_sql(
                "SELECT count(*) FROM audit WHERE action LIKE '%live%'"
            ).scalar()
        )
        assert trail == 0


async def test_a_page_does_not_cut_short_what_an_operator_asked(tmp_path: Path) -> None:
    async with site(tmp_path, Grade.GENERALLY_OPEN) as (shell, gateway, _):
        li = await Visitor.arrive(shell)
        await shell.do(commands.AgentLive(agent=ids.show(gateway.id), minutes=10))
        async with li.stream() as stream:
            await stream.next("state")
            assert (await li.view(1)).json["live"] == [1]
        found = await messages(shell, gateway.id)
        assert len(found) == 1
        assert found[0].message.resources == ()


async def test_a_standing_poll_hears_of_it_at_once(tmp_path: Path) -> None:
    async with site(tmp_path, Grade.GENERALLY_OPEN) as (shell, gateway, _):
        li = await Visitor.arrive(shell)
        poll = asyncio.create_task(shell.signed(gateway.signing, "GET", "/v1/inbox"))
        async with li.stream() as stream, asyncio.timeout(5):
            await stream.next("state")
            while not shell.parts.bells.standing:
                await asyncio.sleep(0.01)
            await li.view(1)
            raws = wire.decode_any((await poll).body.lstrip(b"\x00"), limit=10**6)
            assert len(raws) == 1


async def test_a_day_allows_so_much_and_a_restart_forgets_nothing(
    tmp_path: Path, monkeypatch
) -> None:
    settings = {"console": ConsoleSection(live_minutes=1)}
    monkeypatch.setattr(leases, "ENOUGH_US", 30_000_000)  # each view is a renewal
    now = 1_795_000_000_000_000
    async with site(tmp_path, *[Grade.GENERALLY_OPEN] * 2, config=settings) as (shell, _, _sources):
        li = await Visitor.arrive(shell)
        held = shell.app.parts
        async with li.stream() as stream:
            await stream.next("state")
            book = feed_of(shell)._leases
            clock = [now]
            book._clock_us = lambda: clock[0]
            assert (await li.view(1)).json == {"live": [1], "used_up": []}
            clock[0] += 20_000_000
            assert (await li.view(1)).json["live"] == [1]  # 30 + 20 s
            clock[0] += 20_000_000
            assert (await li.view(1)).json["live"] == [1]  # 70 s: begun within the minute
            clock[0] += 31_000_000
            assert (await li.view(1, 2)).json == {"live": [2], "used_up": [1]}
            day = (now + 8 * 3600 * 1_000_000) // 86_400_000_000
            used = await held.store.read(live_use.of, day, [1, 2])
            assert used == {1: 70, 2: 30}
    async with serving(tmp_path, config=settings) as shell:
        li = await Visitor.arrive(shell)
        async with li.stream() as stream:
            await stream.next("state")
            feed_of(shell)._leases._clock_us = lambda: clock[0]
            assert (await li.view(1)).json == {"live": [], "used_up": [1]}
            clock[0] += 86_400_000_000
            assert (await li.view(1)).json == {"live": [1], "used_up": []}
            rows = await shell.parts.store.read(
                lambda tx: tx.exec_driver_sql("SELECT count(*) FROM live_use").scalar()
            )
            assert rows == 1, "days before are forgotten"


def feed_of(shell: Shell):
    return shell.app.console.feed


async def test_values_of_open_resources_come_as_they_are_accepted(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(feed, "HEARTBEAT_S", 0.2)  # when a tab that went is noticed
    async with site(tmp_path, *[Grade.GENERALLY_OPEN] * 2) as (shell, gateway, sources):
        await gateway.exchange(kit.item(sources[0].seal(2, value=5)))
        li = await Visitor.arrive(shell)
        async with li.stream() as stream:
            state = await stream.next("state")
            assert state["resources"]["1"]["records"] == 2
            assert (await li.view(1)).status == 200
            first = (await stream.next("values"))["1"]
            assert [one["zh"] for one in first["fields"]] == ["状态"]
            assert [point[2] for point in first["points"]] == [[5], [5]], "what was there before"
            await gateway.exchange(kit.item(sources[0].seal(1, value=6)))
            await gateway.exchange(kit.item(sources[1].seal(1, value=9)))
            more = (await stream.next("values"))["1"]
            assert [point[2] for point in more["points"]] == [[6]]
            while b'"2":{"records":1' not in stream.raw:
                await stream.next("delta")
            assert b"[9]" not in stream.raw, "not in view: not shown"
            tap = shell.app.console.feed._tap
            assert set(tap.rings()) == {1}
        async with asyncio.timeout(5):
            while shell.app.console.feed._tap.rings():
                await asyncio.sleep(0.05)  # nobody watches: nothing is kept


async def test_what_a_view_may_not_ask(tmp_path: Path) -> None:
    async with site(tmp_path, Grade.GENERALLY_OPEN) as (shell, _, _sources):
        li, wang = await Visitor.arrive(shell), await Visitor.arrive(shell, "wang")
        async with li.stream() as stream:
            await stream.next("state")
            assert (await wang.view(1)).status == 404, "another session's tab"
            assert (await li.view(1, tab="ef" * 8)).status == 404
            assert (await li.view(*range(21))).status == 400
            assert (await li.view(tab="x")).status == 400
            assert (await li.view(999, 10**30)).json == {"live": [], "used_up": []}
            headers = SAME | {"Cookie": li.cookie}
            assert (await post(shell, "/live/view", headers, tab=TAB, resources="1")).status == 403
        assert (await get(shell, f"/live/stream?tab={TAB}")).status == 401


async def test_session_over_ends_the_stream(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(feed, "HEARTBEAT_S", 0.1)
    async with site(tmp_path, Grade.GENERALLY_OPEN) as (shell, _, _sources):
        li = await Visitor.arrive(shell)
        async with li.stream() as stream:
            await stream.next("state")
            await shell.do(commands.UserChange(name="li", disabled=True))
            assert await stream.next("bye") == {}
            with pytest.raises(EOFError):
                await stream.next("state")


async def test_a_stopping_hub_ends_streams(tmp_path: Path) -> None:
    async with site(tmp_path, Grade.GENERALLY_OPEN) as (shell, _, _sources):
        li = await Visitor.arrive(shell)
        async with li.stream() as stream:
            await stream.next("state")
            shell.app.stop()
            with pytest.raises((EOFError, aiohttp.ClientError)):
                await stream.next("never")


async def test_pages_at_one_time_are_bounded(tmp_path: Path) -> None:
    async with site(tmp_path, Grade.GENERALLY_OPEN) as (shell, _, _sources):
        li = await Visitor.arrive(shell)
        async with contextlib.AsyncExitStack() as stack:
            for number in range(feed.TABS_OF_SESSION_MAX):
                stream = await stack.enter_async_context(li.stream(f"{number:016x}"))
                await stream.next("state")
            async with li.stream("ee" * 8) as one_more:
                assert one_more.status == 503


def test_a_tab_that_reads_too_slowly_is_over() -> None:
    session = Session(id=b"", user=1, name="li", role="staff", csrf="")
    tab = Tab(TAB, session)
    for _ in range(feed.QUEUE_MAX):
        tab.put(b"x")
    assert not tab.over
    tab.put(b"x")
    assert tab.over
    assert not tab.queue


def _source() -> kit.Source:
    return kit.Agent("a").resource()


def test_the_ring_is_bounded_and_long_texts_are_cut() -> None:
    source = _source()
    fields = shown_fields(kit.FIELDS)
    ring = Ring(1, fields)
    add(ring, decoded(source.seal(1000).raw, fields))
    add(ring, decoded(source.seal(10, value=8).raw, fields))
    assert len(ring.points) == POINTS_MAX
    assert ring.points[-1][0] == ring.count
    assert ring.points[-1][3] == (8,)


async def test_copies_that_wait_to_be_decoded_are_bounded_in_bytes(monkeypatch) -> None:
    """A small machine decodes slower than large segments of a backlog come."""
    segment = _source().seal(500)
    item = verify.check(kit.item(segment), kit.Agent("a").row())
    room = 3
    monkeypatch.setattr("hub.tap.WAITING_BYTES_MAX", room * len(segment.body))
    tap = Tap()
    ring = tap.watch(segment.header.resource, Ring(1, shown_fields(kit.FIELDS)))
    go_on, shown = threading.Event(), asyncio.Event()
    asyncio.get_running_loop().run_in_executor(tap._thread, go_on.wait)
    tap.moved = shown.set
    try:
        tap.accepted([item] * 10)
        assert tap._waiting == room
        go_on.set()
        async with asyncio.timeout(5):
            while tap._waiting:
                await shown.wait()
                shown.clear()
        assert ring.count == room * POINTS_MAX
        tap.accepted([item])
        assert tap._waiting == 1, "there is room again"
    finally:
        go_on.set()
        tap.close()


def test_personal_fields_are_never_shown() -> None:
    personal = msgspec.structs.replace(kit.FIELDS[0], name="phone", personal="personal")
    assert shown_fields((personal, *kit.FIELDS)) == kit.FIELDS


def test_what_cannot_be_decoded_shows_nothing() -> None:
    raw = bytearray(_source().seal(3).raw)
    raw[-1] ^= 1
    assert decoded(bytes(raw), kit.FIELDS) == []


async def test_totals_are_what_the_segments_sum_to(tmp_path: Path) -> None:
    """Kept running, whatever happens: bodies that come later, packs that are lost."""
    async with kit.running(tmp_path) as hub:
        agent = kit.Agent("a")
        await agent.enrol(hub)
        sources = [agent.resource(f"r{n}") for n in range(3)]
        await agent.send(hub, *(one.registration for one in sources))
        first, second = sources[0].many(2)
        await agent.send(hub, kit.item(first), kit.head(second), *kit.items(sources[1].many(3)))

        def both(tx):
            kept = [summaries.of_resource(tx, n) for n in (1, 2, 3)]
            summaries.recount(tx)
            return kept, [summaries.of_resource(tx, n) for n in (1, 2, 3)], summaries.of_all(tx)

        kept, counted, everything = await hub.store.write("recount", both)
        assert kept == counted
        assert (kept[0].segments, kept[0].records, kept[2].segments) == (2, 6, 0)
        assert everything.records == 15
        await agent.send(hub, kit.item(second))
        kept, counted, _ = await hub.store.write("recount", both)
        assert kept == counted
        assert kept[0].bytes > 0
