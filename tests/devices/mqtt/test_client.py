"""The wrapped client against a broker of a few lines that does what real ones rarely do."""

import asyncio
import ssl
import tracemalloc
from contextlib import aclosing, asynccontextmanager

import pytest

from devices.driver import DriverError, Lost, Reading
from devices.kit import Bench, load
from devices.mqtt.connection import Connection
from devices.mqtt.settings import Settings
from protocol.errors import Code

WAIT_S = 20
CONNACK = b"\x20\x02\x01\x00"


def publish(number: int, *, dup: bool = False) -> bytes:
    body = b"\x00\x01t" + number.to_bytes(2, "big") + b"%d" % number
    return bytes([0x32 | dup << 3, len(body)]) + body


@asynccontextmanager
async def scripted(script, certificates=None):
    """A server that runs `script(reader, writer)` for each connection; gives its port."""
    done: list[asyncio.Task] = []

    async def serve(reader, writer):
        done.append(asyncio.current_task())
        try:
            await script(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    context = None
    if certificates:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificates.cert, certificates.key)
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in done:
            task.cancel()
        await asyncio.gather(*done, return_exceptions=True)


async def packet(reader) -> tuple[int, bytes]:
    head = await reader.readexactly(2)
    return head[0], await reader.readexactly(head[1])


def settings(port: int, certificates=None, **more) -> Settings:
    tls = None
    if certificates:
        tls = lambda: ssl.create_default_context(cafile=str(certificates.ca))  # noqa: E731
    return Settings(host="127.0.0.1", port=port, client_id="gw", tls=tls, timeout_s=5, **more)


async def take(connection, count: int) -> list[str]:
    """Receive and acknowledge one after the other."""
    found = []
    async for delivery in connection.deliveries(60):
        found.append(delivery.message.payload.decode())
        connection.acknowledge(delivery)
        if len(found) == count:
            return found
    return found


async def _record(connection, found):
    async for delivery in connection.deliveries(60):
        found.append(delivery)


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_a_burst_in_one_write_is_taken_piece_by_piece(secure, certificates):
    """With TLS the rest of a burst is decrypted already: no readiness of the socket tells of it."""
    acked = []

    async def script(reader, writer):
        await packet(reader)
        writer.write(CONNACK)
        writer.write(b"".join(publish(n) for n in range(1, 51)))
        await writer.drain()
        while len(acked) < 50:
            kind, body = await packet(reader)
            if kind == 0x40:
                acked.append(int.from_bytes(body, "big"))
        await asyncio.sleep(3600)

    used = certificates if secure else None
    async with scripted(script, used) as port, asyncio.timeout(WAIT_S):
        async with Connection(settings(port, used, in_flight=3)) as connection:
            assert await take(connection, 50) == [str(n) for n in range(1, 51)]
            assert connection.client.received_most <= 3
            while len(acked) < 50:
                await asyncio.sleep(0)
    assert acked == list(range(1, 51))


