"""(a): the same messages through one broker to each side, and the publisher alone."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from devices.simulators.broker import ACK_WAIT_S, Broker
from tests.bench.peer import settings
from tests.bench.peer.ours import IN_FLIGHT, BrokerSite, Ours
from tests.bench.peer.publish import numbers
from tests.bench.peer.reconcile import Outcome, reconcile
from tests.bench.peer.side import Row, Side, peak, watch_memory
from tests.bench.peer.theirs import Theirs
from tests.shared import ROOT

#: Records of a run by records a message. Short: what the publisher is ahead waits in the peer's memory,
#: which a source at its own pace would not do to it.
RECORDS = {1: 30_000, 100: 60_000}
#: Records that are published before, so that everything is connected and warm.
WARM = 200
#: Until both surely have subscribed: the broker keeps nothing for a session that it has not met.
SUBSCRIBED_S = 10.0
#: Nobody is killed in these runs: what waits in a full window is not to be delivered again.
PATIENT_S = 60

MakeSide = Callable[[Path, Broker, int], Side]


def our_side(folder: Path, broker: Broker, size: int) -> Side:
    site = BrokerSite(folder, profile="", broker=broker, age="1s", size=size)
    return Ours(site)


def their_side(programs: Path) -> MakeSide:
    def make(folder: Path, broker: Broker, size: int) -> Side:  # noqa: ARG001
        return Theirs(folder, programs, settings.mqtt(broker.port), "mqtt")

    return make


class Publishing:
    """The publisher's process, made ready; `run` publishes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def ready(
        cls, port: int, records: int, size: int, skip: int, rate: int = 0
    ) -> "Publishing":
        words = ["-m", "tests.bench.peer.publish", str(port), settings.TOPIC]
        process = await asyncio.create_subprocess_exec(
            sys.executable, *words, *map(str, (records, size, rate, skip)), cwd=ROOT,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        await process.stdout.readline()
        return cls(process)

    async def run(self) -> tuple[float, float]:
        """Wall time of the first publish and of the last acknowledgement of the broker."""
        out, _ = await self._process.communicate(b"\n")
        told = json.loads(out)
        return told["began"], told["ended"]


@asynccontextmanager
async def running_broker(folder: Path, ack_wait_s: int = ACK_WAIT_S) -> AsyncIterator[Broker]:
    """A broker in a folder; it delivers again what was not acknowledged for so long."""
    broker = Broker(folder, in_flight_max=IN_FLIGHT, ack_wait_s=ack_wait_s)
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


async def ceiling(folder: Path, size: int) -> float:
    """Records/s from the publisher into the broker, with nobody behind it."""
    async with running_broker(folder) as broker:
        publishing = await Publishing.ready(broker.port, RECORDS[size], size, 0)
        began, ended = await publishing.run()
        return RECORDS[size] / (ended - began)


async def warm(side: Side, broker: Broker, size: int) -> int:
    """Publish the first records and wait until the receiver has them; how many it counts then."""
    await asyncio.sleep(SUBSCRIBED_S)
    await (await Publishing.ready(broker.port, WARM, size, 0)).run()
    return await side.settled(WARM)


async def one(make: MakeSide, folder: Path, size: int) -> tuple[Row, Outcome]:
    """One side, one size of message; a rate of records that did not arrive would be none."""
    records = RECORDS[size]
    async with running_broker(folder / "broker", PATIENT_S) as broker:
        async with make(folder / "side", broker, size) as side:
            before = await warm(side, broker, size)
            publishing = await Publishing.ready(broker.port, records, size, WARM)
            side.mark()
            publish = asyncio.create_task(publishing.run())
            settled = asyncio.create_task(side.settled(before + records))
            memory = await watch_memory(side.gateway, settled)
            began, _ = await publish
            row = await side.row(records, began, peak(memory))
            await settled
            received = await side.identities()
            return row, reconcile(numbers(records, WARM), received)
