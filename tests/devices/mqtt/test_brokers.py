"""The mqtt driver against real brokers: what is promised must hold on the wire."""

import asyncio
import json
import signal
import socket
import sys
from contextlib import aclosing
from pathlib import Path

import pytest

from devices.driver import DriverError, Promise
from devices.kit import Bench, load
from protocol.errors import Code

CONFIG = """
[[mqtt]]
id = "b"
url = "{url}"
client_id = "gw"
in_flight = {in_flight}
{more}
[[device]]
id = "zones"
profile = "mqtt/json"
resource = "load"
pack = "visitor.load"
connection = {{ mqtt = "b", topic = "zones/+", device_level = 1 }}
policy = {{ {policy} }}
map = {{ zone_id = {{ path = "id" }}, present = {{ path = "n" }} }}
"""
WAIT_S = 20


def config(broker, *, in_flight=100, more="", policy='dedup_key = ["id"]') -> str:
    return CONFIG.format(url=broker.url, in_flight=in_flight, more=more, policy=policy)


def make(broker, bench, **options):
    loaded = load(config(broker, **options))
    assert not loaded.problems, loaded.problems
    return loaded.drivers[0].make(bench)


def message(name: str, n: int = 1) -> tuple[str, str]:
    return "zones/z1", json.dumps({"id": name, "n": n})


def ids(readings) -> list[str]:
    return [row.values["zone_id"] for r in readings for rows in r.rows for row in rows.records]


async def subscribe_once(driver) -> None:
    """Make the persistent session exist: connect, subscribe, leave."""
    connected = asyncio.Event()
    bench_changed = driver._context.health.changed

    def changed(device, state, detail=""):
        bench_changed(device, state, detail)
        connected.set()

    driver._context.health.changed = changed
    task = asyncio.create_task(_first(driver))
    async with asyncio.timeout(WAIT_S):
        await connected.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    driver._context.health.changed = bench_changed


def waiting(client) -> int:
    """The first byte that waits in the socket; -1 if there is none."""
    try:
        return client._client.socket().recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)[0]
    except BlockingIOError:
        return -1


async def _first(driver):
    async with aclosing(driver.run()) as readings:
        return await anext(readings)


async def test_R49_killed_between_receipt_and_commit_everything_comes_again(make_broker):
    broker = await make_broker()
    bench = Bench()
    await subscribe_once(make(broker, bench))
    await broker.publish(*(message(f"m{i}") for i in range(3)))
    root = Path(__file__).resolve().parents[3]
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.devices.mqtt.consumer", config(broker),
        stdout=asyncio.subprocess.PIPE, cwd=root,
    )  # fmt: skip
    async with asyncio.timeout(WAIT_S):
        seen = [(await child.stdout.readline()).decode().strip() for _ in range(3)]
    child.send_signal(signal.SIGKILL)
    await child.wait()
    assert seen == ["m0", "m1", "m2"]

    async with asyncio.timeout(WAIT_S):
        readings = await bench.pump(make(broker, bench), 3)
    assert sorted(ids(readings)) == ["m0", "m1", "m2"]


async def test_R49_acknowledged_messages_do_not_come_again(make_broker):
    broker = await make_broker()
    bench = Bench()
    await subscribe_once(make(broker, bench))
    await broker.publish(*(message(f"m{i}") for i in range(3)))
    async with asyncio.timeout(WAIT_S):
        await bench.pump(make(broker, bench), 3)
    await broker.publish(message("last"))
    async with asyncio.timeout(WAIT_S):
        readings = await bench.pump(make(broker, bench), 1)
    assert ids(readings) == ["last"]
    assert bench.repeats == 0


