"""The uplink against hubs that are slow, black holes, full, false: it waits, backs off, goes on."""

import asyncio
import contextlib
import ssl
import subprocess
from types import SimpleNamespace

import pytest
from aiohttp import web

from agent.host.clock import BUILD_TIME_US, Clock, SystemState
from agent.host.health import Health, Progress
from agent.host.settings import AlarmTable, HubTable
from agent.link.hub_client import POLL_SILENCE_S, CertificateError, HubClient, LaterError
from agent.link.standing import Standing
from agent.link.tls import CaFileError
from agent.link.uplink import BATCH_BYTES_MIN, GATHER_S, REST_S_MAX, Uplink
from protocol.envelope import SigningKey
from protocol.errors import (
    Code,
    FatalError,
    RefusedError,
    TooLargeError,
    UnavailableError,
    VerifyError,
)
from protocol.messages import Accepted, Later, ObjectItem
from protocol.program.units import Duration, Size
from tests.certificates import make_authority

KEY = SigningKey(bytes(32))
HUB = SigningKey(bytes(range(32))).principal


def table(url, **more):
    values = {
        "connect_timeout": Duration.parse("1s"),
        "request_timeout": Duration.parse("500ms"),
        "retry_min": Duration.parse("1ms"),
        "retry_max": Duration.parse("20ms"),
        "batch": Size.parse("1MiB"),
    }
    return HubTable(url=url, **(values | more))


class Hub:
    """A server that answers as its script says; the last entry repeats."""

    def __init__(self, *script):
        self.script = list(script)
        self.requests = []
        self.release = asyncio.Event()
        self.seen = asyncio.Event()

    async def __call__(self, request):
        body = await request.read()
        self.requests.append((request.method, request.path_qs, dict(request.headers), body))
        self.seen.set()
        what = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if what == "swallow":
            await self.release.wait()
            return web.Response()
        if isinstance(what, web.Response):
            return web.Response(status=what.status, body=what.body, headers=what.headers)
        if callable(what):
            return await what(request)
        return web.Response(body=what)


@contextlib.asynccontextmanager
async def serving(hub, *, context=None, host="127.0.0.1"):
    server = web.Server(hub)
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, host, 0, ssl_context=context)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    try:
        yield f"{'https' if context else 'http'}://127.0.0.1:{port}"
    finally:
        hub.release.set()
        await runner.cleanup()


@contextlib.asynccontextmanager
async def client_of(url, *, clock=None, **more):
    client = HubClient(table(url, **more), clock or synchronised(), hub=HUB, key=KEY)
    await client.open()
    try:
        yield client
    finally:
        await client.close()


def synchronised():
    return Clock(system=lambda: SystemState(synchronised=True, error_us=1))


