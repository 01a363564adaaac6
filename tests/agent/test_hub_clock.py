"""A hub whose clock was wrong for a while: it gets its data, and nothing of its error lasts."""

import asyncio
import ssl
import time
from types import SimpleNamespace

import pytest
from aiohttp import web

from agent import service
from agent.host.clock import BUILD_TIME_US, Clock, SystemState
from agent.link.hub_client import CertificateError
from agent.link.hub_time import learn_time
from protocol.envelope import make, only_key
from tests.agent.kit import Site
from tests.agent.test_inbox_watch import inbox_of
from tests.agent.test_shell import Times
from tests.agent.test_uplink import (
    HUB,
    KEY,
    Hub,
    Spool,
    Sync,
    client_of,
    outcome,
    running,
    serving,
    synchronised,
    uplink_of,
)
from tests.certificates import Authority

YEAR_US = 365 * 86_400_000_000
KEYS = only_key(KEY.public)


def now_us():
    return time.time_ns() // 1_000


class WrongHub(Hub):
    """Answers over TLS; its clock is `ahead_us` ahead, for its answers to `sync` as well."""

    def __init__(self, folder, *, ahead_us, begins=-1):
        super().__init__(self.answer)
        self.ahead_us = ahead_us
        county = Authority(folder / "ca.pem")
        county.issue(folder / "hub.pem", begins=begins, ends=90)
        self.ca = str(folder / "ca.pem")
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.load_cert_chain(folder / "hub.pem")

    def now_us(self):
        return now_us() + self.ahead_us

    async def answer(self, request):
        if request.path != "/v1/time":
            return web.Response(body=b"ok")
        said = {"time": self.now_us(), "nonce": bytes.fromhex(request.query["nonce"])}
        return web.Response(body=make("time", said, KEY).raw)

    def verdict(self, raw, count):
        said = outcome(count)
        said.time_us = self.now_us()
        return said


def unsynchronised(wall_us, **more):
    boot_us = now_us()
    return Clock(
        wall=lambda: wall_us + now_us() - boot_us,
        system=lambda: SystemState(synchronised=False, error_us=0),
        **more,
    )


async def sent(client, clock, hub, folder):
    """Send one item with an uplink; returns it when the item was accepted."""
    spool = Spool(1)
    link = uplink_of(client, spool, Sync(hub.verdict), folder, clock=clock)
    link._sync.hub = SimpleNamespace(hub=HUB, signing_public=KEY.public)
    async with running(link):
        await spool.empty.wait()
    return link


async def test_a_synchronised_clock_is_not_corrected_by_a_hub_that_is_years_ahead(tmp_path):
    hub = WrongHub(tmp_path, ahead_us=10 * YEAR_US)
    clock = synchronised()
    async with serving(hub, context=hub.context) as url:
        async with client_of(url, clock=clock, ca=hub.ca) as client:
            link = await sent(client, clock, hub, tmp_path)
            assert set(link.health.alarms) == {"hub-clock"}
            assert abs(clock.best_us() - now_us()) < 5_000_000
            hub.ahead_us = 0
            await client.renew()
            await learn_time(client, clock, KEYS)
            link = await sent(client, clock, hub, tmp_path)
            assert not link.health.alarms
        again = Clock(
            system=lambda: SystemState(synchronised=True, error_us=1), floor_us=clock.floor_us
        )
        async with client_of(url, clock=again, ca=hub.ca) as client:
            assert await client.sync(b"x") == b"ok"


