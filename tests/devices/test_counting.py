"""Totals of counters -> increments: what goes wrong in the field, one test each."""

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.counting import CounterRule, CounterState, step
from protocol.times import Quality

ZONE = timezone(timedelta(hours=8))
MINUTE = 60_000_000


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZONE).timestamp() * 1_000_000)


NOON = at("2026-05-01 12:00")


class Counter:
    """A counter as the agent sees it: reports in, the sum of the increments out."""

    def __init__(self, **rule) -> None:
        self.rule = CounterRule(**rule)
        self.state: CounterState | None = None
        self.sum = 0
        self.now_us = 0  # the gateway's clock: the newest report, unless told otherwise

    def report(self, raw: int, at_us: int, *, gateway_us: int | None = None, **more):
        self.now_us = max(self.now_us, at_us)
        now_us = self.now_us if gateway_us is None else gateway_us
        done = step(self.rule, self.state, raw, at_us, zone=ZONE, gateway_us=now_us, **more)
        self.state = CounterState.load(done.state.dump())
        self.sum += done.increment or 0
        return done


def test_first_report_is_the_base_line():
    counter = Counter()
    assert counter.report(5000, NOON).quality == Quality.REBASED
    assert counter.report(5007, NOON + MINUTE).increment == 7
    assert counter.sum == 7


def test_first_report_counts_from_zero_where_configured():
    counter = Counter(first_is_zero=True)
    counter.report(3, NOON)
    assert counter.sum == 3


def test_R10_sixteen_bit_counter_rolls_over():
    counter = Counter(wrap=65536)
    counter.report(65_530, NOON)
    done = counter.report(4, NOON + MINUTE)
    assert (done.increment, done.quality) == (10, Quality(0))


def test_R10_placepod_rolls_at_128():
    counter = Counter(wrap=128, max_step=20)
    counter.report(126, NOON)
    assert counter.report(1, NOON + MINUTE).increment == 3


def test_R10_a_step_above_max_step_is_no_wrap():
    counter = Counter(wrap=65536, max_step=100)
    counter.report(40_000, NOON)
    done = counter.report(7, NOON + MINUTE)
    assert (done.increment, done.quality) == (7, Quality.REBASED)
    assert done.state.generation == 1


def test_R11_daily_reset_at_midnight():
    counter = Counter(reset_minutes=0)
    counter.report(812, at("2026-05-01 23:59"))
    done = counter.report(3, at("2026-05-02 00:01"))
    assert (done.increment, done.quality) == (3, Quality(0))


def test_R11_daily_reset_some_minutes_late():
    counter = Counter(reset_minutes=0)
    counter.report(812, at("2026-05-01 23:59"))
    assert counter.report(815, at("2026-05-02 00:04")).increment == 3
    assert counter.report(2, at("2026-05-02 00:07")).increment == 2
    assert counter.sum == 5


def test_R11_reset_elsewhere_is_rebased():
    counter = Counter(reset_minutes=0)
    counter.report(812, NOON)
    done = counter.report(2, NOON + MINUTE)
    assert (done.increment, done.quality) == (2, Quality.REBASED)


def test_R12_reset_to_anything_is_never_negative():
    counter = Counter(wrap=1 << 32, max_step=600)
    counter.report(50_000, NOON)
    first = counter.report(20_000, NOON + MINUTE)
    assert (first.increment, first.quality) == (None, Quality.OUT_OF_RANGE)
    second = counter.report(20_003, NOON + 2 * MINUTE)
    assert second.increment == 3, "what it counted since it was first seen"
    assert second.quality == Quality.REBASED | Quality.GAP_BEFORE
    assert counter.report(20_010, NOON + 3 * MINUTE).increment == 7


def test_R13_a_reset_that_nobody_saw_is_a_gap_not_a_guess():
    counter = Counter(reset_minutes=0)
    counter.report(100, at("2026-05-01 20:00"))
    done = counter.report(250, at("2026-05-02 10:00"))
    assert (done.increment, done.quality) == (None, Quality.GAP_BEFORE)
    assert counter.report(260, at("2026-05-02 10:01")).increment == 10


def test_R13_after_a_day_that_began_at_zero_both_explanations_agree():
    counter = Counter(reset_minutes=0)
    counter.report(0, at("2026-05-01 20:00"))
    done = counter.report(5, at("2026-05-02 10:00"))
    assert (done.increment, done.quality) == (5, Quality.GAP_BEFORE)
    done = counter.report(9, at("2026-05-02 10:05"))
    assert (done.increment, done.quality) == (4, Quality(0))


