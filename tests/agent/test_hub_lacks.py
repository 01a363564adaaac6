"""What a restored or refusing hub lacks: believed and made due at once, whatever comes between."""

import sys
from pathlib import Path

import pytest

from protocol.envelope import parse as parse_envelope
from protocol.errors import Code, UnavailableError
from protocol.leaf import State
from protocol.messages import ObjectItem, Refused, SegmentItem, UnknownResource
from tests.agent.kit import Site

BOTH = [*range(5), *range(100, 105)]


async def gone_back(site: Site) -> None:
    """Two resources with receipts; then the hub goes back to before all of it."""
    for number in range(5):
        await site.give(number)
        await site.give(100 + number, resource="bays")
        await site.drain()
    assert site.hub.numbers() == BOTH
    site.hub.restore(ledger_size=2)
    site.hub.raw.clear()
    await site.give(5)  # only `gate` has news
    await site.seal()


async def as_started(site: Site) -> None:
    """The conversation as the service makes it: from what is stored."""
    stored = await site.core.spool.stored_hub()
    assert stored is not None
    site.sync.hub = stored


async def check_complete(site: Site) -> None:
    """Both resources come back with objects and bodies, and are counted once."""
    for _ in range(5):
        await site.drain()
    kinds = {"registration": 2, "wrap": 1}
    assert {kind: len(site.hub.of_kind(kind)) for kind in kinds} == kinds
    assert site.hub.numbers() == sorted([*BOTH, 5])
    assert {one.state for one in site.hub.segments()} == {State.BODY}
    counters = site.core.pipeline.counters()
    assert {name: one.accepted for name, one in counters.items()} == {"gate": 6, "bays": 5}
    stats = await site.core.spool.stats()
    assert (stats.due, site.core.main.sealer.due_bodies) == (0, 0)


_IMAGES: dict[str, tuple[Site, Path]] = {}  # point -> what to copy when it is met, and where to


def _hook(event: str, args: tuple) -> None:
    if event == "shanmen.point" and args[0] in _IMAGES:
        site, target = _IMAGES.pop(args[0])
        site.image(target)


sys.addaudithook(_hook)


@pytest.mark.parametrize("point", ["receipt.before", "receipt.after"])
async def test_killed_around_the_receipt_of_a_new_generation(tmp_path, point):
    site, image = Site(tmp_path / "a"), tmp_path / "killed"
    async with site.running():
        await gone_back(site)
        _IMAGES[point] = (site, image)
        await site.exchange()
    assert image.exists()
    restarted = site.like(folder=image)
    async with restarted.running():
        await as_started(restarted)
        assert restarted.sync.hub.generation == (1 if point == "receipt.before" else 2)
        await check_complete(restarted)


@pytest.mark.parametrize("name", ["receipt", "resend"])
async def test_full_disk_when_a_new_generation_is_believed(tmp_path, name):
    site = Site(tmp_path)
    async with site.running():
        await gone_back(site)
        database = site.core.main.database
        write = database.write

        async def full(called, work, **more):
            if called == name:
                raise UnavailableError(Code.DISK_FULL)
            return await write(called, work, **more)

        database.write = full
        with pytest.raises(UnavailableError):
            await site.exchange()
        database.write = write
        assert site.sync.hub.generation == 2  # the conversation has gone on
        await check_complete(site)
        assert site.alarms.count("hub-restored") == 1


async def test_counts_are_the_files_after_a_restore_of_the_hub(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        await gone_back(site)
        await check_complete(site)
    async with site.running():
        counters = site.core.pipeline.counters()
        assert {name: one.accepted for name, one in counters.items()} == {"gate": 6, "bays": 5}


async def test_counts_after_a_chain_that_the_hub_lost(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        for number in range(3):
            await site.give(number)
            await site.drain()
        site.hub.streams.clear()  # the same generation: it says `missing`
        await site.give(3)
        await site.drain()
        assert site.hub.numbers() == [0, 1, 2, 3]
        assert site.core.pipeline.counters()["gate"].accepted == 4


def refusing(site: Site) -> list[bytes]:
    """Let the hub refuse registrations for good. Returns those that came, as they come."""
    judge = site.hub._judge
    came: list[bytes] = []

    def refuse(item, accepted):
        if isinstance(item, ObjectItem) and parse_envelope(item.raw).kind == "registration":
            came.append(item.raw)
            return Refused("not-owner", "x")
        return UnknownResource() if isinstance(item, SegmentItem) else judge(item, accepted)

    site.hub._judge = refuse
    return came


async def registrations(site: Site) -> int:
    (count,) = await site.core.main.database.read(
        lambda c: c.execute("SELECT count(*) FROM outbox WHERE kind = 'registration'").fetchone()
    )
    return count


async def test_refused_registration_is_asked_about_seldom_and_kept_once(tmp_path):
    site = Site(tmp_path)
    judge = site.hub._judge
    came = refusing(site)
    async with site.running():
        await site.give(1)
        await site.seal()
        for _ in range(60):
            await site.exchange()
            site.clock.advance(2)
        assert (len(came), await registrations(site)) == (1, 1)
        for _ in range(6 * 60):  # six hours
            await site.exchange()
            site.clock.advance(60)
        assert await registrations(site) == 1
        assert 3 <= len(came) <= 7
        assert site.alarms.count("item-refused") == 1
        site.hub._judge = judge  # the hub thinks better of it
        for _ in range(2 * 60):
            await site.exchange()
            site.clock.advance(60)
        assert site.hub.numbers() == [1]
