"""The inbox applies once, in order and only what is allowed; the watchdog is fed by progress alone."""

import asyncio
import contextlib
import logging

import pytest
from aiohttp import web

from agent.host.health import Health, Progress
from agent.host.notify import Notifier
from agent.host.settings import AlarmTable, HubTable, InboxTable
from agent.link.inbox import Inbox
from agent.store.disk import DiskLevel
from agent.watch import Watch
from protocol import wire
from protocol.envelope import only_key
from protocol.errors import Code, UnavailableError
from protocol.inbox import Budget, InboxMessage, InboxNumber, Live, SegmentAge, make_inbox
from protocol.program.units import Duration
from protocol.report import Report, to_query
from tests.agent.test_shell import Times
from tests.agent.test_uplink import HUB, KEY, Hub, client_of, serving, synchronised

AGENT = KEY.principal
FOREVER = 2**62


class Keep:
    def __init__(self):
        self.values = {}
        self.writes = 0
        self.error = None

    async def get(self, name):
        return self.values.get(name)

    async def put(self, name, value):
        self.writes += 1
        if self.error:
            raise self.error
        self.values[name] = value


class Effects:
    def __init__(self):
        self.seen = []

    def live(self, resources, until_us):
        self.seen.append(("live", until_us))

    def budget(self, batch_bytes, bytes_per_s):
        self.seen.append(("budget", batch_bytes, bytes_per_s))

    def segment_age(self, resources, seconds):
        self.seen.append(("age", seconds))


def message(n, said, *, generation=1, agent=AGENT, expires=FOREVER, key=KEY):
    made = InboxMessage(
        agent=agent,
        number=InboxNumber(generation, n),
        expires=expires,
        message=said,
        nonce=bytes(16),
    )
    return make_inbox(made, key).raw


def budget(size=65_536):
    return Budget(batch_bytes=size, bytes_per_s=0)


async def report():
    return Report(at=1, records=2, segments=3, bytes=4, sending=0, oldest=None)


async def inbox_of(keep=None, *, client=None, effects=None, allowed=None, clock=None):
    clock = clock or synchronised()
    one = Inbox(
        client=client,
        clock=clock,
        health=Health(clock.now_us),
        keep=keep or Keep(),
        agent=AGENT,
        hub_keys=lambda: only_key(KEY.public),
        allowed=allowed or InboxTable(),
        back_off_s=(0.001, 0.01),
        report=report,
    )
    one.effects = effects or Effects()
    one.calls = []
    await one.start(
        one.effects,
        link_up=lambda: one.calls.append("up"),
        answered=lambda: one.calls.append("answered"),
        failed=lambda error: one.calls.append(error.code.key),
    )
    return one


async def test_messages_are_applied_once_and_in_order():
    keep = Keep()
    inbox = await inbox_of(keep)
    raws = [message(n, budget(65_536 + n)) for n in (3, 1, 2)]
    await inbox.take(raws)
    assert [one[1] for one in inbox.effects.seen] == [65_537, 65_538, 65_539]
    await inbox.take(raws + raws)
    assert len(inbox.effects.seen) == 3
    assert inbox.applied == (1, 3)
    again = await inbox_of(keep)
    assert again.applied == (1, 3)
    assert again.effects.seen == [("budget", 65_539, 0)]  # the last value holds after a restart
    await again.take(raws)
    assert len(again.effects.seen) == 1


async def test_what_cannot_be_kept_does_not_count_and_comes_again():
    """The exchange that brought it was good: the uplink must not back off."""
    keep = Keep()
    inbox = await inbox_of(keep)
    raws = [message(n, budget(65_536 + n)) for n in (1, 2)]
    keep.error = UnavailableError(Code.DISK_FULL)
    assert not await inbox.take(raws)
    assert keep.writes == 1  # the second must not overtake the first
    assert (inbox.effects.seen, inbox.applied) == ([], (0, 0))
    assert set(inbox._health.alarms) == {"inbox-unkept"}
    keep.error = None
    assert await inbox.take(raws)
    assert [one[1] for one in inbox.effects.seen] == [65_537, 65_538]
    assert not inbox._health.alarms


async def test_a_message_that_cannot_be_kept_does_not_make_a_storm_of_polls(monkeypatch):
    waits = []
    real_sleep = asyncio.sleep

    async def sleep(seconds):
        if seconds:
            waits.append(seconds)
        if len(waits) == 4:
            keep.error = None
        await real_sleep(0)

    keep = Keep()
    keep.error = UnavailableError(Code.DISK_FULL)
    hub = Hub(*[wire.encode([message(1, budget())])] * 5, "swallow")
    async with serving(hub) as url, client_of(url) as client:
        inbox = await inbox_of(keep, client=client)
        monkeypatch.setattr("agent.link.inbox.asyncio.sleep", sleep)
        task = asyncio.create_task(inbox.run())
        async with asyncio.timeout(10):
            while len(hub.requests) < 6:
                await real_sleep(0.001)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert len(waits) == 4
    assert inbox.calls == ["answered"] * 5
    assert inbox.effects.seen == [("budget", 65_536, 0)]