def oversize(
    five: bool, length: int, topic: bytes = b"gate/1", number: int = 2, *, later: int = 0
) -> bytes:
    """A PUBLISH of `length` bytes; the last `later` of them are announced only."""
    rest = len(topic).to_bytes(2, "big") + topic + number.to_bytes(2, "big")
    rest += b"\0" * five + b"x" * (length - later)
    head = bytearray(b"\x32")
    left = len(rest) + later
    while left > 0x7F:
        head.append(left & 0x7F | 0x80)
        left >>= 7
    return bytes(head) + bytes([left]) + rest


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("version", ["3.1.1", "5"])
async def test_a_message_above_the_bound_is_read_past_and_acknowledged(
    version, secure, certificates
):
    five, acked = version == "5", []
    small = publish(1) if not five else b"\x32\x07\x00\x01t\x00\x01\x001"
    after = publish(3) if not five else b"\x32\x07\x00\x01t\x00\x03\x003"

    async def script(reader, writer):
        await reader.readexactly(1)
        await reader.readexactly((await reader.readexactly(1))[0])
        writer.write(b"\x20\x03\x01\x00\x00" if five else CONNACK)
        writer.write(small + oversize(five, 20 << 20, later=20 << 20))
        for _ in range(20 << 4):
            writer.write(bytes(1 << 16))
            await writer.drain()
        writer.write(after)
        while len(acked) < 3:
            kind, body = await packet(reader)
            if kind == 0x40:
                acked.append(int.from_bytes(body[:2], "big"))
        await asyncio.sleep(3600)

    found = []
    used = certificates if secure else None
    async with scripted(script, used) as port, asyncio.timeout(WAIT_S):
        wanted = settings(port, used, version=version, packet_max=4096)
        tracemalloc.start()
        async with Connection(wanted) as connection:
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            async for delivery in connection.deliveries(60):
                found.append(delivery.message)
                connection.acknowledge(delivery)
                if len(found) == 3:
                    break
            most = tracemalloc.get_traced_memory()[1] - before
            tracemalloc.stop()
            while len(acked) < 3:
                await asyncio.sleep(0)
    assert acked == [1, 2, 3]
    assert [one.payload for one in found] == [b"1", b"", b"3"]
    assert found[1].topic == "gate/1"
    assert [one.left_out for one in found] == [0, (20 << 20) + five, 0]
    assert most < 2 << 20


async def test_a_long_message_that_is_read_past_is_no_dead_broker():
    """Its line is slow: the PINGRESPs stand behind it, and nothing of it reaches paho."""
    pings = []

    async def script(reader, writer):
        await packet(reader)
        writer.write(CONNACK + oversize(False, 1 << 20, later=1 << 20))

        async def trickle():
            left = 1 << 20
            while len(pings) < 2:  # the second is sent only where the first was forgiven
                writer.write(bytes(100))
                left -= 100
                await asyncio.sleep(0.02)
            writer.write(bytes(left) + b"\xd0\x00" * 2 + publish(3))

        async with asyncio.TaskGroup() as group:
            group.create_task(trickle())
            while True:
                kind, _ = await packet(reader)
                if kind == 0xC0:
                    pings.append(kind)

    async with scripted(script) as port, asyncio.timeout(WAIT_S):
        async with Connection(settings(port, packet_max=4096, keepalive_s=1)) as connection:
            assert await take(connection, 2) == ["", "3"]


async def test_a_large_packet_that_is_no_message_ends_the_connection():
    async def script(reader, writer):
        await packet(reader)
        writer.write(CONNACK + b"\x90\xff\xff\xff\x7f")
        await asyncio.sleep(3600)

    async with scripted(script) as port, asyncio.timeout(WAIT_S):
        async with Connection(settings(port)) as connection:
            with pytest.raises(DriverError):
                await take(connection, 1)


async def test_a_broker_that_never_answers_is_left_after_the_timeout():
    async def script(reader, writer):
        await asyncio.sleep(3600)

    async with scripted(script) as port, asyncio.timeout(WAIT_S):
        quick = settings(port)
        quick = Settings(host=quick.host, port=port, client_id="gw", timeout_s=0.3)
        with pytest.raises(DriverError) as caught:
            async with Connection(quick):
                pass
    assert caught.value.retry


async def test_a_connection_that_ends_gives_out_what_has_arrived_and_then_says_so():
    async def script(reader, writer):
        await packet(reader)
        writer.write(CONNACK + publish(1) + publish(2, dup=True))
        await writer.drain()

    found = []
    async with scripted(script) as port, asyncio.timeout(WAIT_S):
        async with Connection(settings(port)) as connection:
            with pytest.raises(DriverError):
                await _record(connection, found)
            connection.acknowledge(found[0])  # too late: must not harm anything
    assert [one.message.dup for one in found] == [False, True]


