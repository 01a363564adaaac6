"""A ticket gate on a line, through the real core: journal on disk, supervisor, answer on the wire."""

import asyncio
from contextlib import asynccontextmanager

from agent.host.health import Health
from agent.store.ports import CoreSettings, ResourceSettings
from agent.supervisor import Slot, Supervisor
from devices.kit import load
from devices.packs import load_packs
from tests.agent.kit import Site
from tests.devices.serial_line.line import Plug, check

GATE = """
[[device]]
id = "E1"
profile = "serial_line/gate"
resource = "checks"
pack = "ticket.check"
connection = {{ port = "{port}" }}
"""
CHECKS = ResourceSettings(local="checks", pack=load_packs()["ticket.check"])


class Lent:
    """The context of one driver over a running core."""

    def __init__(self, site: Site, driver: str, health: Health) -> None:
        self.health = health
        self._site = site
        self._driver = driver

    def watermark(self, source: str) -> bytes | None:
        return self._site.core.pipeline.watermark(self._driver, source)

    def clock_us(self) -> int:
        return self._site.clock.now_us()

    def secret(self, name: str) -> str:
        return name


@asynccontextmanager
async def reading(site: Site, plug: Plug):
    """The site's core with the gate's driver under its supervisor."""
    (plan,) = load(GATE.format(port=plug.path)).drivers
    async with site.running():
        health = Health(site.clock.now_us)
        slot = Slot(plan.name, lambda: plan.make(Lent(site, plan.name, health)), plan.devices)
        task = asyncio.create_task(Supervisor([slot], site.core.pipeline, health).run())
        try:
            async with asyncio.timeout(10):
                while "E1" not in health.devices:
                    await asyncio.sleep(0.001)
            yield health
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_an_answered_check_survives_whatever_follows_and_counts_once(tmp_path):
    plug = Plug(tmp_path)
    plug.plug_in()
    first = Site(tmp_path / "site", settings=CoreSettings(resources=(CHECKS,)))
    async with reading(first, plug):
        plug.send(check(1, "T1", 20))
        assert await plug.answer(3) == b"\x061\r"
        killed = first.like(folder=first.image(tmp_path / "killed"))  # as SIGKILL leaves it now
    async with reading(killed, plug) as health:
        plug.send(check(1, "T1", 20))  # the gate never saw the answer
        assert await plug.answer(3) == b"\x061\r"
        plug.send(check(2, "T2", 21))
        assert await plug.answer(3) == b"\x062\r"
        await killed.drain()
        counters = killed.core.pipeline.counters()["checks"]
        assert (counters.journalled, counters.duplicates) == (2, 1)
        assert health.devices["E1"].counters["answered"] == 2
    records = killed.hub.records()
    assert len({record.event_time_us for record in records}) == len(records) == 2
    plug.pull()


async def test_nothing_is_answered_while_nothing_can_be_committed(tmp_path, monkeypatch):
    plug = Plug(tmp_path)
    plug.plug_in()
    site = Site(tmp_path / "site", settings=CoreSettings(resources=(CHECKS,)))
    async with reading(site, plug):
        held, real = asyncio.Event(), site.core.pipeline.submit
        taken = asyncio.Event()

        def submit(got, *, driver):
            async def later():
                await held.wait()
                await real(got, driver=driver)

            taken.set()
            return asyncio.ensure_future(later())

        monkeypatch.setattr(site.core.pipeline, "submit", submit)
        plug.send(check(1, "T1", 20))
        async with asyncio.timeout(10):
            await taken.wait()
        assert plug.received() == b""
        held.set()
        assert await plug.answer(3) == b"\x061\r"
    plug.pull()