async def test_a_message_above_the_bound_is_rejected_once_and_blocks_nobody(make_broker):
    broker = await make_broker()
    bench = Bench()
    more = "packet_max = 1024"
    await subscribe_once(make(broker, bench, more=more))
    await broker.publish(message("m0"), ("zones/z1", "x" * 100_000), message("m1"))
    async with asyncio.timeout(WAIT_S):
        await bench.pump(make(broker, bench, more=more), 3)
    told = [one for reading in bench.committed for one in reading.rejected]
    await broker.publish(message("last"))
    async with asyncio.timeout(WAIT_S):
        readings = await bench.pump(make(broker, bench, more=more), 1)
    assert ids(readings) == ["last"]
    assert [(one.reason, one.raw, one.detail) for one in told] == [
        ("too-large", b"", "zones/z1, 100000 bytes")
    ]


async def test_committed_and_not_acknowledged_is_recognised_by_its_id(make_broker):
    broker = await make_broker()
    bench = Bench()
    driver = make(broker, bench)
    await subscribe_once(driver)
    await broker.publish(message("m0"))
    async with asyncio.timeout(WAIT_S), aclosing(driver.run()) as readings:
        async for reading in readings:
            bench.commit(reading, ack=False)
            break
    async with asyncio.timeout(WAIT_S):
        await bench.pump(make(broker, bench), 1)
    assert ids(bench.committed) == ["m0"]
    assert bench.repeats == 1


async def test_a_later_acknowledgement_does_not_answer_for_earlier_messages(make_broker):
    broker = await make_broker()
    bench = Bench()
    driver = make(broker, bench)
    await subscribe_once(driver)
    await broker.publish(*(message(f"m{i}") for i in range(3)))
    async with asyncio.timeout(WAIT_S), aclosing(driver.run()) as readings:
        taken = [await anext(readings) for _ in range(3)]
        taken[2].ack()  # the crash comes before the others
    async with asyncio.timeout(WAIT_S):
        again = await bench.pump(make(broker, bench), 3)
    assert sorted(ids(again)) == ["m0", "m1", "m2"]


async def test_class_b_repeat_is_marked_and_counted(make_broker):
    broker = await make_broker()
    bench = Bench()
    driver = make(broker, bench, policy="")
    await subscribe_once(driver)
    await broker.publish(message("m0"))
    async with asyncio.timeout(WAIT_S), aclosing(driver.run()) as readings:
        async for reading in readings:
            bench.commit(reading, ack=False)
            break
    async with asyncio.timeout(WAIT_S):
        again = (await bench.pump(make(broker, bench, policy=""), 1))[0]
    assert again.rows[0].records[0].quality & 1 << 10
    assert bench.health.total("maybe_repeat") == 1


async def test_persistent_session_keeps_what_was_sent_while_away(make_broker):
    broker = await make_broker()
    bench = Bench()
    await subscribe_once(make(broker, bench))
    await broker.publish(*(message(f"m{i}") for i in range(20)))
    async with asyncio.timeout(WAIT_S):
        readings = await bench.pump(make(broker, bench), 20)
    assert ids(readings) == [f"m{i}" for i in range(20)]


async def test_same_instance_goes_on_after_the_broker_restarts(make_broker):
    broker = await make_broker()
    bench = Bench()
    driver = make(broker, bench)
    await subscribe_once(driver)
    await broker.publish(message("m0"))

    async def until_the_broker_stops():
        async with asyncio.timeout(WAIT_S), aclosing(driver.run()) as readings:
            async for reading in readings:
                bench.commit(reading)
                await broker.stop()

    with pytest.raises(DriverError) as caught:
        await until_the_broker_stops()
    assert caught.value.retry
    with pytest.raises(DriverError):
        await _first(driver)
    await broker.start()
    await broker.publish(message("m1"))
    async with asyncio.timeout(WAIT_S):
        # nats-server may deliver m0 again: its PUBACK can be lost with the connection.
        while "m1" not in ids(bench.committed):
            await bench.pump(driver, 1)
    assert ids(bench.committed) == ["m0", "m1"]


