"""A hub that was restored from a backup: what is still held is sent again, the rest header-only."""

import pytest

from agent.keeping import fold
from agent.store.schema import BodyState
from protocol.leaf import State
from tests.agent.kit import DAY_US, Site


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


async def keep_house(site: Site) -> None:
    """Two rounds with eleven minutes between them: the second forgets and folds."""
    await site.core.keep_house()
    site.clock.advance(660)
    await site.core.keep_house()


async def count(site: Site, table: str) -> int:
    (found,) = await site.core.main.database.read(
        lambda c: c.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608
    )
    return int(found)


async def test_keys_stay_as_long_as_a_body_of_their_epoch(tmp_path):
    """Without them a segment that must go into another stream would be declared lost."""
    site = Site(tmp_path)
    async with site.running():
        await site.give(1)
        await site.seal()
        site.clock.advance(5 * 86_400)
        await site.give(2, at_us=site.clock.wall_us)
        await site.seal()
        await keep_house(site)
        assert await count(site, "epoch_key") == 2  # both bodies are due
        await site.drain()
        await keep_house(site)
        assert await count(site, "epoch_key") == 2  # in grace: a restored hub would ask for them
        site.clock.advance(2 * 86_400)
        site.core.spool.backed_up_to = 10**6
        await keep_house(site)
        assert await count(site, "body") == 0
        assert await count(site, "epoch_key") == 1  # the open one


async def test_keys_stay_for_a_body_of_a_stream_that_ended(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        await site.give(1)
        await site.drain()
        await site.core.forks.succeed(site.core.bounds["gate"], reason="test")
    async with site.running():
        await site.give(2)  # the same day: its epoch goes on in the new stream
        await site.drain()
        assert await count(site, "epoch_key") == 1
        new = site.core.bounds["gate"].stream.id
        await site.core.main.database.write(
            "test", lambda c: c.execute("DELETE FROM body WHERE stream = ?", (new,))
        )
        site.clock.advance(5 * 86_400)
        await keep_house(site)
        assert await count(site, "epoch_key") == 1
        await site.core.main.database.write(
            "test", lambda c: c.execute("UPDATE body SET state = ?", (int(BodyState.BAD),))
        )
        await keep_house(site)
        assert await count(site, "epoch_key") == 0


@pytest.mark.parametrize("is_folded", [False, True], ids=["links kept", "links folded"])
async def test_what_is_still_here_is_never_lost_to_an_old_backup(tmp_path, is_folded):
    """A hub without a newer backup, a disk that was wanted: the oldest body went, days ago."""
    site = Site(tmp_path)
    days = 12
    async with site.running():
        for day in range(days):
            await site.give(day, at_us=site.clock.wall_us)
            await site.drain()
            site.clock.advance(86_400)
            await keep_house(site)

        def press(connection):
            (row,) = connection.execute("SELECT min(id) FROM body").fetchone()
            connection.execute("DELETE FROM body WHERE id = ?", (row,))
            connection.execute("DELETE FROM content WHERE id = ?", (row,))
            connection.execute("UPDATE stream SET grace_n = grace_n - 1")
            week_ago = site.clock.wall_us - 7 * DAY_US
            fold(connection, before_us=week_ago, backed_up_to=0, pressed=is_folded)

        await site.core.main.database.write("evict", press)
        assert await count(site, "chain") == days - is_folded
        site.hub.restore(ledger_size=1)
        await site.give(days, at_us=site.clock.wall_us)
        await site.drain()
        assert site.hub.numbers() == list(range(1, days + 1))
        assert site.core.pipeline.counters()["gate"].lost == 0
        assert site.hub.notes() == []


@pytest.mark.parametrize("is_folded", [False, True], ids=["links kept", "links folded"])
async def test_an_ended_stream_that_cannot_be_completed_leaves_the_live_one_alone(
    tmp_path, is_folded
):
    site = Site(tmp_path)
    async with site.running():
        for day in range(10):
            await site.give(day, at_us=site.clock.wall_us)
            await site.drain()
            site.clock.advance(86_400)
            await keep_house(site)
        await site.core.forks.succeed(site.core.bounds["gate"], reason="test")
    async with site.running():
        for day in range(10, 12):
            await site.give(day, at_us=site.clock.wall_us)
            await site.drain()
            site.clock.advance(86_400)
            await keep_house(site)

        def press(connection):
            (row,) = connection.execute("SELECT min(id) FROM body").fetchone()
            connection.execute("DELETE FROM body WHERE id = ?", (row,))
            connection.execute("DELETE FROM content WHERE id = ?", (row,))
            connection.execute("UPDATE stream SET grace_n = grace_n - 1 WHERE state = 2")
            week_ago = site.clock.wall_us - 7 * DAY_US
            fold(connection, before_us=week_ago, backed_up_to=0, pressed=is_folded)

        await site.core.main.database.write("evict", press)
        site.hub.restore(ledger_size=1)
        await site.give(12, at_us=site.clock.wall_us)
        before = await count(site, "stream")
        await site.drain()
        assert site.hub.numbers() == list(range(1, 13))
        assert await count(site, "stream") == before
        # With its link the one that went is named; without, nobody knows any more that it was.
        named = [(note.unit, note.first, note.last, note.count) for note in site.hub.notes()]
        assert named == ([] if is_folded else [("seq", 0, 0, 1)])


async def test_a_damaged_segment_of_a_stream_that_ended_is_declared_once(tmp_path):
    (tmp_path / "a").mkdir()
    site = Site(tmp_path / "a")
    async with site.running():
        await site.give(1)
        await site.drain()
        image = site.image(tmp_path / "image")
        await site.give(2)
        await site.drain()
    restored = site.like(folder=image, core=None, sync=None, alarms=[])
    async with restored.running():
        await restored.give(3)
        await restored.seal()
        await restored.core.main.database.write(
            "test",
            lambda c: c.execute(
                "UPDATE content SET data = zeroblob(length(data))"
                " WHERE id = (SELECT max(id) FROM body)"
            ),
        )
        await restored.give(4)
        await restored.drain()
        assert site.hub.numbers() == [1, 2, 4]
        assert [note.reason for note in site.hub.notes()] == ["body damaged"]


async def test_links_are_folded_once_the_backup_has_them_or_the_disk_is_wanted(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        for number in range(4):
            await site.give(number)
            await site.drain()
        await site.core.main.database.write(
            "test", lambda c: [c.execute(f"DELETE FROM {table}") for table in ("body", "content")]
        )
        site.clock.advance(8 * 86_400)
        await keep_house(site)
        assert await count(site, "chain") == 4  # a hub that was restored could lack each of them
        (first,) = await site.core.main.database.read(
            lambda c: c.execute("SELECT min(leaf) FROM chain").fetchone()
        )
        site.core.spool.backed_up_to = first + 1
        await keep_house(site)
        assert await count(site, "chain") == 3
        await site.give(4)
        await site.drain()
        await site.give(5)
        await site.drain()
        disk = site.core.main.database.disk
        budget, disk.pages = disk.pages, disk.used_pages
        await site.core.keep_house()
        disk.pages = budget
        await keep_house(site)
        assert await count(site, "chain") == 2  # those that are not a week old
