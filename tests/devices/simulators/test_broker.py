"""The brokers do what the kill tests lean on: nothing unacknowledged is forgotten."""

import asyncio
from pathlib import Path

import aiomqtt
import pytest

from devices.simulators.broker import Broker, BrokerError, find_program

KINDS = ["nats", pytest.param("mosquitto", marks=pytest.mark.needs_mosquitto)]


def subscriber(broker: Broker) -> aiomqtt.Client:
    client = aiomqtt.Client("127.0.0.1", broker.port, identifier="persistent", clean_session=False)
    client._client.manual_ack_set(True)
    return client


@pytest.mark.parametrize("kind", KINDS)
async def test_unacknowledged_message_comes_again_after_reconnect(
    tmp_path: Path, kind: str
) -> None:
    broker = Broker(tmp_path, kind=kind, ack_wait_s=1)
    await broker.start()
    try:
        async with asyncio.timeout(20):
            async with subscriber(broker) as first:
                await first.subscribe("a/#", qos=1)
                async with aiomqtt.Client("127.0.0.1", broker.port) as source:
                    for number in range(3):
                        await source.publish("a/b", str(number), qos=1)
                seen = [await anext(first.messages) for _ in range(3)]
                first._client.ack(seen[0].mid, 1)
                await first.publish("z", b"", qos=1)  # the broker has read the ack before this
            async with subscriber(broker) as second:
                again = {(await anext(second.messages)).payload for _ in range(2)}
        assert again == {b"1", b"2"}
    finally:
        await broker.stop()


@pytest.mark.parametrize("kind", KINDS)
async def test_queued_messages_survive_a_restart_on_the_same_port(
    tmp_path: Path, kind: str
) -> None:
    broker = Broker(tmp_path, kind=kind, ack_wait_s=1)
    await broker.start()
    try:
        async with asyncio.timeout(20):
            async with subscriber(broker) as first:
                await first.subscribe("a/#", qos=1)
            async with aiomqtt.Client("127.0.0.1", broker.port) as source:
                await source.publish("a/b", b"kept", qos=1)
            await broker.stop()
            assert broker.pid is None
            await broker.start()
            async with subscriber(broker) as second:
                assert (await anext(second.messages)).payload == b"kept"
    finally:
        await broker.stop()


async def test_port_in_use_is_reported_with_the_brokers_own_words(tmp_path: Path) -> None:
    first = Broker(tmp_path / "1")
    await first.start()
    second = Broker(tmp_path / "2", port=first.port)
    try:
        with pytest.raises(BrokerError, match="address already in use"):
            await second.start()
    finally:
        await second.stop()
        await first.stop()


def test_missing_program_names_the_remedy() -> None:
    with pytest.raises(BrokerError, match="pip install"):
        find_program("no-such-broker")