class Spool:
    def __init__(self, count=1):
        self.wake = asyncio.Event()
        self.items = [SimpleNamespace(item=ObjectItem(b"x" * 1000)) for _ in range(count)]
        self.applied = []
        self.asked = []
        self.empty = asyncio.Event()
        self.error = None
        self.released = 0

    async def next_items(self, bytes_max, items_max):
        self.asked.append(bytes_max)
        if not self.items:
            self.empty.set()
        return self.items[: min(items_max, bytes_max // 1000)]

    def held_s(self):
        return 0.0

    def release(self):
        self.released += 1

    async def apply(self, outcome, items):
        if self.error:
            raise self.error
        self.applied.append(outcome)
        self.items = self.items[len(outcome.accepted) :]
        return bool(outcome.accepted)


class Sync:
    """A conversation whose answers are decided by the test; signatures have tests of their own."""

    def __init__(self, verdict=None):
        self.hub = SimpleNamespace(hub=HUB, signing_public=KEY.public)
        self.verdict = verdict or (lambda raw, count: outcome(count))
        self.count = 0

    def request(self, items, *, inbox, software, report=None):
        self.count = len(items)
        return b"".join(one.raw for one in items)

    def receive(self, raw, *, now_us):
        return self.verdict(raw, self.count)


def outcome(count, *, verdicts=None, error=None, retry_after_s=0, budget=None):
    results = [
        SimpleNamespace(verdict=one, accepted=isinstance(one, Accepted), evidence=())
        for one in (verdicts if verdicts is not None else [Accepted()] * count)
    ]
    return SimpleNamespace(
        items=results,
        accepted=tuple(one for one in results if one.accepted),
        inbox=(),
        time_us=synchronised().now_us(),
        error=error,
        retry_after_s=retry_after_s,
        budget=budget,
    )


class Inbox:
    applied = (0, 0)

    async def take(self, raws):
        raise AssertionError("nothing came")


class Reports:
    def __init__(self):
        self.asked = []

    async def with_batch(self, items):
        self.asked.append(len(items))

    def batch_over(self):
        self.asked.append("over")


def uplink_of(client, spool, sync, tmp_path, *, health=None, clock=None, **more):
    clock = clock or synchronised()
    health = health or Health(clock.now_us)
    progress = Progress(clock.boot_ns, clock.boot_ns(), clock.boot_ns())
    link = Uplink(
        client=client,
        sync=sync,
        spool=spool,
        clock=clock,
        health=health,
        progress=progress,
        table=client._table,
        alarms=AlarmTable(),
        inbox=Inbox(),
        reports=Reports(),
        standing=Standing(health=health, sync=sync, folder=tmp_path, **more),
    )
    link.health, link.progress = health, progress
    return link


@contextlib.asynccontextmanager
async def running(link):
    task = asyncio.create_task(link.run())
    try:
        async with asyncio.timeout(20):
            yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, FatalError):
            await task


async def test_a_black_hole_times_out_and_is_asked_again_with_less(tmp_path):
    hub = Hub("swallow", "swallow", b"ok")
    spool = Spool(600)
    async with serving(hub) as url, client_of(url) as client:
        link = uplink_of(client, spool, Sync(), tmp_path)
        async with running(link):
            await spool.empty.wait()
    sizes = [len(body) for *_, body in hub.requests]
    assert sizes[0] == 600_000
    assert sizes[1] < sizes[0]
    assert sizes[2] < sizes[1]
    assert link.health.counters["sync failed"] == 2


async def test_a_round_with_nothing_to_send_is_no_receipt(tmp_path):
    """What waits but may not be sent is told as `no-progress`, however often data is sealed."""
    spool = Spool(0)
    async with serving(Hub(b"ok")) as url, client_of(url) as client:
        link = uplink_of(client, spool, Sync(), tmp_path)
        before = link.progress.receipt_ns
        async with running(link):
            await spool.empty.wait()
            while not link.progress.uplink_waits:
                await asyncio.sleep(0)
    assert link.progress.receipt_ns == before


async def test_a_rest_for_the_pace_is_taken_once(tmp_path):
    """What is sealed hours later does not pay for the batch of before."""
    spool, rests = Spool(1), []
    async with serving(Hub(b"ok")) as url, client_of(url) as client:
        link = uplink_of(client, spool, Sync(), tmp_path)
        link.budget(1 << 20, 10)  # a batch of 1,000 bytes owes 100 s

        async def rest(seconds):
            rests.append(seconds)
            await asyncio.sleep(0)

        link._rest = rest
        async with running(link):
            await spool.empty.wait()
            for _ in range(3):
                spool.empty.clear()
                spool.wake.set()
                await spool.empty.wait()
    assert rests[0] > 90
    assert all(one <= GATHER_S for one in rests[1:])


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_busy_is_never_permanent(tmp_path, status):
    hub = Hub(web.Response(status=status), web.Response(status=status), b"ok")
    spool = Spool(3)
    async with serving(hub) as url, client_of(url) as client:
        async with running(uplink_of(client, spool, Sync(), tmp_path)):
            await spool.empty.wait()
    assert len(hub.requests) == 3


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 409, 413])
async def test_no_unsigned_refusal_is_permanent_and_redirects_are_not_followed(tmp_path, status):
    hub = Hub(web.Response(status=status, headers={"Location": "http://127.0.0.1:1/"}), b"ok")
    spool = Spool(3)
    async with serving(hub) as url, client_of(url) as client:
        link = uplink_of(client, spool, Sync(), tmp_path)
        async with running(link):
            await spool.empty.wait()
    assert len(hub.requests) == 2
    assert not spool.items