async def test_queue_is_bounded_and_discards_nothing(make_broker):
    """The broker would send 1,000 at once; we never hold more than 16 and get all of them."""
    broker = await make_broker(in_flight=1000)
    bench = Bench()
    driver = make(broker, bench, in_flight=16)
    await subscribe_once(driver)
    await broker.publish(*(message(f"m{i}", i) for i in range(300)))
    held, names, client = [], [], None
    async with asyncio.timeout(WAIT_S * 2), aclosing(driver.run()) as readings:
        async for reading in readings:
            client = reading.ack.func.__self__.client
            held.append(reading)
            if len(held) == 16:
                assert client.paused
                for one in held:
                    bench.commit(one)
                    names += ids([one])
                held.clear()
            if len(names) + len(held) == 300:
                break
        names += ids(held)
    assert names == [f"m{i}" for i in range(300)]
    assert client.received_most <= 16
    assert client.pauses > 0


async def test_totals_that_fill_the_window_are_not_left_waiting(make_broker):
    """Class D may wait for a later commit; half of the window is as long as it may."""
    broker = await make_broker()
    bench = Bench()
    text = config(broker, in_flight=4).replace("visitor.load", "visitor.passage")
    text = text.replace("zone_id", "line_id").replace("present", "in_count")
    text = text.replace('path = "n"', 'path = "n", counter = { wrap = 65536 }')
    driver = load(text).drivers[0].make(bench)
    await subscribe_once(driver)
    await broker.publish(*(message("z", n) for n in range(4)))
    promises = []
    async with asyncio.timeout(WAIT_S), aclosing(driver.run()) as readings:
        async for reading in readings:
            promises.append(reading.promise)
            if len(promises) == 4:
                break
    assert promises[-1] is Promise.B


async def test_paused_connection_outlives_its_keepalive(make_broker):
    broker = await make_broker(in_flight=1000)
    bench = Bench()
    driver = make(broker, bench, in_flight=1, more='keepalive = "5s"')
    await subscribe_once(driver)
    await broker.publish(message("m0"), message("m1"))
    async with asyncio.timeout(60), aclosing(driver.run()) as readings:
        first = await anext(readings)
        client = first.ack.func.__self__.client
        assert client.paused
        # Two and a half keepalives without reading: pings must go out, none may be missed.
        client._client._keepalive = 1
        rounds = _rounds(client, 4)
        await rounds
        assert client.messages_possible()
        bench.commit(first)
        second = await anext(readings)
        bench.commit(second)
    assert ids([first, second]) == ["m0", "m1"]


async def _rounds(client, count: int) -> None:
    """Wait until paho's housekeeping ran so often (once a second)."""
    done = asyncio.Event()
    real, left = client._client.loop_misc, [count]

    def loop_misc():
        left[0] -= 1
        if left[0] <= 0:
            done.set()
        return real()

    client._client.loop_misc = loop_misc
    await done.wait()


async def test_R48_retained_message_is_no_event(make_broker):
    broker = await make_broker()
    bench = Bench()
    await broker.publish(message("kept"), retain=True)
    driver = make(broker, bench)
    async with asyncio.timeout(WAIT_S), aclosing(driver.run()) as readings:
        first = await anext(readings)
        bench.commit(first)
        assert not first.rows
        await broker.publish(message("live"))
        second = await anext(readings)
        bench.commit(second)
    assert ids(bench.committed) == ["live"]
    assert bench.health.total("retained") == 1


async def test_wildcards_share_one_session_and_unknown_topics_do_not_block(make_broker):
    broker = await make_broker()
    bench = Bench()
    text = (
        config(broker)
        + """
[[device]]
id = "all"
profile = "mqtt/json"
resource = "lots"
pack = "parking.lot"
connection = { mqtt = "b", topic = "site/#" }
map = { lot_id = { path = "lot" } }
"""
    )
    loaded = load(text)
    driver = loaded.drivers[0].make(bench)
    await subscribe_once(driver)
    lot = json.dumps({"lot": "P1"})
    await broker.publish(message("z"), ("site/a/b/lot", lot), ("site/lot", lot))
    async with asyncio.timeout(WAIT_S):
        readings = await bench.pump(driver, 3)
    assert sorted(rows.resource for r in readings for rows in r.rows) == ["load", "lots", "lots"]


