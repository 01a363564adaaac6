"""After damage a stream seals nothing before the hub's evidence: its question is never forgotten."""

import pytest

from agent.store.recovery import mark_of
from agent.store.schema import StreamState
from protocol.errors import Code, UnavailableError
from protocol.messages import EvidenceItem, Later
from tests.agent.kit import Hub, Site


class Suspended(Hub):
    """Answers `later` to everything while the operator thinks, as the real hub does."""

    is_suspended = False

    def _judge(self, item, accepted):
        return Later(3600) if self.is_suspended else super()._judge(item, accepted)


async def damaged(tmp_path) -> Site:
    site = Site(tmp_path, hub=Suspended())
    async with site.running():
        for number in range(3):
            await site.give(number)
            await site.drain()
        await site.give(3)  # waits in the journal
    mark_of(tmp_path / "spool.db").touch()
    return site


async def goes_on(site: Site) -> None:
    for number in range(10, 13):
        await site.give(number)
        await site.drain()
    assert site.core.bounds["gate"].stream.state is StreamState.LIVE
    assert site.hub.numbers() == [0, 1, 2, 3, 10, 11, 12]


async def questions(site: Site) -> int:
    items = await site.core.spool.next_items(1 << 20, 1000)
    return sum(isinstance(one.item, EvidenceItem) for one in items)


async def test_a_hub_that_answers_later_is_asked_again(tmp_path):
    site = await damaged(tmp_path)
    async with site.running():
        assert site.core.bounds["gate"].stream.state is StreamState.WAITING
        site.hub.is_suspended = True
        await site.exchange()
        site.hub.is_suspended = False
        assert await questions(site) == 0  # not before the hub wants it
        assert 3600 <= site.core.spool.held_s() < 3601
        site.clock.advance(3601)
        assert await questions(site)
        await goes_on(site)
        assert await questions(site) == 0


async def test_an_operator_who_decides_ends_the_wait_at_once(tmp_path):
    site = await damaged(tmp_path)
    async with site.running():
        site.hub.is_suspended = True
        await site.exchange()
        site.hub.is_suspended = False
        site.core.spool.release()
        await goes_on(site)


@pytest.mark.parametrize("called", ["receipt", "fork"])
async def test_a_disk_that_is_full_at_the_answer_does_not_lose_it(tmp_path, called):
    image = tmp_path / "image"
    (tmp_path / "a").mkdir()
    before = Site(tmp_path / "a", hub=Suspended())
    before.hub.page = 1  # several pages: none of them may be lost
    async with before.running():
        for number in range(3):
            await before.give(number)
            await before.drain()
        await before.give(3)
        before.image(image)
        for number in range(4, 6):
            await before.give(number)
            await before.drain()
    (image / "spool.db-shm").unlink(missing_ok=True)
    mark_of(image / "spool.db").touch()
    site = before.like(folder=image, core=None, sync=None, alarms=[])
    async with site.running():
        database = site.core.main.database
        write, failed = database.write, []

        async def full(name, work, **more):
            if name == called and len(failed) < 2:
                failed.append(name)
                raise UnavailableError(Code.DISK_FULL)
            return await write(name, work, **more)

        database.write = full
        for _ in range(2):
            with pytest.raises(UnavailableError):
                await site.drain()
        for number in range(10, 13):
            await site.give(number)
            await site.drain()
        assert site.core.bounds["gate"].stream.state is StreamState.LIVE
    assert site.hub.numbers() == [*range(6), 10, 11, 12]