async def test_the_hub_says_how_long_to_wait(tmp_path, monkeypatch):
    hub = Hub(web.Response(status=503, headers={"Retry-After": "77"}), b"ok")
    waits = []
    spool = Spool(1)
    async with serving(hub) as url, client_of(url) as client:
        link = uplink_of(client, spool, Sync(), tmp_path)

        async def sleep(seconds):
            waits.append(seconds)

        link._sleep = sleep
        async with running(link):
            await spool.empty.wait()
    assert waits == [77]


async def test_waits_grow_with_jitter_to_the_cap(tmp_path):
    hub = Hub(web.Response(status=503))
    waits = []
    enough = asyncio.Event()
    spool = Spool(1)
    async with serving(hub) as url, client_of(url) as client:
        link = uplink_of(client, spool, Sync(), tmp_path)

        async def sleep(seconds):
            waits.append(seconds)
            if len(waits) > 30:
                enough.set()

        link._sleep = sleep
        async with running(link):
            await enough.wait()
    assert 0.0005 <= waits[0] <= 0.001
    assert all(0.010 <= one <= 0.020 for one in waits[6:])
    assert len(set(waits[6:])) > 10


async def test_a_knock_ends_the_wait_when_the_link_is_up(tmp_path):
    hub = Hub(web.Response(status=502), b"ok")
    spool = Spool(1)
    long = {"retry_min": Duration.parse("10m"), "retry_max": Duration.parse("10m")}
    async with serving(hub) as url, client_of(url, **long) as client:
        link = uplink_of(client, spool, Sync(), tmp_path)
        async with running(link):
            while not link.progress.uplink_waits:
                await asyncio.sleep(0)
            link.knock()
            await spool.empty.wait()
    assert len(hub.requests) == 2


async def test_later_for_everything_backs_off_and_does_not_spin(tmp_path):
    hub = Hub(b"ok")
    spool = Spool(2)
    waits = []
    enough = asyncio.Event()
    sync = Sync(lambda raw, count: outcome(count, verdicts=[Later(7)] * count))
    async with serving(hub) as url, client_of(url) as client:
        link = uplink_of(client, spool, sync, tmp_path)

        async def sleep(seconds):
            waits.append(seconds)
            if len(waits) == 3:
                enough.set()
                await asyncio.Event().wait()

        link._sleep = sleep
        async with running(link):
            await enough.wait()
    assert waits == [7, 7, 7]


async def test_a_false_answer_is_an_alarm_and_sending_goes_on(tmp_path):
    hub = Hub(b"false", b"ok")
    spool = Spool(1)

    def verdict(raw, count):
        if raw == b"false":
            raise VerifyError(Code.SIGNATURE_INVALID)
        return outcome(count)

    async with serving(hub) as url, client_of(url) as client:
        link = uplink_of(client, spool, Sync(verdict), tmp_path)
        raised = []
        link.health.raise_alarm = lambda key, **fields: raised.append(key)
        async with running(link):
            await spool.empty.wait()
    assert raised == ["untrusted"]
    assert len(spool.applied) == 1


async def test_a_hub_that_does_not_know_our_key_is_not_called_false(tmp_path):
    refused = web.json_response({"error": {"key": "unknown-key"}}, status=401)
    hub = Hub(refused, b"ok")
    spool = Spool(1)
    async with serving(hub) as url, client_of(url) as client:
        link = uplink_of(client, spool, Sync(lambda raw, count: outcome(count)), tmp_path)
        raised = []
        link.health.raise_alarm = lambda key, **fields: raised.append((key, fields))
        async with running(link):
            await spool.empty.wait()
    assert raised == [("unrecognised", {"reason": "unknown-key"})]


async def test_an_unknown_state_of_our_own_ends_the_uplink(tmp_path):
    hub = Hub(b"ok")
    spool = Spool(1)
    spool.error = FatalError(Code.STORAGE_UNKNOWN)
    async with serving(hub) as url, client_of(url) as client:
        with pytest.raises(FatalError):
            async with asyncio.timeout(5):
                await uplink_of(client, spool, Sync(), tmp_path).run()


async def test_a_full_disk_at_the_receipt_is_tried_again(tmp_path):
    hub = Hub(b"ok")
    spool = Spool(1)
    spool.error = UnavailableError(Code.DISK_FULL)
    async with serving(hub) as url, client_of(url) as client:
        link = uplink_of(client, spool, Sync(), tmp_path)
        async with running(link):
            while len(hub.requests) < 3:
                await asyncio.sleep(0)
            spool.error = None
            await spool.empty.wait()
    assert len(spool.applied) == 1


