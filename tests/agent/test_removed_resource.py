"""A resource that the configuration no longer names: what the hub answers to it is followed up."""

import pytest

from agent.answers import HOLD_UNBOUND_S
from agent.store.ports import CoreSettings
from protocol.envelope import parse
from protocol.messages import SegmentItem, UnknownResource
from tests.agent.kit import BAYS, Site

SEGMENTS = 12
ITEMS_MAX = 8  # fewer than dead segments: they would fill each batch


async def image_with_other_cuts(tmp_path) -> Site:
    """An image whose rows were accepted in one segment, and that sealed them as many."""
    first = Site(tmp_path / "first")
    async with first.running():
        await first.give(1)
        await first.drain()
        for number in range(10, 10 + SEGMENTS):
            await first.give(number)
    image = first.image(tmp_path / "image")
    async with first.running():
        await first.give(50)
        await first.drain()
    restored = first.like(folder=image)
    async with restored.running():
        sealer, bound = restored.core.main.sealer, restored.core.bounds["gate"]
        rows = list(bound.stream.rows)
        for row in rows:
            async with sealer.gate:
                bound.stream.rows.clear()
                bound.stream.rows.append(row)
                await sealer._seal(bound)
        assert (await restored.core.spool.stats()).due == SEGMENTS
    return restored


async def spoil(site: Site, *statements: str) -> None:
    """Change the file of a stopped site behind its back."""
    async with site.running():
        await site.core.main.database.write(
            "test", lambda c: [c.execute(statement) for statement in statements]
        )


async def exchanges(site: Site, count: int) -> int:
    """Give the hub so many rounds; how many there was something to send in."""
    made = 0
    for _ in range(count):
        await site.seal()
        made += await site.exchange(items_max=ITEMS_MAX) is not None
    return made


@pytest.mark.parametrize("is_removed", [False, True], ids=["kept", "removed"])
async def test_fork_of_a_resource_that_was_removed(tmp_path, is_removed):
    site = await image_with_other_cuts(tmp_path)
    if is_removed:
        site = site.like(settings=CoreSettings(resources=(BAYS,)))
    async with site.running():
        await site.give(100, resource="bays")
        await exchanges(site, 8)
        assert site.hub.numbers() == [1, *range(10, 10 + SEGMENTS), 50, 100]
        assert (await site.core.spool.stats()).due == 0
        assert "fork" in site.alarms


@pytest.mark.parametrize(
    "lost",
    [
        "UPDATE resource SET data = x'00' WHERE local = 'gate'",
        "DELETE FROM stream WHERE next_seq > 1",
    ],
    ids=["entry", "stream"],
)
async def test_fork_that_nobody_can_follow_waits_alone(tmp_path, lost):
    site = await image_with_other_cuts(tmp_path)
    await spoil(site, lost)
    site = site.like(settings=CoreSettings(resources=(BAYS,)))
    async with site.running():
        await site.give(100, resource="bays")
        assert await exchanges(site, 8) == 2  # the fork with the others' objects; their segments
        assert 100 in site.hub.numbers()
        assert site.alarms == ["stream-unbound"]
        dead = await site.core.main.database.read(
            lambda c: c.execute("SELECT count(*) FROM body WHERE state = 2").fetchone()
        )
        assert dead == (SEGMENTS,)
        site.clock.advance(HOLD_UNBOUND_S + 1)
        assert await exchanges(site, 2) == 1  # asked again, once


@pytest.mark.parametrize("verdict", ["missing", "unknown-resource"])
async def test_what_the_hub_lost_and_nobody_can_mend_waits_alone(tmp_path, verdict):
    site = Site(tmp_path)
    async with site.running():
        for number in range(3):
            await site.give(number)
            await site.drain()
        await site.give(3)
        await site.seal()
    await spoil(
        site, "UPDATE resource SET data = x'00'", "DELETE FROM body WHERE seq = 1",
        "DELETE FROM chain WHERE seq = 1",
    )  # fmt: skip
    site = site.like(settings=CoreSettings(resources=(BAYS,)))
    if verdict == "missing":
        site.hub.streams.clear()
    else:
        site.hub._judge = lambda _item, _accepted: UnknownResource()
    async with site.running():
        assert await exchanges(site, 8) < 4
        assert site.alarms == ["stream-unbound"]


async def test_a_removed_resource_is_registered_again_where_the_hub_forgot_it(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        await site.give(1)
        await site.drain()
        await site.give(2)
        await site.seal()
    site = site.like(settings=CoreSettings(resources=(BAYS,)))
    judge = site.hub._judge
    for registration in site.hub.of_kind("registration"):
        del site.hub.raw[parse(registration).object_id]

    def forgetful(item, accepted):
        known = site.hub.of_kind("registration")
        return (
            UnknownResource()
            if isinstance(item, SegmentItem) and not known
            else judge(item, accepted)
        )

    site.hub._judge = forgetful
    async with site.running():
        for _ in range(4):
            await site.exchange()
            site.clock.advance(2)
        assert site.hub.of_kind("registration")
        assert site.hub.numbers() == [1, 2]
        assert site.alarms == []
