"""What is urgent is sealed at once, also if it comes while a segment is built or waits behind."""

import asyncio

from devices.driver import Promise
from tests.agent.kit import Site, reading


async def sealed(site: Site, records: int) -> None:
    """Until so many are sealed; the clock stands still, so nothing is due by its age."""
    async with asyncio.timeout(5):
        while site.core.pipeline.counters()["gate"].sealed < records:
            await asyncio.sleep(0)


async def test_urgent_while_a_segment_is_built(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        built = site.core.sealer._built
        came = asyncio.Event()

        async def slow(*given):
            made = await built(*given)
            if not came.is_set():
                came.set()
                urgent = reading(2, promise=Promise.D, urgent=True)
                await site.core.pipeline.submit(urgent, driver="poll")
            return made

        site.core.sealer._built = slow
        await site.core.pipeline.submit(reading(1, urgent=True), driver="mqtt")
        await sealed(site, 2)


async def test_urgent_ends_with_the_rows_that_were(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        await site.core.pipeline.submit(reading(1, urgent=True), driver="mqtt")
        await sealed(site, 1)
        assert not site.core.main.bounds["gate"].stream.is_urgent
        await site.give(2)
        await site.core.sealer.seal_due()
        assert site.core.pipeline.counters()["gate"].sealed == 1
