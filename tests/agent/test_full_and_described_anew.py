"""A full spool starts, drains and goes on, also where a resource is described otherwise now."""

import asyncio
import contextlib
import random
from dataclasses import replace

import pytest

from agent.store.disk import DiskLevel
from agent.store.ports import CoreSettings
from devices.driver import Promise, Reading, Rows
from protocol.errors import Code, UnavailableError
from tests.agent.kit import GATE, Site, reading, record

BUDGET = 16 << 20
STEP = 20


async def fill(site) -> int:
    """Give records until no more is taken, the hub being away; how many were acknowledged."""
    noise = random.Random(3)  # noqa: S311 - bytes that do not compress
    given = 0
    while site.core.main.database.level < DiskLevel.FULL:
        rows = [
            record(number, text=noise.randbytes(2000).hex())
            for number in range(given, given + STEP)
        ]
        one = Reading(rows=[Rows(resource="gate", records=rows)], promise=Promise.A)
        done = site.core.pipeline.submit(one, driver="mqtt")
        while not done.done() and site.core.main.database.level < DiskLevel.FULL:
            await asyncio.wait((done,), timeout=0.05)
        if not done.done():
            done.cancel()
            break
        given += STEP
    return given


async def drain_a_little(site):
    """As the agent's own tasks do: who finds the disk full waits."""
    with contextlib.suppress(UnavailableError):
        await site.seal()
    outcome = await site.exchange(bytes_max=4 << 20)
    await site.core.keep_house()
    return outcome


@pytest.mark.parametrize("changed", [False, True], ids=["same", "changed"])
async def test_full_spool_drains_after_a_change_of_description(tmp_path, changed):
    site = Site(tmp_path, settings=CoreSettings(resources=(GATE,), budget_bytes=BUDGET))
    async with site.running():
        given = await fill(site)
        assert site.core.bounds["gate"].stream.rows
    gate = replace(GATE, place="north gate") if changed else GATE
    site = site.like(settings=CoreSettings(resources=(gate,), budget_bytes=BUDGET))
    async with site.running():  # stopped before anything was drained
        refused = site.core.pipeline.submit(reading(given), driver="mqtt")
    with pytest.raises(UnavailableError, match=Code.STOPPING.key):
        await refused
    async with site.running():
        assert site.core.main.database.level >= DiskLevel.ACKS_STOP
        more = site.core.pipeline.submit(reading(given), driver="mqtt")
        async with asyncio.timeout(30):
            while not more.done() or site.core.bounds["gate"].stream.rows:
                await drain_a_little(site)
            while await drain_a_little(site):
                pass
        await more
        numbers = site.hub.numbers()
        assert numbers == list(range(len(numbers)))  # what was not acknowledged may be there too
        assert len(numbers) > given
        assert site.core.main.bounds["gate"] is site.core.bounds["gate"]
        registered = site.hub.of_kind("registration")
    assert len(registered) == 1 + changed
