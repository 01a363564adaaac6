"""What is progress: where nothing moved, the same batch would at once bring the same answer."""

from agent.seal.resend import queue_header
from agent.store.recovery import mark_of
from agent.store.schema import StreamState
from agent.store.segments import head_bytes
from protocol.messages import Evidence, Fork, SegmentItem
from tests.agent.kit import Hub, Site


async def test_ending_a_stream_says_whether_anything_moved(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        await site.give(1)
        await site.drain()
        bound, forks = site.core.bounds["gate"], site.core.forks
        old = bound.stream.id
        assert await forks.succeed(bound, reason="test"), "nothing waited, but a stream began"
        live = bound.stream.id
        assert live != old
        assert not await forks.succeed(bound, reason="test", stream=old)

        def owe_header(connection):
            head = head_bytes(connection, old, 0)
            queue_header(connection, old, 0, head, body=0, reason="evicted")

        await site.core.main.database.write("test", owe_header)
        assert await forks.succeed(bound, reason="test", stream=old), "its header went"
        assert not await forks.succeed(bound, reason="test", stream=old)
        assert bound.stream.id == live


class Blind(Hub):
    """Says that streams forked, and has nothing to show for it."""

    def _judge(self, item, accepted):
        is_segment = isinstance(item, SegmentItem)
        return Fork(Evidence()) if is_segment else super()._judge(item, accepted)


async def answered(site: Site) -> bool:
    """One item and the hub's answer to it; whether anything moved."""
    items = await site.core.spool.next_items(1 << 20, 1)
    return await site.core.spool.apply(site.ask(items), items)


async def repaired(tmp_path, *, sent_since: int) -> Site:
    """An image that nothing waits in, repaired at its start; the hub has newer segments."""
    image = tmp_path / "image"
    (tmp_path / "a").mkdir()
    before = Site(tmp_path / "a")
    before.hub.page = 1
    async with before.running():
        await before.give(0)
        await before.drain()
        before.image(image)
        for number in range(1, 1 + sent_since):
            await before.give(number)
            await before.drain()
    (image / "spool.db-shm").unlink(missing_ok=True)
    mark_of(image / "spool.db").touch()
    return before.like(folder=image, core=None, sync=None, alarms=[])


async def test_an_accepted_item_is_progress(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        await site.give(1)
        await site.seal()
        assert await answered(site)


async def test_a_hub_with_nothing_to_show_moves_nothing(tmp_path):
    site = await repaired(tmp_path, sent_since=0)
    async with site.running():
        assert not await answered(site)
        assert site.core.bounds["gate"].stream.state is StreamState.LIVE
        assert site.alarms == []


async def test_evidence_is_progress_until_its_last_page_moves_nothing(tmp_path):
    site = await repaired(tmp_path, sent_since=3)
    async with site.running():
        moved = [await answered(site) for _ in range(3)]
        assert moved == [True, True, False], "two pages led to a question, the third to nothing"
        assert site.alarms == ["fork"]
        assert site.core.bounds["gate"].stream.state is StreamState.LIVE


async def test_a_fork_that_moved_something_is_progress(tmp_path):
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
        while not restored.alarms:
            assert await answered(restored)
        assert restored.alarms == ["fork"]
        assert restored.core.bounds["gate"].stream.waiting == 1


async def test_a_second_fork_without_evidence_moves_nothing(tmp_path):
    """Objects are accepted, a first fork gives the records back; another would not help."""
    site = Site(tmp_path, hub=Blind())
    async with site.running():
        await site.give(1)
        await site.seal()
        while not site.alarms:
            assert await answered(site)
        assert site.alarms == ["fork-unproven", "fork"]
        await site.seal()
        moved = True
        while len(site.alarms) == 2:
            assert moved
            moved = await answered(site)
        assert not moved
        assert site.alarms == ["fork-unproven", "fork", "fork-unproven"]
        assert await site.core.spool.next_items(1 << 20, 1) == []
