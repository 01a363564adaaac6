"""From when on a lost session is told as lost messages: never later than what was missed."""

import asyncio
from collections import deque
from contextlib import asynccontextmanager

import pytest

from devices.driver import DriverError, Lost
from devices.kit import Bench, load
from tests.devices.mqtt.test_client import SITE, WAIT_S, packet, publish, scripted

HOUR_US = 3_600_000_000


class Broker:
    """One session at a broker that has one message on its way at a time."""

    def __init__(self) -> None:
        self.is_present = False
        self.held: deque[int] = deque()
        self.taken = 0
        self.late_s = 0.0  # after a PUBACK, until the next message goes out
        self.answers = True  # PINGREQ
        self.before_answers = False  # the next message goes out then, not after a PUBACK
        self.writer: asyncio.StreamWriter | None = None

    async def __call__(self, reader, writer):
        self.writer = writer
        await packet(reader)
        writer.write(b"\x20\x02" + bytes([self.is_present, 0]))
        self.is_present = True
        if not self.before_answers:
            self._send()
        while True:
            kind, body = await packet(reader)
            if kind == 0x82:
                writer.write(b"\x90\x03" + body[:2] + b"\x01")
            elif kind == 0x40:
                self.taken += 1
                if not self.before_answers:
                    asyncio.get_running_loop().call_later(self.late_s, self._send)
            elif kind == 0xC0 and self.answers:
                if self.before_answers:
                    self._send()
                writer.write(b"\xd0\x00")

    def _send(self) -> None:
        if self.held:
            self.writer.write(publish(self.held.popleft()))

    def lose(self) -> None:
        self.is_present = False
        self.held.clear()
        self.writer.close()


class World:
    """A broker, and instances of the driver that take from it."""

    def __init__(self, port: int, broker: Broker) -> None:
        self.bench = Bench()
        self.broker = broker
        self._config = SITE.format(port=port, client_id="gw").replace(
            "[[device]]", "in_flight = 2\n[[device]]", 1
        )
        self.restart()

    def restart(self) -> None:
        """A new instance: the old one's memory is gone."""
        self.driver = load(self._config).drivers[0].make(self.bench)

    @asynccontextmanager
    async def running(self, *, ack: bool = True):
        """The driver connected; it may have lost its broker at the end."""
        self.bench.health.states.clear()

        async def run():
            async for reading in self.driver.run():
                self.bench.commit(reading, ack=ack)

        task = asyncio.create_task(run())
        await until(lambda: self.bench.health.states)
        yield
        task.cancel()
        (end,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(end, DriverError | asyncio.CancelledError), end

    async def settle(self) -> int:
        """Run until it is sure that nothing waits; gives the time that is noted then."""
        before = dict(self.bench.watermarks)
        async with self.running():
            await asyncio.sleep(2.5)  # two rounds of the client's housekeeping
        assert self.bench.watermarks != before
        return self.bench.now_us

    async def told(self) -> list[Lost]:
        """What is told at the next connection, an hour after the broker lost the session."""
        self.broker.lose()
        self.bench.now_us += HOUR_US
        before = len(self.bench.committed)
        async with self.running():
            pass
        return [lost for one in self.bench.committed[before:] for lost in one.lost]


def lost(since_us: int) -> list[Lost]:
    return [Lost(resource="checks", since_us=since_us, reason="session lost")]


async def until(holds) -> None:
    async with asyncio.timeout(WAIT_S):
        while not holds():  # noqa: ASYNC110 — the peers of a test share no event
            await asyncio.sleep(0.01)


@pytest.fixture
async def world(monkeypatch):
    monkeypatch.setattr("devices.mqtt.driver.STALE_EVERY_S", 0.01)
    broker = Broker()
    async with scripted(broker) as port:
        yield World(port, broker)


async def test_what_waited_while_we_were_away_is_missing_if_the_session_is_lost_in_the_drain(world):
    since_us = await world.settle()
    world.bench.now_us += 48 * HOUR_US
    world.broker.held.extend(range(1, 100))
    world.restart()
    async with world.running(ack=False):
        await asyncio.sleep(0.2)
        assert await world.told() == lost(since_us)


async def test_a_drain_is_no_proof_even_if_the_broker_is_slow_to_go_on(world):
    since_us = await world.settle()
    world.bench.now_us += 48 * HOUR_US
    world.broker.held.extend(range(1, 100))
    world.broker.late_s = 0.3
    async with world.running():
        await until(lambda: world.broker.taken >= 10)
        assert world.broker.held
        assert await world.told() == lost(since_us)


async def test_a_message_before_the_answer_is_no_proof(world):
    since_us = await world.settle()
    world.bench.now_us += 48 * HOUR_US
    world.broker.held.extend(range(1, 100))
    world.broker.before_answers = True
    async with world.running():
        await until(lambda: world.broker.taken >= 2)
        assert await world.told() == lost(since_us)


async def test_what_waits_at_the_broker_while_reading_is_paused_is_missing(world):
    since_us = await world.settle()
    async with world.running(ack=False):
        world.broker.writer.write(publish(1) + publish(2))
        await until(lambda: world.bench.committed[-1].rejected)
        world.bench.now_us += 8 * HOUR_US  # a full disk, a full window
        await asyncio.sleep(0.2)
        assert await world.told() == lost(since_us)


async def test_a_line_that_answers_nothing_is_no_proof(world):
    since_us = await world.settle()
    world.broker.answers = False
    async with world.running():
        world.bench.now_us += HOUR_US
        await asyncio.sleep(1.5)
        assert await world.told() == lost(since_us)


async def test_between_two_messages_of_a_busy_site_the_time_moves_on(world):
    await world.settle()
    world.bench.now_us += 48 * HOUR_US
    world.broker.held.extend(range(1, 100))
    world.broker.late_s = 1.8
    async with world.running():
        await until(lambda: world.broker.taken >= 3)
        assert world.broker.held
        assert await world.told() == lost(world.bench.now_us - HOUR_US)


async def test_a_new_session_begins_when_it_was_asked_for(world):
    """Its answer can wait behind messages, and they behind a full disk."""
    since_us = world.bench.now_us
    granted = world.driver._subscribed

    def late(*about):
        world.bench.now_us += HOUR_US
        granted(*about)

    world.driver._subscribed = late
    async with world.running():
        await asyncio.sleep(0.2)
    assert await world.told() == lost(since_us)


async def test_a_clock_that_was_ahead_does_not_make_the_note_too_short(world):
    """The note that says when the session was there was made under a clock of next month."""
    true_us = world.bench.now_us
    world.bench.now_us += 720 * HOUR_US
    await world.settle()
    world.bench.now_us = true_us + 2 * HOUR_US  # the clock was set right: two hours went by
    world.restart()
    (one,) = await world.told()
    assert one.since_us <= true_us
