"""Freeze a spool of the present version: `python -m tests.agent.spools.make`. Never over another."""

import asyncio
import gzip
import tempfile
from pathlib import Path

from agent.store.schema import VERSION
from devices.driver import Promise
from tests.agent.kit import Site, watermark
from tests.agent.spools import frozen

FIRST = range(1, 41)  # sealed, by resource "bays" (encrypted) and "gate" alike
WAITING = range(41, 61)  # in the journal
KEY = b"event-1"  # id of class A that was seen with record 1001
MARK = b"cursor-60"  # of driver "poll", with record 2001
NUMBERS = sorted([*FIRST, *FIRST, *WAITING, *WAITING, 1001, 2001])


async def fill(site: Site) -> None:
    """An agent that never reached its hub: segments and rows wait, keys and watermarks stand."""
    async with site.running():
        for resource in ("gate", "bays"):
            await site.give(*FIRST, resource=resource)
        await site.seal()
        site.clock.advance(3600)
        for resource in ("gate", "bays"):
            await site.give(*WAITING, resource=resource)
        await site.give(1001, identity=KEY)
        await site.give(2001, driver="poll", promise=Promise.E, watermarks=watermark(MARK))


def main() -> None:
    target = frozen(VERSION)
    if target.exists():
        raise SystemExit(f"{target} is frozen: a new file needs a new version")
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(fill(Site(Path(folder))))
        raw = (Path(folder) / "spool.db").read_bytes()
    target.write_bytes(gzip.compress(raw, mtime=0))
    print(target, len(raw))


if __name__ == "__main__":
    main()
