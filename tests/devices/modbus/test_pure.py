"""Registers, requests and turns: properties of the pure parts, and what manuals say."""

import json
import random
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.driver import Promise
from devices.kit import Bench, load, run_case
from devices.modbus.pace import DEAD_AFTER, Limits, Schedule
from devices.modbus.plan import Span, group, split
from devices.modbus.profile import names, profile
from devices.modbus.registers import Address, bits_of, capacity, decode, parse_address, size_of
from devices.simulators.modbus_wire import crc
from protocol.errors import DecodeError
from tests.devices.test_cases import feed_registers
from tests.shared import SHARED

CASES = Path(__file__).parent / "cases"
STRUCT = {
    "u16": "H",
    "i16": "h",
    "u32": "I",
    "i32": "i",
    "u64": "Q",
    "i64": "q",
    "f32": "f",
    "f64": "d",
}
ORDERS = st.sampled_from(["high_first", "low_first"])


def stored(data: bytes, words: str, octets: str) -> list[int]:
    """What a device keeps in its registers: the value's bytes in its own order."""
    registers = [data[at : at + 2] for at in range(0, len(data), 2)]
    if octets == "low_first":
        registers = [one[::-1] for one in registers]
    if words == "low_first":
        registers.reverse()
    return [int.from_bytes(one, "big") for one in registers]


@given(st.sampled_from(sorted(STRUCT)), st.binary(min_size=8, max_size=8), ORDERS, ORDERS)
def test_every_type_in_every_order(kind, data, words, octets):
    data = data[: struct.calcsize(STRUCT[kind])]
    value = struct.unpack(f">{STRUCT[kind]}", data)[0]
    assert size_of(kind) == len(data) // 2
    if value != value or value in (float("inf"), float("-inf")):
        with pytest.raises(DecodeError):
            decode(stored(data, words, octets), kind, words, octets)
    else:
        assert decode(stored(data, words, octets), kind, words, octets) == value
        assert kind[0] == "f" or value < capacity(kind)


@given(st.integers(0, 99_999_999), ORDERS, ORDERS)
def test_decimal_digits_in_every_order(value, words, octets):
    data = bytes.fromhex(f"{value:08d}")
    assert decode(stored(data, words, octets), "bcd32", words, octets) == value
    assert decode(stored(data[2:], words, octets), "bcd", words, octets) == value % 10_000
    with pytest.raises(DecodeError):
        decode([0x00A0], "bcd", "high_first", "high_first")


def test_bits_of_a_register():
    assert [bits_of(0b1010_0000_0000_0110, low, 1) for low in (0, 1, 2, 13, 15)] == [0, 1, 1, 1, 1]
    assert bits_of(0xABCD, 4, 8) == 0xBC


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("holding:0", (3, 0)), ("40001", (3, 0)), ("400001", (3, 0)), ("45301", (3, 5300)),
        ("input:0x20", (4, 32)), ("30033", (4, 32)), ("10001", (2, 0)), ("coil:65535", (1, 65535)),
        ("465536", (3, 65535)), ("00001", (1, 0)),
    ],
)  # fmt: skip
def test_R15_registers_as_manuals_write_them(text, place):
    assert parse_address(text) == Address(*place)


@pytest.mark.parametrize(
    "text",
    ["1", "0x10", "40000", "465537", "holding:65536", "holding:-1", "hold:1", "20001", "", "4٠٠٠1"],
)
def test_R15_what_is_ambiguous_or_nothing_is_refused(text):
    assert parse_address(text) is None


spans = st.lists(
    st.builds(
        lambda function, at, count: Span(Address(function, at), 1 if function < 3 else count),
        st.integers(1, 4), st.integers(0, 400), st.sampled_from([1, 2, 4]),
    ), min_size=1, max_size=40,
)  # fmt: skip