async def test_inbox_message_replayed():
    inbox = await inbox_of()
    raw = message(5, budget())
    await inbox.take([raw])
    await inbox.take([raw])
    await inbox.take([message(4, budget(100_000))])
    assert len(inbox.effects.seen) == 1


async def test_inbox_for_other_agent():
    inbox = await inbox_of()
    await inbox.take(
        [message(1, budget(), agent=HUB), message(1, budget(), key=type(KEY)(b"\7" * 32))]
    )
    await inbox.take([b"", b"\x00", b"junk", wire.encode([1, 2, 3, 4])])
    assert inbox.effects.seen == []
    assert inbox.applied == (0, 0)


async def test_an_expired_message_is_passed_and_has_no_effect():
    inbox = await inbox_of()
    await inbox.take(
        [message(1, budget(), expires=1), message(2, SegmentAge(resources=(), seconds=5))]
    )
    assert inbox.effects.seen == [("age", 5)]
    assert inbox.applied == (1, 2)


async def test_config_widened_by_hub():
    inbox = await inbox_of(allowed=InboxTable(allow=("live",), live_max=Duration.parse("1h")))
    await inbox.take([message(1, budget()), message(2, SegmentAge(resources=(), seconds=3600))])
    assert inbox.effects.seen == []
    now_us = synchronised().now_us()
    await inbox.take([message(3, Live(resources=(), until=now_us + 86_400_000_000))])
    assert inbox.effects.seen[0][1] <= now_us + 3_700_000_000  # an hour, whatever the hub says
    limited = await inbox_of(allowed=InboxTable(age_max=Duration.parse("10m")))
    await limited.take([message(1, SegmentAge(resources=(), seconds=3_600))])
    assert limited.effects.seen == []
    assert limited.applied == (1, 1)


async def test_restored_hub_inbox_numbers():
    inbox = await inbox_of()
    await inbox.take([message(9, budget(70_000), generation=1)])
    await inbox.take([message(1, budget(80_000), generation=2)])
    await inbox.take([message(10, budget(90_000), generation=1)])
    assert [one[1] for one in inbox.effects.seen] == [70_000, 80_000]


async def test_the_poll_takes_heartbeats_and_messages_and_comes_again():
    raw = message(1, budget())
    seen = asyncio.Event()

    async def answer(request):
        if request.query["n"] != "0":
            seen.set()
            await hub.release.wait()
        response = web.StreamResponse()
        await response.prepare(request)
        body = wire.encode([raw])
        for piece in (b"\0", b"\0\0" + body[:7], body[7:]):
            await response.write(piece)
        return response

    stranger = web.json_response({"error": {"key": "unknown-agent"}}, status=403)
    hub = Hub(
        web.Response(status=503), stranger, web.Response(status=200, body=b"\x93garbage"), answer
    )
    async with serving(hub) as url, client_of(url) as client:
        inbox = await inbox_of(client=client)
        task = asyncio.create_task(inbox.run())
        async with asyncio.timeout(10):
            await seen.wait()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert inbox.effects.seen == [("budget", 65_536, 0)]
    said = to_query(await report())
    assert hub.requests[-1][1] == f"/v1/inbox?generation=1&n=1&report={said}"
    assert inbox.calls == ["busy", "unknown-agent", "up", "trailing-bytes", "up", "answered"]


async def test_what_is_under_way_survives_that_the_clock_is_learned_anew():
    """An unsynchronised gateway learns the time while its poll stands; it must not go deaf."""
    stands, told = asyncio.Event(), asyncio.Event()

    async def answer(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"\0")
        stands.set()
        await told.wait()
        await response.write(wire.encode([message(1, budget())]))
        return response

    hub = Hub(answer)
    async with serving(hub) as url, client_of(url) as client:
        inbox = await inbox_of(client=client)
        task = asyncio.create_task(inbox._poll())
        await stands.wait()
        old = client._session
        await asyncio.gather(client.renew(), client.renew())
        told.set()
        async with asyncio.timeout(5):
            await task
        assert inbox.effects.seen == [("budget", 65_536, 0)]
        assert old.closed
        assert not client._session.closed
        assert not client._under_way


async def test_a_poll_that_never_ends_growing_is_cut():
    async def flood(request):
        response = web.StreamResponse()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError, RuntimeError):
            for _ in range(40):
                await response.write(b"\x01" * 65_536)
        return response

    hub = Hub(flood)
    async with serving(hub) as url, client_of(url) as client:
        inbox = await inbox_of(client=client)
        from protocol.errors import DecodeError

        with pytest.raises(DecodeError):
            await inbox._poll()


