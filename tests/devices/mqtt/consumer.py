"""A consumer in a process of its own, to be killed between receipt and acknowledgement.

Prints each received payload; commits and acknowledges nothing.
"""

import asyncio
import sys

from devices.kit import Bench, load


async def main(config: str) -> None:
    loaded = load(config)
    assert not loaded.problems, loaded.problems
    driver = loaded.drivers[0].make(Bench())
    async for reading in driver.run():
        for rows in reading.rows:
            print(rows.records[0].values["zone_id"], flush=True)


asyncio.run(main(sys.argv[1]))
