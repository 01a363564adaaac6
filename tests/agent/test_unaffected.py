"""Reading does not know whether there is a hub: the real core beside a real uplink that gets nowhere."""

import asyncio
import contextlib
import time

import pytest
from aiohttp import web

from protocol.program.units import Duration
from tests.agent.kit import Site, reading
from tests.agent.test_uplink import Hub, Inbox, client_of, serving, uplink_of


async def give(site, first, count):
    """64 producers that wait for their commits, as devices do; returns the slowest in seconds."""
    slowest = 0.0

    async def produce(number):
        nonlocal slowest
        began = time.perf_counter()
        await site.core.pipeline.submit(reading(number), driver="mqtt")
        slowest = max(slowest, time.perf_counter() - began)

    for at in range(first, first + count, 64):
        await asyncio.gather(
            *(produce(number) for number in range(at, min(at + 64, first + count)))
        )
    return slowest


@pytest.mark.parametrize(
    "script",
    [
        ["swallow"],
        [web.Response(status=503)],
        [web.Response(status=429, headers={"Retry-After": "600"})],
        [b"lies"],
    ],
    ids=["black hole", "503", "429", "false answers"],
)
async def test_reading_is_unaffected_by_a_hub_that_is(script, tmp_path):
    hub = Hub(*script)
    timing = {"retry_min": Duration.parse("1ms"), "retry_max": Duration.parse("5ms")}
    async with serving(hub) as url, Site(tmp_path / "data").running() as site:
        async with client_of(url, **timing) as client:
            link = uplink_of(client, site.core.spool, site.sync, tmp_path)
            task = asyncio.create_task(link.run())
            assert await give(site, 0, 640) < 2.0
            await site.seal()
            async with asyncio.timeout(10):
                await hub.seen.wait()
            assert await give(site, 640, 640) < 2.0
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        # Nothing was let go of, and an honest hub gets all of it, once.
        await site.drain()
        assert site.hub.numbers() == list(range(1_280))


async def test_an_honest_hub_over_http_drains_everything(tmp_path):
    """The same parts with a hub in memory behind HTTP: what the uplink sends is what was read."""

    class Honest(Hub):
        async def __call__(self, request):
            if request.path == "/v1/streams":
                return web.Response(status=404)
            return web.Response(body=site.hub.handle(await request.read()))

    hub = Honest(b"")
    async with serving(hub) as url, Site(tmp_path / "data").running() as site:
        async with client_of(url) as client:
            await give(site, 0, 3_000)
            await site.seal()
            link = uplink_of(client, site.core.spool, site.sync, tmp_path)
            task = asyncio.create_task(link.run())
            async with asyncio.timeout(20):
                while not (link.progress.uplink_waits and (await site.core.spool.stats()).due == 0):
                    await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        assert site.hub.numbers() == list(range(3_000))
        assert link.last_receipt_us is not None
        assert Inbox.applied == (0, 0)