async def test_the_hubs_budget_and_pace_are_kept(tmp_path):
    hub = Hub(b"ok")
    spool = Spool(300)
    sync = Sync(lambda raw, count: outcome(count, budget=100_000))
    async with serving(hub) as url, client_of(url) as client:
        link = uplink_of(client, spool, sync, tmp_path)
        link.budget(200_000, 0)
        async with running(link):
            await spool.empty.wait()
    assert spool.asked[0] == 200_000
    assert set(spool.asked[1:]) == {100_000}


async def test_a_pace_that_is_too_slow_neither_stops_the_uplink_nor_looks_like_a_stop(tmp_path):
    hub = Hub(b"ok")
    spool = Spool(300)
    async with serving(hub) as url, client_of(url) as client:
        link = uplink_of(client, spool, Sync(), tmp_path)
        link.budget(200_000, 1)
        async with running(link):
            while not link.progress.uplink_waits:
                await asyncio.sleep(0)
            assert len(hub.requests[0][-1]) <= BATCH_BYTES_MIN
            assert -REST_S_MAX < link.progress.since_turn_s() < 10 - REST_S_MAX
            link.budget(200_000, 0)
            await spool.empty.wait()


async def test_batches_at_a_slow_pace_are_small_enough_to_keep_it(tmp_path):
    spool = Spool(0)
    async with client_of("http://127.0.0.1:9") as client:
        link = uplink_of(client, spool, Sync(), tmp_path)
        link.budget(1 << 20, 300)
        async with running(link):
            await spool.empty.wait()
    assert spool.asked == [300 * REST_S_MAX]


async def test_a_request_is_signed_and_small(tmp_path):
    hub = Hub(b"ok")
    spool = Spool(1)
    async with serving(hub) as url, client_of(url) as client:
        async with running(uplink_of(client, spool, Sync(), tmp_path)):
            await spool.empty.wait()
    method, path, headers, body = hub.requests[0]
    assert (method, path) == ("POST", "/v1/sync")
    assert "sm=" in headers["Signature-Input"]
    assert "User-Agent" not in headers
    assert "Accept-Encoding" not in headers
    assert headers["Content-Length"] == str(len(body))
    assert sum(len(name) + len(value) + 4 for name, value in headers.items()) < 800


async def test_an_answer_that_is_too_large_is_not_read(tmp_path):
    async def endless(request):
        response = web.StreamResponse(headers={"Content-Length": str(1 << 30)})
        await response.prepare(request)
        return response

    hub = Hub(endless)
    async with serving(hub) as url, client_of(url) as client:
        with pytest.raises(TooLargeError):
            await client.sync(b"x")


async def test_nobody_listens(tmp_path):
    async with client_of("http://127.0.0.1:9") as client:
        with pytest.raises(LaterError) as raised:
            await client.sync(b"x")
    assert raised.value.code is Code.UNREACHABLE


async def test_a_poll_without_heartbeats_is_dead(tmp_path, monkeypatch):
    monkeypatch.setattr("agent.link.hub_client.POLL_SILENCE_S", 0.2)
    assert POLL_SILENCE_S == 12

    async def silent(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"\0")
        await hub.release.wait()
        return response

    hub = Hub(silent)
    async with serving(hub) as url, client_of(url) as client:
        got = []

        async def poll():
            async for piece in client.poll({"generation": "0", "n": "0"}):
                got.append(piece)

        with pytest.raises(LaterError) as raised:
            await poll()
    assert raised.value.code is Code.TIMEOUT
    assert b"".join(got) == b"\0"


async def test_evidence_that_moves_nothing_is_not_asked_for_again_at_once(tmp_path):
    def shown(raw, count):
        said = outcome(count, verdicts=[Later(0)] * count)
        for one in said.items:
            one.evidence = ("a header",)
        return said

    hub = Hub(b"ok")
    long = {"retry_min": Duration.parse("10m"), "retry_max": Duration.parse("10m")}
    async with serving(hub) as url, client_of(url, **long) as client:
        link = uplink_of(client, Spool(1), Sync(shown), tmp_path)
        async with running(link):
            while link.health.counters["sync failed"] == 0:
                await asyncio.sleep(0.01)
        assert len(hub.requests) == 1


