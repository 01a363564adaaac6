"""What chaos will do is known from its seed, and is what the bars ask for."""

from collections import Counter

import pytest

from devices.demo import chaos
from devices.demo.figures import bars


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