async def test_a_broker_that_sends_rubbish_ends_the_connection():
    async def script(reader, writer):
        await packet(reader)
        writer.write(CONNACK + b"\xf0\xff\xff\xff\xff\xff")
        await writer.drain()
        await asyncio.sleep(3600)

    async with scripted(script) as port, asyncio.timeout(WAIT_S):
        async with Connection(settings(port)) as connection:
            with pytest.raises(DriverError):
                await take(connection, 1)


async def test_a_refused_subscription_is_told_by_its_topic():
    async def script(reader, writer):
        await packet(reader)
        writer.write(CONNACK)
        _, body = await packet(reader)
        writer.write(b"\x90\x03" + body[:2] + b"\x80")
        await asyncio.sleep(3600)

    async with scripted(script) as port, asyncio.timeout(WAIT_S):
        async with Connection(settings(port)) as connection:
            connection.subscribe([("secret/#", 1)])
            with pytest.raises(DriverError) as caught:
                await take(connection, 1)
    assert caught.value.field == "topic"
    assert "secret/#" in caught.value.value


async def test_a_topic_that_is_not_text_is_received_and_can_be_rejected():
    async def script(reader, writer):
        await packet(reader)
        writer.write(CONNACK + b"\x32\x07\x00\x02\xff\xfe\x00\x01x")
        await asyncio.sleep(3600)

    async with scripted(script) as port, asyncio.timeout(WAIT_S):
        async with Connection(settings(port)) as connection:
            async for delivery in connection.deliveries(60):
                assert delivery.message.topic == "\ufffd"
                break


def test_settings_do_not_show_their_secret():
    assert "hunter2" not in repr(
        Settings(host="h", port=1, client_id="c", username="u", password="hunter2")
    )


SITE = """
[[mqtt]]
id = "b"
url = "mqtt://127.0.0.1:{port}"
client_id = "{client_id}"
[[device]]
id = "gate"
profile = "mqtt/json"
resource = "checks"
pack = "ticket.check"
connection = {{ mqtt = "b", topic = "gate" }}
policy = {{ dedup_key = ["id"] }}
map = {{ persons = {{ path = "n" }} }}
[[device]]
id = "counter"
profile = "mqtt/json"
resource = "passages"
pack = "visitor.passage"
connection = {{ mqtt = "b", topic = "counter" }}
map = {{ in_count = {{ path = "n", counter = {{ wrap = 65536 }} }} }}
"""


async def test_a_session_that_was_lost_while_nobody_ran_is_told_once(monkeypatch):
    monkeypatch.setattr("devices.mqtt.driver.STALE_EVERY_S", 0.01)
    present = False

    async def script(reader, writer):
        await packet(reader)
        writer.write(b"\x20\x02" + bytes([present, 0]))
        while True:
            kind, body = await packet(reader)
            if kind == 0x82:
                writer.write(b"\x90\x03" + body[:2] + b"\x01")

    bench = Bench()
    async with scripted(script) as port, asyncio.timeout(WAIT_S):

        async def restarted(client_id: str = "gw", count: int = 1) -> Reading:
            """The first reading of a new instance, of which so many are committed."""
            bench.now_us += 2 * 3_600_000_000
            loaded = load(SITE.format(port=port, client_id=client_id))
            return (await bench.pump(loaded.drivers[0].make(bench), count))[0]

        assert not (await restarted()).lost  # there was none before
        noted_us, present = bench.now_us, True
        assert not (await restarted()).lost  # and was too short to see that nothing waits
        present = False
        assert (await restarted(count=2)).lost == [
            Lost(resource="checks", since_us=noted_us, reason="session lost")
        ]
        assert bench.health.total("sessions_lost") == 1
        present = True
        assert not (await restarted()).lost
        assert not (await restarted("another")).lost


PRESENT, FRESH, REFUSED = CONNACK, b"\x20\x02\x00\x00", b"\x20\x02\x00\x05"