async def test_a_hub_is_asked_for_a_word_where_nothing_is_to_be_sent(tmp_path, monkeypatch):
    """Else a museum that is closed for the winter never learns that the hub lost its records."""
    monkeypatch.setattr("agent.link.uplink.WORD_EVERY_S", 0.02)
    hub = Hub(b"ok")
    async with serving(hub) as url, client_of(url) as client:
        spool = Spool(0)
        link = uplink_of(client, spool, Sync(), tmp_path)
        async with running(link):
            while len(spool.applied) < 2:
                await asyncio.sleep(0.01)
        assert [one.items for one in spool.applied[:2]] == [[], []]
        assert link.health.counters["sync failed"] == 0


async def test_plain_http_refused():
    with pytest.raises(RefusedError) as raised:
        HubClient(table("http://10.0.0.1:80"), synchronised(), hub=HUB, key=KEY)
    assert raised.value.code is Code.PLAIN_HTTP


# --- TLS -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_authority(tmp_path_factory.mktemp("tls"))


def server_context(path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


async def test_a_certificate_of_the_countys_own_authority(certificates):
    context = server_context(certificates / "good.pem")
    async with serving(Hub(b"ok"), context=context) as url:
        async with client_of(url, ca=str(certificates / "ca.pem")) as client:
            assert await client.sync(b"x") == b"ok"
            assert client.certificate_ends_s > 1e9


@pytest.mark.parametrize(
    ("which", "ca", "reason"),
    [
        ("good", False, "unable to get local issuer certificate"),
        ("expired", True, "certificate has expired"),
        ("other", True, "IP address mismatch"),
    ],
)
async def test_a_wrong_certificate_is_never_accepted(certificates, which, ca, reason, tmp_path):
    context = server_context(certificates / f"{which}.pem")
    hub = Hub(b"ok")
    authority = {"ca": str(certificates / "ca.pem")} if ca else {}
    async with serving(hub, context=context) as url, client_of(url, **authority) as client:
        with pytest.raises(CertificateError) as raised:
            await client.sync(b"x")
        assert reason in raised.value.expected
        spool = Spool(1)
        link = uplink_of(client, spool, Sync(), tmp_path)
        async with running(link):
            while "certificate" not in link.health.alarms:
                await asyncio.sleep(0)
    assert hub.requests == []
    assert spool.items


async def test_old_tls_is_refused(certificates):
    context = server_context(certificates / "good.pem")
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with serving(Hub(b"ok"), context=context) as url:
        async with client_of(url, ca=str(certificates / "ca.pem")) as client:
            assert client._session.connector._ssl.minimum_version is ssl.TLSVersion.TLSv1_2
            assert client._session.connector._ssl.verify_mode is ssl.CERT_REQUIRED
            assert client._session.connector._ssl.check_hostname


async def test_an_authority_that_cannot_be_read(tmp_path):
    for content in (None, b"", b"no certificate"):
        path = tmp_path / "ca.pem"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(CaFileError):
            async with client_of("https://127.0.0.1:1", ca=str(path)):
                pass


async def test_clock_1970_judges_the_certificate_by_what_has_surely_passed(certificates):
    class Back:
        wall = 3_600_000_000
        boot = 10**9

    def clock():
        return Clock(
            wall=lambda: Back.wall,
            boot=lambda: Back.boot,
            system=lambda: SystemState(synchronised=False, error_us=0),
        )

    context = server_context(certificates / "good.pem")
    authority = {"ca": str(certificates / "ca.pem")}
    async with serving(Hub(b"ok"), context=context) as url:
        one = clock()
        async with client_of(url, clock=one, **authority) as client:
            assert await client.sync(b"x") == b"ok"
            # The hub's time is known now, and by it this certificate is not valid: found at once.
            far = BUILD_TIME_US + 10 * 365 * 86_400_000_000
            one.learn_hub(far, sent_ns=Back.boot, received_ns=Back.boot)
            await client.renew()
            with pytest.raises(CertificateError):
                await client.sync(b"x")
    context = server_context(certificates / "expired.pem")
    async with serving(Hub(b"ok"), context=context) as url:
        async with client_of(url, clock=clock(), **authority) as client:
            with pytest.raises(CertificateError):
                await client.sync(b"x")


def test_the_environment_cannot_turn_verification_off(tmp_path):
    code = (
        "from agent.link.tls import context_for; from agent.host.clock import Clock;"
        "c = context_for(None, Clock()); print(c.verify_mode.name, c.check_hostname)"
    )
    import sys

    out = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONHTTPSVERIFY": "0", "PATH": "/usr/bin", "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=True,
    )
    assert out.stdout.split() == ["CERT_REQUIRED", "True"]