@given(spans, st.integers(0, 40), st.integers(4, 125), st.integers(1, 2000))
def test_requests_read_exactly_what_is_wanted_within_the_limits(wanted, gap, words_max, bits_max):
    blocks = group(wanted, gap=gap, words_max=words_max, bits_max=bits_max)
    assert sorted(one for block in blocks for one in block.spans) == sorted(set(wanted))
    for block in blocks:
        assert block.count <= (bits_max if block.area.is_bits else words_max)
        at = block.start.at
        for span in block.spans:
            assert span.start.area is block.area
            assert block.start.at <= span.start.at
            assert span.end <= block.end
            assert span.start.at - at <= gap
            at = max(at, span.end)
        assert at == block.end, "nothing is read after the last wanted register"


@given(spans)
def test_a_refused_block_falls_into_ever_smaller_ones_that_lose_nothing(wanted):
    for block in group(wanted, gap=124, words_max=125, bits_max=2000):
        left, leaves = [block], []
        for _ in range(200):
            if not left:
                break
            one = left.pop()
            pieces = split(one)
            assert all(
                len(piece.spans) < len(one.spans) or piece.count < one.count for piece in pieces
            )
            left += pieces
            leaves += [] if pieces else [one]
        assert not left
        assert sorted(span for leaf in leaves for span in leaf.spans) == list(block.spans)


# --- turns ------------------------------------------------------------------------------------

S = 1_000_000


class Line:
    """A line in a clock of its own: units answer after their time, or not at all."""

    def __init__(self, every_us: dict[str, int], limits: Limits, *, think_us: int = 15_000) -> None:
        self.now_us = 0
        self.dead: set[str] = set()
        self.think_us = dict.fromkeys(every_us, think_us)
        self.polls: list[tuple[str, int, int, bool]] = []  # name, due, done, answered
        self.spent: list[tuple[int, int]] = []  # when, and how long nobody answered
        chance = random.Random(3)
        self.schedule = Schedule(every_us, limits, now_us=0, jitter=chance.random)
        self.schedule.opened(0)

    def run(self, until_us: int) -> None:
        while True:
            turn = self.schedule.next(self.now_us)
            if turn.at_us > self.now_us:
                if turn.at_us >= until_us:
                    self.now_us = until_us
                    return
                self.now_us = turn.at_us
                continue
            due_us = self.schedule.units[turn.name].due_us
            think_us = self.think_us[turn.name]
            if turn.name in self.dead or think_us > turn.timeout_us:
                self.now_us += turn.timeout_us
                self.schedule.missed(turn.name, self.now_us, turn.timeout_us)
                self.spent.append((self.now_us, turn.timeout_us))
                self.polls.append((turn.name, due_us, self.now_us, False))
            else:
                self.now_us += think_us
                self.schedule.answered(turn.name, self.now_us, think_us)
                self.polls.append((turn.name, due_us, self.now_us, True))
            if self.now_us >= until_us:
                return

    def lags(self, name: str) -> list[int]:
        """How long after its time each answer of a unit was there, sorted."""
        return sorted(
            done - due for one, due, done, answered in self.polls if one == name and answered
        )

    def count(self, name: str) -> int:
        return sum(one == name for one, *_ in self.polls)


UNITS = dict.fromkeys("ABCDE", S)


