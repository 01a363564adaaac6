"""Which clock is believed, and what is said about it: R34-R38."""

from datetime import timedelta, timezone

import pytest

from devices.times import Trust, judge, parse, zone_of
from protocol.times import Quality, parse_rfc3339, show_time

ZONE = timezone(timedelta(hours=8))
NOW = parse_rfc3339("2026-05-01T04:00:00Z")
MINUTE = 60_000_000
CONFLICT = Quality.CLOCK_GATEWAY | Quality.CLOCK_CONFLICT


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2026-05-01T12:00:00+08:00", "2026-05-01T04:00:00Z"),
        ("2026-05-01T12:00:00+0800", "2026-05-01T04:00:00Z"),
        ("2026-04-30T23:00:00-5:00", "2026-05-01T04:00:00Z"),
        ("2026-05-01 12:00:00", "2026-05-01T04:00:00Z"),
        ("20260501120000", "2026-05-01T04:00:00Z"),
        ("2026-05-01T04:00:00.123456789Z", "2026-05-01T04:00:00.123456Z"),
    ],
)
def test_R34_forms_of_time_that_are_on_the_list(text, meant):
    assert show_time(parse(text, "iso", ZONE)) == meant


@pytest.mark.parametrize(
    "text",
    ["", "12:00", "01/05/2026", "26-05-01T12:00:00", "2026-05-01T12:00:00 CET", "2026-02-30T00:00:00Z",
     "2026-05-01T12:00:00+15:00", "2026-05-01T25:00:00Z", 5, None, True, ["2026"]],
)  # fmt: skip
def test_R34_anything_else_is_not_guessed(text):
    assert parse(text, "iso", ZONE) is None


@pytest.mark.parametrize(
    ("value", "style", "us"),
    [(1, "epoch_s", 10**6), (1.5, "epoch_s", 1_500_000), (1, "epoch_ms", 1000), (7, "epoch_us", 7),
     (0, "epoch_s", None), (-1, "epoch_s", None), (True, "epoch_s", None), (1e300, "epoch_s", None),
     (10**30, "epoch_ms", None), ("1", "epoch_s", None)],
)  # fmt: skip
def test_epochs(value, style, us):
    assert parse(value, style, ZONE) == us


def test_R35_a_zone_fault_is_a_conflict_and_both_times_are_kept():
    wrong = NOW + 8 * 60 * MINUTE
    assert judge(wrong, NOW, Trust()) == (NOW, wrong, CONFLICT)


def test_messages_that_the_broker_kept_have_their_own_time():
    old = NOW - 3 * 24 * 60 * MINUTE
    assert judge(old, NOW, Trust()) == (old, None, Quality(0))
    assert judge(old, NOW, Trust(bulk_old_ok=False)) == (NOW, old, CONFLICT)


def test_R37_a_clock_reset_to_1970_or_2000_is_not_old_data():
    for text in ("1970-01-01T00:00:09Z", "2000-01-01T08:00:00Z"):
        wrong = parse_rfc3339(text)
        assert judge(wrong, NOW, Trust()) == (NOW, wrong, CONFLICT)


def test_R38_a_gateway_that_woke_up_in_1970_believes_its_devices():
    assert judge(NOW, 5_000_000, Trust()) == (NOW, None, Quality(0))


def test_trust_is_the_technicians_word():
    wrong = NOW + 60 * MINUTE
    assert judge(wrong, NOW, Trust(mode="always")) == (wrong, None, Quality(0))
    assert judge(NOW, NOW, Trust(mode="never")) == (NOW, NOW, Quality.CLOCK_GATEWAY)
    assert judge(None, NOW, Trust()) == (NOW, None, Quality.CLOCK_GATEWAY)


def test_zones():
    assert zone_of("Asia/Shanghai").utcoffset(None) == timedelta(hours=8)
    assert zone_of("Asia/Nowhere") is None
    assert zone_of("../etc/passwd") is None