@asynccontextmanager
async def asked(monkeypatch):
    """Instances that end beside a broker, and what they share; the session is noted as there."""
    monkeypatch.setattr("devices.mqtt.driver.STALE_EVERY_S", 0.01)
    answers: list[bytes | None] = [PRESENT]
    quick = SITE.replace("[[device]]", 'connect_timeout = "1s"\n[[device]]', 1)
    bench = Bench()

    async def script(reader, writer):
        await packet(reader)
        if answers[0] is None:
            return
        writer.write(answers[0])
        while True:
            kind, body = await packet(reader)
            if kind == 0x82:
                writer.write(b"\x90\x03" + body[:2] + b"\x01")

    async with scripted(script) as port, asyncio.timeout(WAIT_S):

        async def first(
            answer: bytes | None, *, commit: bool = True, notes: bool = True
        ) -> list[Lost]:
            """What a new instance says first, a day later; killed after it, or after its note."""
            answers[0] = answer
            bench.now_us += 86_400_000_000
            driver = load(quick.format(port=port, client_id="gw")).drivers[0].make(bench)
            async with aclosing(driver.run()) as readings:
                reading = await anext(readings)
                if commit:
                    bench.commit(reading)
                if notes and reading.lost:
                    bench.commit(await anext(readings))
            return reading.lost

        assert not await first(PRESENT)
        yield first, bench


async def test_a_lost_session_that_was_found_and_not_committed_is_found_again(monkeypatch):
    """The CONNECT that found it made a new one: the next instance finds that."""
    async with asked(monkeypatch) as (first, bench):
        noted_us = bench.now_us
        told = [Lost(resource="checks", since_us=noted_us, reason="session lost")]
        assert await first(FRESH, commit=False, notes=False) == told
        assert await first(PRESENT) == told
        assert not await first(PRESENT)


async def test_a_connect_that_was_never_answered_may_have_hidden_a_loss(monkeypatch):
    async with asked(monkeypatch) as (first, bench):
        noted_us = bench.now_us
        with pytest.raises(DriverError):
            await first(None)
        assert await first(PRESENT) == [
            Lost(resource="checks", since_us=noted_us, reason="session lost")
        ]
        assert not await first(PRESENT)


async def test_a_new_session_whose_subscriptions_nobody_saw_granted_keeps_nothing(monkeypatch):
    async with asked(monkeypatch) as (first, bench):
        assert await first(FRESH, notes=False)
        told_us = bench.now_us
        assert await first(PRESENT) == [
            Lost(resource="checks", since_us=told_us, reason="session lost")
        ]
        assert not await first(PRESENT)


async def test_an_ordinary_kill_hides_nothing_and_says_nothing(monkeypatch):
    """Killed while connected, after a refusal, after a line that never stood."""
    async with asked(monkeypatch) as (first, bench):
        assert not await first(PRESENT, commit=False)
        with pytest.raises(DriverError):
            await first(REFUSED)
        with monkeypatch.context() as away:
            away.setattr(Connection, "_open", unreachable)
            with pytest.raises(DriverError):
                await first(PRESENT)
        assert not await first(PRESENT)
        assert bench.health.total("sessions_lost") == 0


async def unreachable(_connection) -> None:
    raise DriverError(Code.UNREACHABLE)


async def test_no_connect_goes_out_before_it_is_noted(monkeypatch):
    async with asked(monkeypatch) as (first, bench):

        async def note(_mark):
            raise DriverError(Code.BUSY)

        with monkeypatch.context() as full:
            full.setattr(bench, "note", note)
            with pytest.raises(DriverError):
                await first(FRESH)
        assert not await first(PRESENT), "the broker was not asked"


async def test_a_line_that_stands_is_not_a_connect():
    """What `greets=False` is for: the server hears nothing until it is told to."""
    heard = asyncio.Event()

    async def script(reader, writer):
        await packet(reader)
        heard.set()
        writer.write(CONNACK)
        await asyncio.sleep(3600)

    async with scripted(script) as port, asyncio.timeout(WAIT_S):
        async with Connection(settings(port), greets=False) as connection:
            await asyncio.sleep(0.1)
            assert not heard.is_set()
            assert connection.left_session_alone
            await connection.greet()
            assert heard.is_set()
            assert connection.client.session_present