async def test_a_resumed_agent_sends_again_and_asks_small_until_then(tmp_path):
    refusal = web.json_response({"error": {"key": "agent-suspended"}}, status=403)
    hub = Hub(b"later", refusal, refusal, b"streams", b"ok")
    spool = Spool(3)

    def verdict(raw, count):
        return outcome(count, verdicts=[Later(3600)] * count if raw == b"later" else None)

    async with serving(hub) as url, client_of(url) as client:
        link = uplink_of(client, spool, Sync(verdict), tmp_path)
        async with running(link):
            while link.refused is None:
                await asyncio.sleep(0)
            link.ask_again()
            await spool.empty.wait()
        assert link.refused is None
        assert not link.health.alarms
    asked = [path for _method, path, *_ in hub.requests]
    assert asked == ["/v1/sync", "/v1/streams", "/v1/streams", "/v1/streams", "/v1/sync"]
    assert spool.released == 1


async def test_an_uplink_whose_streams_are_all_held_is_not_stuck(tmp_path):
    hub = Hub(b"ok")
    spool = Spool(0)
    spool.held_s = lambda: 1200.0
    async with serving(hub) as url, client_of(url) as client:
        link = uplink_of(client, spool, Sync(), tmp_path)
        async with running(link):
            await spool.empty.wait()
            await asyncio.sleep(0)
            assert link.progress.uplink_waits
            assert link.progress.since_turn_s() < -1000


async def test_a_gateway_with_nothing_to_send_asks_to_be_let_in(tmp_path):
    """Only its inbox poll hears that the hub, restored from an old backup, does not know it."""
    stranger = web.json_response({"error": {"key": "unknown-agent"}}, status=403)
    waiting = web.json_response({"error": {"key": "agent-waiting"}}, status=403)
    hub = Hub(stranger, stranger, waiting, b"streams")
    spool, shown, states = Spool(0), [], []

    async def readmit():
        states.append(link.refused)
        shown.append("enrolled")
        if len(shown) == 1:
            raise UnavailableError(Code.UNREACHABLE)
        return True

    async with serving(hub) as url, client_of(url) as client:
        link = uplink_of(client, spool, Sync(), tmp_path, readmit=readmit)
        raised = []
        link.health.raise_alarm = lambda key, **fields: raised.append(key)
        async with running(link):
            await spool.empty.wait()
            while not link.progress.uplink_waits:
                await asyncio.sleep(0)
            spool.empty.clear()
            link.poll_failed(LaterError(Code.UNREACHABLE))
            link.poll_failed(RefusedError(Code.NOT_ALLOWED))
            assert link.refused is None
            link.poll_failed(RefusedError(Code.UNKNOWN_AGENT))
            await spool.empty.wait()
            while not spool.applied:  # at once: what the hub has may be older
                await asyncio.sleep(0.01)
    assert [path for _method, path, *_ in hub.requests] == ["/v1/streams"] * 4 + ["/v1/sync"]
    assert states == [Code.UNKNOWN_AGENT] * 2
    assert raised == ["unknown-at-hub"]
    assert link.refused is None
    assert spool.released == 1


async def test_a_late_answer_of_a_poll_does_not_undo_that_we_wait(tmp_path):
    async with client_of("http://127.0.0.1:9") as client:

        async def readmit():
            raise AssertionError("shown already")

        waits = {"refused": Code.AGENT_WAITING, "readmit": readmit}
        link = uplink_of(client, Spool(0), Sync(), tmp_path, **waits)
        link.poll_failed(RefusedError(Code.UNKNOWN_AGENT))
    assert link.refused is Code.AGENT_WAITING