async def test_requests_are_signed_in_the_hubs_time_so_a_wrong_hub_gets_its_data(tmp_path):
    hub = WrongHub(tmp_path, ahead_us=10 * YEAR_US)
    clock = synchronised()
    async with serving(hub, context=hub.context) as url:
        async with client_of(url, clock=clock, ca=hub.ca) as client:
            await learn_time(client, clock, KEYS)
            await client.sync(b"x")
    signed = hub.requests[-1][2]["Signature-Input"]
    created = int(signed.split("created=")[1].split(";")[0])
    assert abs(created - hub.now_us() // 1_000_000) < 60


@pytest.mark.parametrize(
    "wall_us",
    [3_600_000_000, now_us(), now_us() + 14 * YEAR_US],
    ids=["an hour after the epoch", "now", "14 years on"],
)
@pytest.mark.parametrize("ahead_us", [10 * YEAR_US, -10 * YEAR_US], ids=["ahead", "behind"])
async def test_an_unsynchronised_gateway_returns_by_itself(tmp_path, wall_us, ahead_us):
    hub = WrongHub(tmp_path, ahead_us=ahead_us)
    clock = unsynchronised(wall_us)
    async with serving(hub, context=hub.context) as url:
        async with client_of(url, clock=clock, ca=hub.ca) as client:
            await learn_time(client, clock, KEYS)
            with pytest.raises(CertificateError):
                await client.sync(b"x")
            hub.ahead_us = 0
            await sent(client, clock, hub, tmp_path)
            assert abs(clock.best_us() - now_us()) < 5_000_000
            assert clock.floor_us < now_us() + 5_000_000


async def test_an_inbox_with_nothing_to_send_beside_it_returns_by_itself(tmp_path):
    hub = WrongHub(tmp_path, ahead_us=10 * YEAR_US)
    clock = unsynchronised(now_us())
    async with serving(hub, context=hub.context) as url:
        async with client_of(url, clock=clock, ca=hub.ca) as client:
            await learn_time(client, clock, KEYS)
            hub.ahead_us = 0
            inbox = await inbox_of(client=client, clock=clock)
            inbox._hub_keys = lambda: KEYS
            polled = asyncio.Event()

            async def answer(request):
                if request.path == "/v1/inbox":
                    polled.set()
                return await hub.answer(request)

            hub.script = [answer]
            task = asyncio.create_task(inbox.run())
            async with asyncio.timeout(10):
                await polled.wait()
            task.cancel()
            await asyncio.wait([task])


async def test_a_restart_in_the_wrong_hour_does_not_lock_out_an_unsynchronised_gateway(tmp_path):
    hub = WrongHub(tmp_path, ahead_us=10 * YEAR_US)
    clock = unsynchronised(3_600_000_000)
    async with serving(hub, context=hub.context) as url:
        async with client_of(url, clock=clock, ca=hub.ca) as client:
            await learn_time(client, clock, KEYS)
            # Not beyond the end of the certificate: this one's successors end later.
            assert clock.floor_us == int(client.certificate_ends_s * 1e6)
        hub.ahead_us = 0
        again = unsynchronised(3_600_000_000, floor_us=clock.floor_us)
        async with client_of(url, clock=again, ca=hub.ca) as client:
            await sent(client, again, hub, tmp_path)
        assert abs(again.floor_us - now_us()) < 5_000_000


async def test_only_the_question_for_the_time_overlooks_what_the_hub_said_before(tmp_path):
    hub = WrongHub(tmp_path, ahead_us=0)
    clock = unsynchronised(3_600_000_000)
    async with serving(hub, context=hub.context) as url:
        async with client_of(url, clock=clock, ca=hub.ca) as client:
            await learn_time(client, clock, KEYS)
            await client.sync(b"x")  # this connection was judged by the hub's time of then
            hub.requests.clear()
            hub.ahead_us = 10 * YEAR_US
            for _ in range(2):
                await learn_time(client, clock, KEYS)
                with pytest.raises(CertificateError):
                    await client.sync(b"x")
    assert {path.partition("?")[0] for _, path, *_ in hub.requests} == {"/v1/time"}


async def test_the_date_of_this_machine_is_not_asked_while_it_is_not_synchronised(tmp_path):
    hub = WrongHub(tmp_path, ahead_us=20 * 86_400_000_000, begins=10)
    clock = unsynchronised(now_us())
    async with serving(hub, context=hub.context) as url:
        async with client_of(url, clock=clock, ca=hub.ca) as client:
            await learn_time(client, clock, KEYS)
            assert await client.sync(b"x") == b"ok"
        async with client_of(url, ca=hub.ca) as client:
            with pytest.raises(CertificateError):
                await client.sync(b"x")


def test_a_word_without_a_witness_does_not_move_the_floor():
    times = Times(wall=3_600_000_000)
    clock = times.clock()
    far = BUILD_TIME_US + 10 * YEAR_US
    clock.learn_hub(far, sent_ns=times.boot, received_ns=times.boot)
    assert clock.floor_us == BUILD_TIME_US
    end = BUILD_TIME_US + YEAR_US
    clock.learn_hub(far, sent_ns=times.boot, received_ns=times.boot, certificate_ends_us=end)
    assert clock.floor_us == end
    true = BUILD_TIME_US + YEAR_US // 2
    clock.learn_hub(true, sent_ns=times.boot, received_ns=times.boot, certificate_ends_us=end)
    assert clock.floor_us == true


def test_a_synchronised_clock_before_the_build_is_not_believed():
    times = Times(wall=3_600_000_000, synchronised=True)
    assert not times.clock().is_synchronised


async def test_the_floor_is_kept_with_a_receipt_and_taken_back_at_the_next_start(tmp_path):
    site = Site(tmp_path)
    site.clock.floor_us = BUILD_TIME_US + YEAR_US
    async with site.running():
        await site.give(1)
        await site.drain()
    async with site.running():
        clock = Times(wall=3_600_000_000).clock()
        await service._take_back_time(site.core, clock)
    assert clock.floor_us == BUILD_TIME_US + YEAR_US
