"""A hub that was restored from a backup: what is still held is sent again, the rest header-only."""

from protocol.leaf import State
from tests.agent.kit import Site


async def test_restored_hub_gets_everything_that_is_still_held(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        for number in range(5):
            await site.give(number)
            await site.drain()
        assert site.hub.numbers() == list(range(5))
        site.hub.restore(ledger_size=2)
        assert site.hub.numbers() == []
        await site.give(5)
        await site.drain()
        assert site.hub.numbers() == list(range(6))
        assert "hub-restored" in site.alarms
        assert site.core.pipeline.counters()["gate"].accepted >= 6
        assert (await site.core.spool.stored_hub()).generation == 2
    async with site.running():
        assert site.core.spool.checkpoint.generation == 2


async def test_what_was_evicted_follows_as_headers(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        for number in range(4):
            await site.give(number)
            await site.drain()
        site.clock.advance(3 * 86_400)
        site.core.spool.backed_up_to = 4  # leaves 0..3 are in a backup
        await site.core.keep_house()
        left = (await site.core.spool.stats()).grace
        assert 0 < left < 4
        site.hub.restore(ledger_size=1)
        await site.give(4)
        await site.drain()
    states = [one.state for many in site.hub.streams.values() for one in many]
    assert states.count(State.HEADER) == 4 - left
    assert site.hub.numbers() == list(range(4 - left, 5))


async def test_bodies_stay_until_the_backup_has_them(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        for number in range(4):
            await site.give(number)
            await site.drain()
        site.clock.advance(300 * 86_400)
        await site.core.keep_house()
        assert (await site.core.spool.stats()).grace == 4
        site.core.spool.backed_up_to = 10**6
        await site.core.keep_house()
        assert (await site.core.spool.stats()).grace == 0


async def test_pressed_disk_lets_the_oldest_go_first(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        for number in range(6):
            await site.give(number)
            await site.drain()
        disk = site.core.main.database.disk
        disk.pages = disk.used_pages
        await site.core.keep_house()
        assert (await site.core.spool.stats()).grace < 6
    assert site.hub.numbers() == list(range(6))


async def test_old_receipts_are_folded_into_days(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        for number in range(5):
            await site.give(number)
            await site.drain()
        site.clock.advance(8 * 86_400)
        site.core.spool.backed_up_to = 10**6
        await site.core.keep_house()
        await site.core.main.database.read(lambda c: None)
        rows = await site.core.main.database.read(
            lambda c: c.execute(
                "SELECT from_seq, to_seq, from_leaf, to_leaf FROM receipt_day"
            ).fetchall()
        )
        assert [(a, b) for a, b, _, _ in rows] == [(0, 3)]
        await site.give(9)
        await site.drain()
    assert site.hub.numbers() == [0, 1, 2, 3, 4, 9]


async def test_keys_are_forgotten_when_nothing_needs_them(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        await site.give(1)
        await site.drain()
        site.clock.advance(4 * 86_400)
        await site.give(2, at_us=site.clock.wall_us)
        await site.drain()
        await site.core.keep_house()
        site.clock.advance(700)
        await site.core.keep_house()
        (count,) = await site.core.main.database.read(
            lambda c: c.execute("SELECT count(*) FROM epoch_key").fetchone()
        )
        assert count == 1
    assert site.hub.numbers() == [1, 2]