def test_R19_one_dead_unit_leaves_the_others_their_rhythm():
    line = Line(UNITS, Limits())
    line.dead = {"C"}
    line.run(600 * S)
    for name in "ABDE":
        lags = line.lags(name)
        assert len(lags) in range(598, 602), "one poll a second, none lost"
        assert lags[len(lags) * 99 // 100] < 100_000
        assert lags[-1] <= 400_000, "while it is not known to be dead, once its full time-out"
    assert 10 <= line.count("C") <= 40, "asked less and less often"


def test_a_line_where_most_units_are_dead_still_serves_the_living():
    line = Line({str(at): S for at in range(20)}, Limits(probe_max_us=2 * S))
    line.dead = {str(at) for at in range(2, 20)}
    line.run(600 * S)
    for name in ("0", "1"):
        lags = line.lags(name)
        # 18 units cost three full time-outs each until they are known to be dead: 16 s, once.
        assert len(lags) > 570
        assert lags[len(lags) * 95 // 100] < 350_000
    spent_us = sum(spent for at, spent in line.spent if at > 60 * S)
    assert spent_us <= 0.05 * 540 * S + 600_000, (
        "dead units get their share of the line and no more"
    )


def test_a_unit_that_comes_back_has_its_rhythm_at_once():
    line = Line(UNITS, Limits(probe_max_us=8 * S))
    line.dead = {"C"}
    line.run(120 * S)
    line.dead = set()
    before = line.count("C")
    line.run(180 * S)
    assert line.count("C") - before >= 50, "found within its longest pause"


def test_time_outs_follow_what_a_unit_needs():
    line = Line({"fast": S, "slow": S}, Limits(timeout_us=1_000_000, timeout_min_us=50_000))
    line.think_us = {"fast": 8_000, "slow": 400_000}
    line.run(60 * S)
    units = line.schedule.units
    assert units["fast"].timing.timeout_us(line.schedule._limits) == 50_000
    assert 400_000 <= units["slow"].timing.timeout_us(line.schedule._limits) <= 700_000
    line.dead = {"fast"}
    start = len(line.polls)
    line.run(90 * S)
    first = [done - due for name, due, done, ok in line.polls[start:] if name == "fast"][:1]
    assert first[0] < 600_000, "a known unit is not waited for as long as an unknown one"


def test_a_unit_that_became_slower_is_not_given_up():
    line = Line({"A": S, "B": S}, Limits())
    line.run(30 * S)
    line.think_us["A"] = 250_000
    line.run(60 * S)
    assert not line.schedule.units["A"].is_dead
    assert sum(ok for name, due, _, ok in line.polls if name == "A" and due > 31 * S) > 20


def test_turns_that_were_missed_are_not_made_up_in_a_burst():
    line = Line({"A": S}, Limits())
    line.run(10 * S)
    line.now_us = 60 * S  # back-pressure: nobody asked for 50 s
    before = line.count("A")
    line.run(65 * S)
    assert line.count("A") - before in (5, 6)


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 400_000)), min_size=1, max_size=80),
    st.integers(1, 6), st.integers(50_000, 5 * S),
)  # fmt: skip
def test_whatever_units_do_time_outs_stay_in_their_bounds_and_nobody_is_forgotten(
    events, count, every
):
    limits = Limits()
    schedule = Schedule(
        {str(at): every for at in range(count)}, limits, now_us=0, jitter=lambda: 0.5
    )
    now_us = 0
    for answers, spent_us in events:
        turn = schedule.next(now_us)
        assert limits.timeout_min_us <= turn.timeout_us <= limits.timeout_us
        assert turn.at_us - now_us <= max(every, limits.probe_max_us) + S
        now_us = max(now_us, turn.at_us) + spent_us
        if answers:
            schedule.answered(turn.name, now_us, spent_us)
            assert schedule.units[turn.name].misses == 0
        else:
            schedule.missed(turn.name, now_us, spent_us)
        assert schedule.units[turn.name].due_us > now_us
    assert DEAD_AFTER == 3


# --- totals, profiles and samples -------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "persons"),
    [
        ("rollover_of_sixteen_bits", 5 + 4 + 7),
        ("reboot_to_zero", 7 + 2 + 7),
        ("midnight_reset", 3 + 0 + 4),
        ("swapped_unit_with_a_serial_number", 12 + 5),
        ("swapped_unit_that_tells_no_number", 12 + 3 + 3),
        ("one_garbled_total", 4),
        ("crash_before_the_commit", 7),
    ],
)
def test_the_total_of_each_case_is_exact(case, persons):
    rows = list(run_case(CASES / case, feed_registers))
    assert sum(one["values"].get("in_count") or 0 for one in rows if "values" in one) == persons