async def test_tls_with_a_countys_own_authority(make_broker, certificates):
    broker = await make_broker(tls=certificates)
    bench = Bench()
    driver = make(broker, bench, more=f'ca = "{certificates.ca}"')
    await subscribe_once(driver)
    await broker.publish(message("m0"))
    async with asyncio.timeout(WAIT_S):
        assert ids(await bench.pump(driver, 1)) == ["m0"]


async def test_tls_pause_loses_nothing_that_is_already_decrypted(make_broker, certificates):
    broker = await make_broker(tls=certificates, in_flight=1000)
    bench = Bench()
    driver = make(broker, bench, in_flight=3, more=f'ca = "{certificates.ca}"')
    await subscribe_once(driver)
    await broker.publish(*(message(f"m{i}") for i in range(50)))
    async with asyncio.timeout(WAIT_S):
        assert len(ids(await bench.pump(driver, 50))) == 50


async def test_tls_certificate_of_another_authority_is_refused(make_broker, certificates):
    broker = await make_broker(tls=certificates)
    driver = make(broker, Bench(), more=f'ca = "{certificates.other_ca}"')
    with pytest.raises(DriverError) as caught:
        async with asyncio.timeout(WAIT_S):
            await _first(driver)
    assert caught.value.field == "tls"
    assert caught.value.retry  # the broker's certificate may be renewed
    probe = (await driver.probe())[0]
    assert (probe.ok, probe.key) == (False, "broker-tls")


async def test_wrong_credentials_are_told_and_not_hammered(make_broker):
    broker = await make_broker(login=("gw", "right"))
    login = 'login = "secret:broker"'
    driver = make(broker, Bench(broker="gw:wrong"), more=login)
    with pytest.raises(DriverError) as caught:
        async with asyncio.timeout(WAIT_S):
            await _first(driver)
    assert (caught.value.code, caught.value.field) == (Code.NOT_ALLOWED, "login")
    assert caught.value.after_s >= 60
    assert "wrong" not in str(caught.value)
    assert "wrong" not in repr(driver._settings)
    assert (await driver.probe())[0].key == "broker-refuses"

    right = make(broker, Bench(broker="gw:right"), more=login)
    assert (await right.probe())[0].ok


async def test_probe_of_a_broker_that_is_away(make_broker):
    broker = await make_broker()
    driver = make(broker, Bench())
    await broker.stop()
    assert (await driver.probe())[0].key == "broker-away"


@pytest.mark.parametrize(
    "kind", [pytest.param("mosquitto", marks=pytest.mark.needs_mosquitto)], indirect=True
)
async def test_mqtt5_receive_maximum_holds_the_broker_back(make_broker):
    broker = await make_broker(in_flight=1000)
    bench = Bench()
    driver = make(broker, bench, in_flight=8, more='protocol = "5"')
    await subscribe_once(driver)
    await broker.publish(*(message(f"m{i}") for i in range(40)))
    held, names, client = [], [], None
    async with asyncio.timeout(WAIT_S), aclosing(driver.run()) as readings:
        async for reading in readings:
            client = reading.ack.func.__self__.client
            held.append(reading)
            if len(held) == 8:
                # It was told: at most its SUBACK waits in the socket. (mosquitto 2.0.11 forgets
                # the number after the first PUBACK; pausing the socket does not.)
                assert names or waiting(client) not in range(0x30, 0x40)
                for one in held:
                    bench.commit(one)
                    names += ids([one])
                held.clear()
            if len(names) == 40:
                break
    assert names == [f"m{i}" for i in range(40)]
    assert client.received_most <= 8
