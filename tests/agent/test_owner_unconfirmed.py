"""A site whose owner is not confirmed yet: what is sealed is held, and nobody is to blame for it."""

import asyncio
import contextlib
from types import SimpleNamespace

import pytest

import agent.owner
from agent.host.health import Health, Progress
from agent.host.settings import AlarmTable, HubTable
from agent.link.standing import Standing
from agent.link.uplink import Uplink
from agent.store.disk import DiskLevel
from agent.watch import Watch
from protocol.errors import Code, UnavailableError
from tests.agent.kit import Site, identity
from tests.agent.test_inbox_watch import Fed
from tests.agent.test_shell import Times
from tests.agent.test_uplink import Reports


class Client:
    connected = True
    certificate_ends_s = None

    def __init__(self, hub):
        self.hub = hub

    async def sync(self, body):
        return self.hub.handle(body)


async def test_bodies_that_are_held_do_not_starve_the_watchdog_of_a_quiet_site(tmp_path):
    site = Site(tmp_path, confirmed=False)
    times = Times(synchronised=True)
    clock = times.clock()
    health = Health(clock.now_us)
    progress = Progress(clock.boot_ns, clock.boot_ns(), clock.boot_ns())
    table, alarms, fed = HubTable(url="http://127.0.0.1"), AlarmTable(), Fed()
    async with site.running():
        await site.give(1)
        await site.seal()
        link = Uplink(
            client=Client(site.hub),
            sync=site.sync,
            spool=site.core.spool,
            clock=clock,
            health=health,
            progress=progress,
            table=table,
            alarms=alarms,
            reports=Reports(),
            inbox=SimpleNamespace(applied=(0, 0)),
            standing=Standing(health=health, sync=site.sync, folder=tmp_path),
        )
        watch = Watch(
            notifier=fed,
            progress=progress,
            health=health,
            clock=clock,
            hub=table,
            alarms=alarms,
            has_due=site.core.spool.has_due,
            is_full=lambda: False,
            vault_level=lambda: DiskLevel.UNKNOWN,
            quarantine_full=lambda: False,
        )
        task = asyncio.create_task(link.run())
        async with asyncio.timeout(10):
            while not progress.uplink_waits:  # the objects went, the body may not
                await asyncio.sleep(0)
        assert (await site.core.spool.stats()).due == 1
        for _ in range(60):
            times.pass_s(60)
            assert await watch.look()
        assert "no-progress" not in health.alarms
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await site.core.confirm_owner(identity(site.hub))
        assert await site.core.spool.has_due()
        times.pass_s(600)
        assert not await watch.look()  # now it could be sent, and nobody sends it


@pytest.mark.parametrize("is_kept", [False, True], ids=["fetched", "kept"])
async def test_an_owner_confirmed_on_a_full_file_waits_for_room(tmp_path, monkeypatch, is_kept):
    """Whether the principal is fetched now, or was kept by a process that ended before."""
    site = Site(tmp_path, confirmed=False)
    async with site.running():
        await site.give(1)
        await site.seal()
    site.confirmed = is_kept
    known = identity(site.hub)

    async def fetched(*_):
        return known.owner

    monkeypatch.setattr(agent.owner, "fetch_owner", fetched)
    waits: list[float] = []
    async with site.running():
        confirm = site.core.confirm_owner

        async def confirm_owner(one):
            if len(waits) < 3:
                raise UnavailableError(Code.DISK_FULL)
            await confirm(one)

        async def sleep(seconds):
            waits.append(seconds)

        monkeypatch.setattr(site.core, "confirm_owner", confirm_owner)
        watch = agent.owner.OwnerWatch(
            client=None,
            stored=None,
            pin=SimpleNamespace(owner=known.owner.principal, basis="local"),
            core=site.core,
            health=Health(lambda: 0),
            sleep=sleep,
        )
        await watch.run()
        assert waits == [1.0, 2.0, 4.0]
        assert not await site.core.main.epochs.has_unwrapped()
        await site.drain()
    assert site.hub.numbers() == [1]