def test_R13_an_impossible_total_after_a_day_that_began_at_zero_is_not_counted():
    counter = Counter(reset_minutes=0)
    counter.report(0, at("2026-05-01 20:00"))
    done = counter.report(14 * 60 * 1000 + 1, at("2026-05-02 10:00"))
    assert (done.increment, done.quality) == (None, Quality.GAP_BEFORE)


@pytest.mark.parametrize("minutes", [0, 5 * 60])
def test_R13_a_state_of_1970_says_nothing_of_restarts(minutes):
    """A gateway without a clock's battery asks before it knows the time."""
    counter = Counter(reset_minutes=minutes)
    counter.report(100, NOON, has_time=False)
    assert counter.report(105, IN_1970, gateway_us=IN_1970, has_time=False).increment == 5
    late = IN_1970 + 20 * 60 * MINUTE
    assert counter.report(107, late, gateway_us=late, has_time=False).increment == 2
    known = NOON + 5 * MINUTE
    done = counter.report(110, known, gateway_us=known, has_time=False)
    assert (done.increment, done.quality) == (3, Quality(0))
    done = counter.report(3, at("2026-05-02 12:00"), has_time=False)  # from here on it does
    assert (done.increment, done.quality) == (3, Quality.GAP_BEFORE)


def test_one_garbled_total_does_not_move_the_sum():
    counter = Counter(max_step=600)
    counter.report(100, NOON)
    assert counter.report(4_000_000, NOON + MINUTE).quality == Quality.OUT_OF_RANGE
    assert counter.report(104, NOON + 2 * MINUTE).increment == 4
    assert counter.sum == 4


def test_after_a_day_without_the_broker_a_large_step_is_counted():
    counter = Counter(max_step=10)
    counter.report(100, NOON)
    done = counter.report(9_100, NOON + 24 * 60 * MINUTE)
    assert (done.increment, done.quality) == (9_000, Quality(0))


def test_an_older_total_is_a_repeat_not_a_reset():
    counter = Counter(wrap=65536)
    for n, raw in enumerate((100, 110, 120)):
        counter.report(raw, NOON + n * MINUTE)
    for n, raw in enumerate((100, 110, 120)):
        assert counter.report(raw, NOON + n * MINUTE).repeat
    assert counter.report(125, NOON + 3 * MINUTE).increment == 5
    assert counter.sum == 25


def test_without_device_time_a_redelivery_is_known_by_the_transport():
    counter = Counter()
    counter.report(100, NOON, has_time=False)
    counter.report(110, NOON + 1, has_time=False)
    assert counter.report(100, NOON + 2, has_time=False, redelivered=True).repeat
    assert counter.report(111, NOON + 3, has_time=False).increment == 1


TEN_YEARS = 10 * 365 * 24 * 60 * MINUTE
IN_1970 = 3_600_000_000


def test_one_report_from_the_future_does_not_end_the_counting():
    """Believed once, by `trust = "always"` or a gateway in 1970; the device is right again."""
    counter = Counter(max_step=600)
    counter.report(100, NOON, gateway_us=NOON)
    assert counter.report(110, NOON + TEN_YEARS, gateway_us=NOON + MINUTE).increment == 10
    for hour in range(1, 4):
        now = NOON + hour * 60 * MINUTE
        done = counter.report(110 + 5_000 * hour, now, gateway_us=now)
        assert (done.increment, done.repeat, done.quality) == (5_000, False, Quality(0))
    assert counter.sum == 15_010
    # From here on order is known again.
    now = NOON + 5 * 60 * MINUTE
    assert counter.report(10_110, NOON + 120 * MINUTE, gateway_us=now).repeat


def test_what_is_delivered_again_after_a_report_from_the_future_is_not_counted_twice():
    counter = Counter()
    counter.report(100, NOON, gateway_us=NOON)
    counter.report(110, NOON + TEN_YEARS, gateway_us=NOON)
    counter.report(120, NOON + MINUTE, redelivered=True, gateway_us=NOON + MINUTE)
    late = NOON + 2 * MINUTE
    assert counter.report(120, NOON + MINUTE, redelivered=True, gateway_us=late).repeat
    assert counter.sum == 20


def test_a_gateway_in_1970_counts_on_after_a_report_from_the_future():
    counter = Counter()
    counter.report(100, NOON + TEN_YEARS, gateway_us=IN_1970)
    assert counter.report(130, NOON, gateway_us=IN_1970).increment == 30
    assert counter.report(130, NOON, gateway_us=IN_1970).repeat
    assert counter.report(140, NOON + MINUTE, gateway_us=IN_1970).increment == 10


