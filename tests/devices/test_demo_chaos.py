"""What chaos will do is known from its seed, and is what the bars ask for."""

import asyncio
from collections import Counter

import pytest

from devices.demo import chaos
from devices.demo.figures import bars
from devices.demo.proxy import Link


@pytest.mark.parametrize("seed", range(50))
@pytest.mark.parametrize("seconds", [chaos.SECONDS_MIN, 60.0, 600.0])
def test_schedule_is_repeatable_and_complete(seed: int, seconds: float) -> None:
    plan = chaos.schedule(seed, seconds)
    assert plan == chaos.schedule(seed, seconds)
    counts = Counter(one.event for one in plan)
    asked = bars("demo --chaos")
    assert counts["kill agent"] >= asked["kills_of_agent"].at_least
    assert counts["kill hub"] >= asked["kills_of_hub"].at_least
    assert counts["cut"] + counts["half-open"] >= asked["cuts"].at_least
    assert counts["half-open"] >= asked["half_open"].at_least
    assert all(one.lasts_s >= 3 for one in plan if one.event in {"cut", "half-open"})
    assert all(0 < one.at_s < 0.95 * seconds for one in plan)


@pytest.mark.parametrize("seed", range(50))
def test_things_of_one_kind_do_not_overlap(seed: int) -> None:
    plan = chaos.schedule(seed, 60.0)
    for kinds in ({"kill agent"}, {"kill hub"}, {"cut", "half-open"}):
        ones = [one for one in plan if one.event in kinds]
        assert all(a.at_s + a.lasts_s < b.at_s for a, b in zip(ones, ones[1:], strict=False))


def test_another_seed_is_another_chaos() -> None:
    assert chaos.schedule(1, 60.0) != chaos.schedule(2, 60.0)


async def test_half_open_link_waits_for_somebody_who_uses_it() -> None:
    async with asyncio.timeout(20), Link(1) as link:
        harm = asyncio.ensure_future(chaos._half_open(link, 0))
        await asyncio.sleep(0)
        _, writer = await asyncio.open_connection("127.0.0.1", link.port)
        assert not harm.done()
        writer.write(b"lost")
        assert await harm == 1
        assert link.swallowed == 4
        writer.close()


async def test_half_open_link_that_nobody_used_does_not_count(monkeypatch) -> None:
    monkeypatch.setattr(chaos, "USED_WITHIN_S", 0.01)
    async with asyncio.timeout(20), Link(1) as link:
        assert await chaos._half_open(link, 0) == 0