@pytest.mark.parametrize("name", names())
def test_profiles_name_points_that_can_be_read(name):
    for point in profile(name).points().values():
        start = parse_address(point.register)
        assert start is not None
        assert start.area.is_bits == (point.type == "bool")


@pytest.mark.skipif(SHARED is None, reason="device samples may be absent")
def test_counter_maps_decode_to_their_values():
    maps = json.loads((SHARED / "device-samples/modbus/counter-maps.json").read_text())
    known = " ".join(profile(name).en for name in names())
    for one in maps["maps"]:
        vendor = one["device"].split()[0]
        assert vendor in known or vendor == "Carlo", "its registers are not published in the sample"
    for case in maps["derived_cases"]:
        if "words" in case:
            assert decode(case["words"], "u32", case["word_order"], "high_first") == case["value"]
        else:
            sequence = case.get("sequence_u16") or case["sequence_u16_daily_reset"]
            assert increments(sequence, daily="reset_at" in case) == case["increments"]


def increments(totals: list[int], *, daily: bool) -> list[int]:
    text = (
        CASES / ("midnight_reset" if daily else "rollover_of_sixteen_bits") / "config.toml"
    ).read_text()
    bench = Bench()
    driver = load(text).drivers[0].make(bench)
    found = []
    at_us = 1_790_006_399_000_000 - (len(totals) // 2) * 20 * S  # 23:59:59 on the site's clock
    for total in totals:
        reading = driver.decode("n1", {(3, 0): total}, at_us)
        bench.commit(reading)
        found.append(reading.rows[0].records[0].values["in_count"])
        at_us += 20 * S
    return found[1:]


@pytest.mark.skipif(SHARED is None, reason="device samples may be absent")
def test_frames_of_manuals_decode_to_their_values():
    frames = json.loads((SHARED / "device-samples/modbus/frames.json").read_text())
    good = 0
    for case in frames["cases"]:
        data = bytes.fromhex(case["response"])
        is_whole = crc(data[:-2]) == data[-2:]
        assert is_whole == (case["crc"] == "ok")
        if not is_whole:
            assert crc(data[:-2]).hex() == case["correct"]
            continue
        good += 1
        registers = [int.from_bytes(data[at : at + 2], "big") for at in range(3, len(data) - 2, 2)]
        assert registers == case.get("registers", registers)
        values = case.get("values", {})
        for at, scale, name in ((0, 10, "humidity"), (0, 10, "moisture"), (1, 10, "temperature"),
                                (2, 1, "ec"), (3, 10, "ph")):  # fmt: skip
            if name in values:
                assert (
                    decode(registers[at : at + 1], "i16", "high_first", "high_first") / scale
                    == values[name]
                )
    assert good == 5


def test_bays_that_were_known_at_the_start_are_believed_for_so_long_only():
    config = (CASES / "bays_in_nibbles/config.toml").read_text()
    bench, plan = Bench(), load(config).drivers[0]
    unit = next(iter(plan.make(bench).units))
    bench.commit(plan.make(bench).decode(unit, {(4, 4): 272, (4, 5): 4096}, bench.now_us))
    decoder = plan.make(bench).units[unit].decoder  # the unit is dead from here on
    stale_us = decoder.source.stale_us
    assert decoder.stale(bench.now_us + stale_us - 1) is None
    reading = decoder.stale(bench.now_us + stale_us)
    assert {one.values["state"] for one in reading.rows[0].records} == {"unknown"}
    assert decoder.stale(bench.now_us + 2 * stale_us) is None


def test_promise_of_a_measurement_is_the_weakest():
    text = (CASES / "types_sentinels_and_digits/config.toml").read_text()
    assert load(text).drivers[0].resources["links"].promise is Promise.C