def test_a_restart_while_the_state_stood_in_the_future_is_believed_when_seen_twice():
    counter = Counter(max_step=600)
    counter.report(50_000, NOON + TEN_YEARS, gateway_us=NOON)
    done = counter.report(7, NOON + MINUTE, gateway_us=NOON + MINUTE)
    assert (done.increment, done.quality) == (None, Quality.OUT_OF_RANGE)
    done = counter.report(9, NOON + 2 * MINUTE, gateway_us=NOON + 2 * MINUTE)
    assert (done.increment, done.quality) == (2, Quality.REBASED | Quality.GAP_BEFORE)
    assert counter.report(12, NOON + 3 * MINUTE, gateway_us=NOON + 3 * MINUTE).increment == 3


def test_a_gateway_that_runs_behind_does_not_count_old_totals_again():
    """No clock agrees with the old report's, so the state's stands: the broker delivers again."""
    counter = Counter(max_step=600)
    for n, raw in enumerate((100, 110, 120)):
        counter.report(raw, NOON + n * MINUTE, gateway_us=NOON - 2 * 24 * 60 * MINUTE)
    for n, raw in enumerate((100, 110, 120)):
        when = NOON + n * MINUTE
        assert counter.report(raw, when, gateway_us=NOON - 2 * 24 * 60 * MINUTE).repeat


def test_another_width_in_the_profile_starts_a_new_base_line():
    counter = Counter(wrap=65536)
    counter.report(60_000, NOON)
    counter.rule = CounterRule(wrap=1 << 32)
    done = counter.report(60_500, NOON + MINUTE)
    assert (done.increment, done.quality) == (0, Quality.REBASED)


@given(
    start=st.integers(0, 65535),
    steps=st.lists(st.tuples(st.integers(0, 900), st.integers(1, 600)), max_size=60),
    repeats=st.lists(st.integers(0, 59), max_size=30),
)
def test_the_sum_is_exact_whatever_wraps_and_is_delivered_again(start, steps, repeats):
    """Reports of a 16-bit counter, some of them delivered again later in any order."""
    counter = Counter(wrap=65536)
    reports, total, now = [(start, NOON)], start, NOON
    for people, seconds in steps:
        total += people
        now += seconds * 1_000_000
        reports.append((total % 65536, now))
    for number, (raw, when) in enumerate(reports):
        counter.report(raw, when)
        for again in repeats:
            if again < number:
                assert counter.report(*reports[again]).repeat
    assert counter.sum == total - start


def test_another_serial_number_is_another_counter_whatever_it_shows():
    counter = Counter(max_step=600)
    counter.report(100, NOON, unit="41")
    assert counter.report(107, NOON + MINUTE, unit="41").increment == 7
    assert counter.report(108, NOON + 2 * MINUTE).increment == 1  # could not be read this time
    done = counter.report(120, NOON + 3 * MINUTE, unit="42")
    assert (done.increment, done.quality) == (0, Quality.REBASED | Quality.GAP_BEFORE)
    assert done.state.generation == 1
    assert counter.report(125, NOON + 4 * MINUTE, unit="42").increment == 5
    assert counter.sum == 13


def test_a_watermark_from_before_serial_numbers_is_read():
    old = CounterState.load(bytes.fromhex("95cd1388ce000100000001c0"))
    assert (old.raw, old.wrap, old.generation, old.at_us, old.unit) == (5000, 65536, 0, 1, "")


@given(
    width=st.sampled_from([16, 32]),
    start=st.integers(0, 2**32 - 1),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["pass", "pass", "pass", "restart", "swap", "agent"]),
            st.integers(0, 300),  # persons
            st.integers(2_000, 30_000),  # what another unit shows
        ),
        max_size=60,
    ),
)
def test_polled_totals_are_exact_as_far_as_they_can_be_known(width, start, steps):
    """Increments, rollovers, resets to 0, swaps with a serial number, restarts of the agent.

    Where a reset cannot be told from a roll-over (it shows less than max_step after it would have
    wrapped) nobody can know; there the generated history is left out.
    """
    wrap = 1 << width
    counter = Counter(wrap=wrap, max_step=300)
    shown, serial, known, now = start % wrap, 1, 0, NOON
    counter.report(shown, now, has_time=False, unit="1")
    for what, people, other in steps:
        now += 10_000_000
        if what == "restart":
            if people - shown + wrap <= 300 or people >= shown:
                continue
            shown = people  # counted since it started again at 0
            known += people
        elif what == "swap":
            serial, shown = serial + 1, other
        elif what == "agent":
            counter.state = CounterState.load(counter.state.dump())
        else:
            shown = (shown + people) % wrap
            known += people
        done = counter.report(shown, now, has_time=False, unit=str(serial))
        assert done.increment is not None
        assert done.state.generation >= serial - 1
    assert counter.sum == known
