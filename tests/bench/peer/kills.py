"""SIGKILLs of the gateway at equal offered load; then the ids offered are held against the ids received."""

import asyncio
import random
from pathlib import Path

from tests.bench.peer.broker_run import WARM, MakeSide, Publishing, running_broker, warm
from tests.bench.peer.publish import numbers
from tests.bench.peer.reconcile import Outcome, reconcile

KILLS = 5
#: Offered by the publisher in each of them, one a message, and how fast: what both keep up with,
#: on a machine that does something else as well.
RECORDS, RATE = 10_000, 1_000
#: Within the publishing, as parts of it.
EARLIEST, LATEST = 0.3, 0.7
#: What the peer needs to come back after the last record is published is well below this.
BACK_S = 15.0


async def kill_all(make: MakeSide, folder: Path, seed: int = 1) -> list[Outcome]:
    """KILLS kills of one side, one after the other, on one broker."""
    rng, skip = random.Random(seed), WARM
    async with running_broker(folder / "broker") as broker:
        async with make(folder / "side", broker, 1) as side:
            expected = await warm(side, broker, 1)
            for _ in range(KILLS):
                publishing = await Publishing.ready(broker.port, RECORDS, 1, skip, RATE)
                publish = asyncio.create_task(publishing.run())
                await asyncio.sleep(rng.uniform(EARLIEST, LATEST) * RECORDS / RATE)
                await side.kill()
                await publish
                before = expected
                # What was lost before lowers what can be there: the next one counts from here.
                expected = await side.settled(before + RECORDS, at_least_s=BACK_S)
                skip += RECORDS
            received = await side.identities()
    offered = numbers(KILLS * RECORDS, WARM)
    parts = [offered[at : at + RECORDS] for at in range(0, len(offered), RECORDS)]
    return [reconcile(part, received) for part in parts]