async def test_polls_that_end_each_other_do_not_become_a_storm(monkeypatch):
    """Two clones of one gateway: at the hub a newer poll ends the older one at once."""
    waits = []
    real_sleep = asyncio.sleep

    async def sleep(seconds):
        if seconds:
            waits.append(seconds)
        await real_sleep(0)

    hub = Hub(*[wire.encode([])] * 5, wire.encode([message(1, budget())]), "swallow")
    async with serving(hub) as url, client_of(url) as client:
        inbox = await inbox_of(client=client)
        monkeypatch.setattr("agent.link.inbox.asyncio.sleep", sleep)
        task = asyncio.create_task(inbox.run())
        async with asyncio.timeout(10):
            while len(hub.requests) < 7:
                await real_sleep(0.001)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert len(waits) == 5  # none after the poll that brought a message
    assert all(0.001 * 2**n / 2 <= wait <= 0.01 for n, wait in enumerate(waits[:4]))


# --- watch ---------------------------------------------------------------------------------------


class Fed(Notifier):
    def __init__(self, watchdog_s=30.0):
        super().__init__({})
        self.watchdog_s = watchdog_s
        self.times = 0

    def alive(self):
        self.times += 1


@pytest.fixture
def watched():
    times = Times(synchronised=True)
    clock = times.clock()
    health = Health(clock.now_us)
    progress = Progress(clock.boot_ns, clock.boot_ns(), clock.boot_ns())
    state = {"due": False, "full": False, "hang": False, "quarantine": False}
    state["vault"] = DiskLevel.NORMAL

    async def has_due():
        if state["hang"]:
            await asyncio.Event().wait()
        if state.get("error"):
            raise state["error"]
        return state["due"]

    fed = Fed()
    watch = Watch(
        notifier=fed,
        progress=progress,
        health=health,
        clock=clock,
        hub=HubTable(url="https://h"),
        alarms=AlarmTable(),
        has_due=has_due,
        is_full=lambda: state["full"],
        quarantine_full=lambda: state["quarantine"],
        vault_level=lambda: state["vault"],
    )
    return times, watch, fed, progress, health, state


async def test_a_resting_uplink_and_an_absent_hub_are_progress_enough(watched):
    times, watch, fed, progress, health, state = watched
    assert await watch.look()
    progress.turn(waits=True)
    times.pass_s(86_400)
    assert await watch.look()  # nothing to send for a day
    state["due"] = True
    for _ in range(100):
        times.pass_s(60)
        progress.turn(waits=True)  # tries and fails, tries and fails
        assert await watch.look()
    assert "no-progress" in health.alarms
    assert fed.times == 102


async def test_a_vault_that_fills_is_told_before_it_is_full(watched):
    _times, watch, _fed, _progress, health, state = watched
    for level, alarms in (
        (DiskLevel.POLLED_STOP, {"vault-filling"}),
        (DiskLevel.ACKS_STOP, {"vault-full"}),
        (DiskLevel.UNKNOWN, {"vault-full"}),  # says nothing of how full it is
        (DiskLevel.FULL, {"vault-full"}),
        (DiskLevel.NORMAL, set()),
    ):
        state["vault"] = level
        await watch.look()
        assert set(health.alarms) == alarms


async def test_a_stuck_uplink_starves_the_watchdog(watched):
    times, watch, fed, progress, health, state = watched
    state["due"] = True
    progress.turn(waits=False)
    times.pass_s(400)
    assert not await watch.look()
    assert fed.times == 0


async def test_a_rest_that_the_hub_asked_for_is_not_stuck(watched):
    times, watch, fed, progress, health, state = watched
    state["due"] = True
    progress.turn(waits=True, rest_s=600)
    times.pass_s(590)
    assert await watch.look()


async def test_a_database_that_hangs_starves_the_watchdog(watched, monkeypatch):
    _, watch, fed, _, _, state = watched
    state["hang"] = True
    watch.period_s = 0
    real = asyncio.timeout
    monkeypatch.setattr(asyncio, "timeout", lambda _seconds: real(0.01))
    assert not await watch.look()
    assert fed.times == 0


async def test_a_database_that_cannot_be_read_starves_the_watchdog_and_ends_nothing(watched):
    _, watch, fed, _, _, state = watched
    state["error"] = UnavailableError(Code.STORAGE_UNKNOWN)
    assert not await watch.look()
    assert fed.times == 0
    state["error"] = None
    assert await watch.look()


async def test_alarms_come_and_go(watched, caplog):
    times, watch, _, progress, health, state = watched
    with caplog.at_level(logging.WARNING):
        state["full"] = True
        await watch.look()
        await watch.look()
        assert set(health.alarms) == {"disk-full"}
        state["full"], state["quarantine"] = False, True
        await watch.look()
        assert set(health.alarms) == {"quarantine-full"}
        state["quarantine"] = False
        await watch.look()
    assert health.alarms == {}
    assert [one.message for one in caplog.records] == ["alarm", "alarm ended"] * 2


async def test_a_jump_of_the_clock_is_told(watched, caplog):
    times, watch, *_ = watched
    with caplog.at_level(logging.WARNING):
        times.wall += 3_600_000_000
        await watch.look()
    assert [one.message for one in caplog.records] == ["clock jumped"]
