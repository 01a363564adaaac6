"""The simulators as processes: what arrives at the broker is what their books say, oddities included."""

import asyncio
import base64
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiomqtt
import pytest

from devices.simulators.books import Made, read_books
from devices.simulators.broker import Broker
from devices.simulators.carpark import BAYS


@asynccontextmanager
async def broker_in(folder: Path) -> AsyncIterator[Broker]:
    broker = Broker(folder)
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


async def run(
    folder: Path, name: str, count: int
) -> tuple[list[aiomqtt.Message], dict[str, list[Made]]]:
    """Everything that one simulator published, and its books."""
    books = folder / f"{name}.jsonl"
    heard: list[aiomqtt.Message] = []
    async with asyncio.timeout(60), broker_in(folder / "broker") as broker:
        async with aiomqtt.Client(
            "127.0.0.1", broker.port, identifier="ear", clean_session=False
        ) as ear:
            await ear.subscribe("#", qos=1)
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                f"devices.simulators.{name}",
                "--broker",
                broker.url,
                "--books",
                str(books),
                "--rate",
                "100000",
                "--count",
                str(count),
                "--seed",
                "7",
            )

            async def listen() -> None:
                async for message in ear.messages:
                    if not str(message.topic).endswith(("/join", "/end")):
                        heard.append(message)
                    if str(message.topic) == "the/end":
                        return

            listening = asyncio.create_task(listen())
            assert await process.wait() == 0
            async with aiomqtt.Client("127.0.0.1", broker.port) as source:
                await source.publish(
                    "the/end", b"", qos=1
                )  # after everything else in the broker's order
            await listening
    return heard, read_books([books])


async def test_car_park_publishes_what_its_books_say(tmp_path: Path) -> None:
    heard, books = await run(tmp_path, "carpark", 4000)
    assert set(books) == {"p1-bays", "p1-sensors", "p1-links", "p1-lot"}
    assert all(made.acked == made.sent > 0 for rows in books.values() for made in rows)
    ups = [json.loads(message.payload) for message in heard if str(message.topic).endswith("/up")]
    assert len({up["deviceInfo"]["devEui"] for up in ups}) == BAYS
    frames = Counter((up["deviceInfo"]["devEui"], up["devAddr"], up.get("fCnt", 0)) for up in ups)
    assert max(frames.values()) >= 2, "repeats of one frame"
    assert len(frames) == len(books["p1-links"]), "a frame is one observation"
    assert any("fCnt" not in up for up in ups), "protobuf-JSON leaves 0 out"
    assert any(up.get("confirmed") for up in ups)
    assert {gateway["gatewayId"] for up in ups for gateway in up["rxInfo"]} == {
        "0016c001f153a14c",
        "0016c001f153a1d7",
    }
    sizes = {len(base64.b64decode(up["data"])) for up in ups}
    assert sizes == {1, 2, 17, 23, 16}, "status, heartbeat, start, report, parameters"


async def test_car_park_wraps_and_rejoins(tmp_path: Path) -> None:
    heard, _ = await run(tmp_path, "carpark", 4000)
    last: dict[str, tuple[str, int]] = {}
    wrapped = rejoined = 0
    for message in heard:
        if not str(message.topic).endswith("/up"):
            continue
        up = json.loads(message.payload)
        eui, address, counter = up["deviceInfo"]["devEui"], up["devAddr"], up.get("fCnt", 0)
        before = last.get(eui)
        if before and before[0] != address:
            rejoined += 1
            assert counter == 0
        elif before and counter < before[1]:
            wrapped += 1
            assert before[1] - counter > 0xFF00
        last[eui] = address, counter
    assert wrapped >= 10
    assert rejoined >= 10


async def test_gates_number_their_checks_and_the_hand_held_does_not(tmp_path: Path) -> None:
    heard, books = await run(tmp_path, "gates", 1000)
    assert {made.promise for made in books["gate-checks"]} == {"A"}
    assert {made.promise for made in books["handheld-checks"]} == {"B"}
    ids = Counter()
    for message in heard:
        body = json.loads(message.payload)
        assert ("id" in body) == str(message.topic).startswith("gates/")
        ids[body.get("id")] += 1
    del ids[None]
    assert len(ids) == len(books["gate-checks"]) == 800
    assert max(ids.values()) == 2


async def test_counters_totals_wrap_and_their_sums_do_not(tmp_path: Path) -> None:
    heard, books = await run(tmp_path, "counters", 400)
    assert len(heard) == 400
    shown = [
        json.loads(message.payload) for message in heard if str(message.topic) == "counters/16/N1"
    ]
    assert any(later["in_total"] < before["in_total"] for before, later in zip(shown, shown[1:]))
    sums = [made.forms[0].values for made in books["passages"] if made.device == "N1"]
    assert all(later["in_sum"] >= before["in_sum"] for before, later in zip(sums, sums[1:]))
    assert [row["in_sum"] % 65536 for row in sums] == [row["in_total"] for row in shown]


@pytest.mark.parametrize("name", ["carpark", "gates", "counters"])
async def test_stopped_simulator_has_everything_acknowledged(tmp_path: Path, name: str) -> None:
    books = tmp_path / "b"
    async with asyncio.timeout(30), broker_in(tmp_path / "broker") as broker:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            f"devices.simulators.{name}",
            "--broker",
            broker.url,
            "--books",
            str(books),
            "--rate",
            "500",
        )
        async with aiomqtt.Client("127.0.0.1", broker.port) as ear:
            await ear.subscribe("#", qos=1)
            for _ in range(50):
                await anext(ear.messages)
        process.terminate()
        assert await process.wait() == 0
    assert all(made.acked == made.sent for rows in read_books([books]).values() for made in rows)
