"""Batches of the real spool: bounded, in order, and never so small that nothing goes."""

import asyncio
import contextlib
import random

import pytest
from aiohttp import web

from agent.link.uplink import BATCH_BYTES_MIN
from agent.seal.batch import next_batch
from devices.driver import Promise, Reading, Rows
from protocol.limits import SYNC_BYTES_MAX
from protocol.program.units import Duration, Size
from tests.agent.kit import AGENT, Site, record
from tests.agent.test_uplink import Hub, client_of, serving, uplink_of

RECORDS = 1_000
LARGE = Size.parse("4MiB")
SMALL = Size.parse("64KiB")
FAST = {"retry_min": Duration.parse("1ms"), "retry_max": Duration.parse("5ms")}


async def give_large(site: Site, first: int, *, resource: str = "gate") -> None:
    """Bodies of more than BATCH_BYTES_MIN each, of incompressible text."""
    dice = random.Random(first)
    numbers = range(first, first + RECORDS)
    records = [record(number, text=dice.randbytes(100).hex()) for number in numbers]
    rows = [Rows(resource=resource, records=records)]
    await site.core.pipeline.submit(Reading(rows=rows, promise=Promise.A), driver="mqtt")
    await site.seal()


class Line(Hub):
    """An honest hub behind HTTP, whose line swallows the first requests."""

    def __init__(self, site: Site, *, swallows: int) -> None:
        super().__init__(*["swallow"] * swallows, self.honest)
        self.site = site
        self.sizes: list[int] = []

    async def honest(self, request):
        raw = await request.read()
        self.sizes.append(len(raw))
        return web.Response(body=self.site.hub.handle(raw))


@pytest.mark.parametrize(
    ("batch", "swallows"), [(LARGE, 8), (SMALL, 0)], ids=["black hole", "configuration"]
)
async def test_batches_never_shrink_below_what_a_segment_needs_to_move(tmp_path, batch, swallows):
    async with Site(tmp_path).running() as site:
        await site.give(RECORDS * 3)
        await site.drain()  # registered: nothing but large bodies follows
        for first in range(0, RECORDS * 3, RECORDS):
            await give_large(site, first)
        stats = await site.core.spool.stats()
        assert stats.due_bytes // stats.due > BATCH_BYTES_MIN
        line = Line(site, swallows=swallows)
        timing = FAST | {"request_timeout": Duration.parse("100ms"), "batch": batch}
        async with serving(line) as url, client_of(url, **timing) as client:
            link = uplink_of(client, site.core.spool, site.sync, tmp_path)
            task = asyncio.create_task(link.run())
            async with asyncio.timeout(20):
                while (await site.core.spool.stats()).due:
                    await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        assert site.hub.numbers() == list(range(RECORDS * 3 + 1))
        assert len(line.sizes) == 3  # one a request: the bound holds for the second


async def test_nothing_overtakes_what_does_not_fit(tmp_path):
    async with Site(tmp_path).running() as site:
        await site.give(0)
        await site.drain()
        await site.give(1)
        await site.seal()
        await give_large(site, 2)
        await site.give(RECORDS + 2)
        await site.seal()
        items = await site.core.spool.next_items(BATCH_BYTES_MIN, 1_000)
        assert [one.ref.seq for one in items] == [1]
        items = await site.core.spool.next_items(SYNC_BYTES_MAX, 1_000)
        assert [one.ref.seq for one in items] == [1, 2, 3]
        assert await site.core.spool.next_items(BATCH_BYTES_MIN, 0) == []


async def test_held_streams_are_not_read(tmp_path):
    """Their bytes stay on the disk: a stream that is held for an hour may be gigabytes."""
    async with Site(tmp_path).running() as site:
        await site.give(0)
        await site.give(0, resource="bays")
        await site.drain()
        for first in range(0, RECORDS * 3, RECORDS):
            await give_large(site, first)
        await site.give(1, resource="bays")
        await site.seal()
        held = site.core.bounds["gate"].stream.id
        database = site.core.main.database
        read: list[int] = []

        def look(connection):
            watched, public = Watched(connection, read), AGENT.public
            items, _ = next_batch(watched, SYNC_BYTES_MAX, 1_000, [held], public)
            return items

        items = await database.read(look)
        assert [one.ref.stream for one in items] == [site.core.bounds["bays"].stream.id]
        assert len(read) == 1


class Watched:
    """A connection that notes the size of each row's content that is fetched."""

    def __init__(self, connection, read):
        self._connection, self._read = connection, read

    def execute(self, text, values=()):
        cursor = self._connection.execute(text, values)
        if "content" not in text:
            return cursor
        cursor.row_factory = self._note
        return cursor

    def _note(self, _cursor, row):
        self._read.append(len(row[-1]))
        return row
