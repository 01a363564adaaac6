"""The sealer is woken by the commits that change what it waits for, and by no others."""

import asyncio

from tests.agent.kit import Site


async def settled(site: Site) -> None:
    """Until the sealer has looked and decided when to look again; the clock stands still."""
    async with asyncio.timeout(5):
        while site.core.main.journal.grew.is_set() or site.core.main.sealer._look_us is None:
            await asyncio.sleep(0)


async def test_a_commit_that_closes_nothing_wakes_nobody(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        bound = site.core.main.bounds["gate"]
        assert site.core.main.sealer.awaits(bound)  # nothing decided: the first row is news
        await site.give(1)
        await settled(site)
        await site.give(2)
        assert not site.core.main.journal.grew.is_set()
        assert not site.core.main.sealer.awaits(bound)


async def test_a_commit_that_closes_a_segment_wakes_the_sealer(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        bound, sealer = site.core.main.bounds["gate"], site.core.main.sealer
        await site.give(1)
        await settled(site)
        bound.stream.is_urgent = True
        assert sealer.awaits(bound)
        bound.stream.is_urgent = False
        bound.stream.waiting += 1_000
        assert sealer.awaits(bound)
        bound.stream.waiting -= 1_000
        assert not sealer.awaits(bound)
        site.clock.boot_us += 61_000_000  # it slept: the loop's own timer knows nothing of it
        assert sealer.awaits(bound)


async def test_what_became_due_earlier_is_looked_at_without_a_commit(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        await site.give(1)
        await settled(site)
        site.clock.boot_us += 61_000_000
        async with asyncio.timeout(5):
            while not site.core.pipeline.counters()["gate"].sealed:
                await asyncio.sleep(0.01)
