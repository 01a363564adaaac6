"""Bad input of every decoder: only declared errors, nothing else, whatever arrives."""

import base64
import copy
import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.counting import CounterRule, CounterState, step
from devices.facets import facets_of
from devices.frames import Framer
from devices.framing import JUNK_BYTES_MAX
from devices.kit import Bench, check_against_packs, check_reading, load
from devices.loader import load_devices
from devices.lorawan.codec import decode
from devices.lorawan.envelope import open_event
from devices.lorawan.profile import names, profile, read_profile
from devices.lorawan.session import Session, place
from devices.mqtt.decoder import Message
from devices.packs import load_packs
from devices.serial_line.recent import Memory
from devices.times import parse, zone_of
from protocol.errors import ConfigError, DecodeError
from tests.devices.fuzz import fuzzing, mutated_bytes, mutated_tree
from tests.devices.test_cases import payload_of
from tests.protocol.fuzzing import attack

HERE = Path(__file__).resolve().parent
PACKS = load_packs()
ZONE = zone_of("Asia/Shanghai")


def cases(driver: str):
    return sorted(path.parent for path in (HERE / driver / "cases").glob("*/input.jsonl"))


def inputs(case: Path) -> list[dict]:
    orders = [json.loads(line) for line in (case / "input.jsonl").read_text().splitlines()]
    return [order for order in orders if "json" in order]


def make(case: Path):
    loaded = load((case / "config.toml").read_text(), folder=case)
    packs_of = {name: use.pack for name, use in loaded.resources.items()}
    bench = Bench()
    return loaded.drivers[0].make(bench), bench, packs_of


GATE = HERE / "mqtt/cases/gate_sends_an_event_again"
COUNTER = HERE / "mqtt/cases/counter_wraps_and_resets"
LOT = HERE / "mqtt/cases/lot_does_not_add_up"
REGISTERS = [HERE / "modbus/cases" / name for name in
             ("types_sentinels_and_digits", "swapped_unit_with_a_serial_number", "bays_in_nibbles")]  # fmt: skip
BAY = HERE / "lorawan/cases/bosch_day"
DOOR = HERE / "lorawan/cases/people_counter_with_history"


@pytest.mark.parametrize("case", [GATE, COUNTER, LOT, BAY, DOOR], ids=lambda c: c.name)
def test_decoder_of_any_message(case):
    driver, bench, packs_of = make(case)
    valid = inputs(case)

    def run(rng):
        order = rng.choice(valid)
        text = json.dumps(mutated_tree(order["json"], rng)).encode()
        if rng.random() < 0.3:
            text = mutated_bytes(text, rng)
        topic = order["topic"] if rng.random() < 0.9 else str(rng.choice(["", "/", "a/\x00", "#"]))
        message = Message(
            topic=topic, payload=text, dup=rng.random() < 0.2, retained=rng.random() < 0.1
        )
        at_us = bench.clock_us() + rng.randrange(-(10**12), 10**12)
        for reading in driver.decode(message, at_us):
            check_reading(reading)
            check_against(reading, packs_of)

    attack(run)


LINES = [HERE / "serial_line/cases" / name for name in (
    "gate_sends_again_after_a_crash", "gate_without_numbers", "scanner_day", "rfid_cards",
    "identity_card_is_minimised",
)]  # fmt: skip


@pytest.mark.parametrize("case", LINES, ids=lambda c: c.name)
def test_decoder_of_any_line(case):
    """Bytes of a reader with flips, cuts, pauses and pulled plugs, over one driver's whole life."""
    driver, bench, packs_of = make(case)
    orders = [json.loads(line) for line in (case / "input.jsonl").read_text().splitlines()]
    valid = [payload_of(order) for order in orders if "hex" in order or "text" in order]
    bound = driver.source.framing.max_bytes + 2 * JUNK_BYTES_MAX + 2048

    def run(rng):
        framer = Framer(driver.source.framing)
        events = []
        for _ in range(rng.randrange(1, 4)):
            data = rng.choice(valid)
            events += framer.feed(mutated_bytes(data, rng) if rng.random() < 0.8 else data)
            events += framer.idle() if rng.random() < 0.3 else []
            assert framer.held_bytes <= bound
        for event in [*events, *framer.close()]:
            bench.now_us += rng.randrange(-(10**6), 10**7)
            decoded = driver.decode(event)
            if decoded is not None:
                check_reading(decoded.reading)
                check_against(decoded.reading, packs_of)

    attack(run)


@fuzzing
@given(st.text(max_size=24))
def test_facets_of_any_text(text):
    found = facets_of(text, "2026-05-01")
    assert found is None or len(found.region) == 6


def check_against(reading, packs_of):
    """What is left after the driver's own checks fits the pack; the agent checks once more."""
    if reading.rows:
        check_against_packs(reading, packs_of)


@pytest.mark.parametrize("case", REGISTERS, ids=lambda c: c.name)
def test_decoder_of_any_registers(case):
    """Any words in any order of time; restarts and registers that were not answered in between."""
    loaded = load((case / "config.toml").read_text())
    packs_of = {name: use.pack for name, use in loaded.resources.items()}
    blocks = loaded.drivers[0].config.units[0].blocks
    places = [(b.start.function, at) for b in blocks for at in range(b.start.at, b.end)]
    bench = Bench()
    driver = loaded.drivers[0].make(bench)

    def run(rng):
        nonlocal driver
        if rng.random() < 0.1:
            for mark, value in list(bench.watermarks.items()):
                bench.watermarks[mark] = mutated_bytes(value, rng) if rng.random() < 0.3 else value
            driver = loaded.drivers[0].make(bench)
        image = {place: rng.choice([0, 1, 0x7FFF, 0x8000, 0xFFFF, rng.randrange(65536)])
                 for place in places if rng.random() < 0.9}  # fmt: skip
        image = {(f, at): value & 1 if f < 3 else value for (f, at), value in image.items()}
        now_us = bench.clock_us() + rng.randrange(-(10**12), 10**12)
        reading = driver.decode("n1", image, now_us)
        check_reading(reading)
        check_against(reading, packs_of)
        bench.commit(reading)
        stale = driver.units["n1"].decoder.stale(now_us + rng.randrange(10**10))
        if stale is not None:
            check_reading(stale)

    attack(run)


@pytest.mark.parametrize("codec", names())
def test_codec_of_any_payload(codec):
    one = profile(codec)
    ports = [p for m in one.message for p in m.ports] or one.ports
    valid = PAYLOADS.get(codec, [])

    def run(rng):
        data = mutated_bytes(rng.choice(valid), rng) if valid else rng.randbytes(rng.randrange(24))
        found = decode(one, rng.choice(ports) if rng.random() < 0.95 else rng.randrange(256), data)
        if not found.faults and one.message:
            # A frame without faults is exactly as long as its table says.
            assert len(data) in {m.length for m in one.message}
        for fault in found.faults:
            assert 0 <= fault.offset <= max(len(data), 255)

    attack(run)


PAYLOADS = {
    "bosch-tps110": ["01", "01ff", "240300007503000000000000001d020301"],
    "dingtek-do200": [
        "800002011500000000016f0079ffb0fff500000081",
        "8000020311000b18020a05a0003c000081",
    ],
    "dingtek-do201": [
        "800031021706b4000001610010fff6fff08b2d00010081",
        "80003103100101181e3c003c14000081",
    ],
    "dingtek-do202": ["800032021706b4000001610010fff6fff08b2d00010081"],
    "imbuildings-people-counter": ["02060004a30b00f0d40e0001000000000020000d000a6a"],
    "parametric-pcr2": ["be010400010002000300041c200ce40139"],
    "milesight-vs121": ["04c903030002"],
    "milesight-vs133": ["03d24800000004d2c800000006d20000000007d20000000005cc0000000008cc00000000"],
    "milesight-vs135": ["03d24800000004d2c80000000cd2b41400000dd28d1a0000"],
    "milesight-vs330": ["01756202820f00038e01048e01"],
    "milesight-vs350": ["84cc011108110185cce803e90301", "20ceff3df16401070002001d000800"],
    "milesight-em400-mud": ["01755c0367010104824408050001"],
    "milesight-em310-udl": ["01755c03824408040001"],
    "milesight-uc300": ["03c816000000040000050000060001070100080101", "ff190702031500"],
}
PAYLOADS = {codec: [bytes.fromhex(one) for one in many] for codec, many in PAYLOADS.items()}


def test_every_codec_has_payloads_to_begin_with():
    assert set(PAYLOADS) == set(names())


def test_envelope_and_session_of_any_event():
    def run(rng):
        event = json.loads((BAY / "input.jsonl").read_text().splitlines()[0])["json"]
        event |= {"fCnt": 3, "confirmed": True, "data": base64.b64encode(b"\x01").decode()}
        text = json.dumps(mutated_tree(event, rng)).encode()
        try:
            found = open_event(
                rng.choice(["up", "join"]), mutated_bytes(text, rng) if rng.random() < 0.3 else text
            )
        except DecodeError:
            return
        if hasattr(found, "f_cnt"):
            state = Session("00189440", 3, rng.randrange(-1, 2**33), 1, 2)
            placed = place(state if rng.random() < 0.5 else None, found)
            assert Session.load(placed.session.dump()) == placed.session

    attack(run)


def test_watermarks_of_any_bytes():
    def run(rng):
        session = Session("00189440", 3, 70_000, 1, 2, state="free").dump()
        counter = CounterState(5, 65536, 0, 1).dump()
        recent = Memory([(b"12345678", 5)], (b"87654321", 6)).dump()
        for kind, good in ((Session, session), (CounterState, counter), (Memory, recent)):
            try:
                kind.load(mutated_bytes(good, rng))
            except DecodeError:
                pass

    attack(run)


@fuzzing
@given(
    st.integers(0, 2**64), st.integers(0, 4 * 10**15), st.integers(0, 2**40), st.integers(2, 2**40),
    st.sampled_from([None, 0, 330, 1439]), st.integers(0, 4 * 10**15), st.booleans(),
    st.sampled_from([0, -10**15, 10**6]),
)  # fmt: skip
def test_counting_of_any_totals(raw, at_us, last, wrap, reset, last_us, known, ahead_us):
    rule = CounterRule(wrap=wrap, reset_minutes=reset)
    state = CounterState(last % wrap, wrap, 0, last_us) if known else None
    done = step(rule, state, raw % wrap, at_us, zone=ZONE, gateway_us=at_us + ahead_us)
    assert done.increment is None or done.increment >= 0


@fuzzing
@given(st.one_of(st.text(max_size=40), st.integers(), st.floats(), st.none(), st.booleans()),
       st.sampled_from(["iso", "epoch_s", "epoch_ms", "epoch_us"]))  # fmt: skip
def test_times_of_anything(value, style):
    found = parse(value, style, ZONE)
    assert found is None or 0 < found < 5 * 10**15


CONFIGS = [
    tomllib.loads((c / "config.toml").read_text())
    for c in (GATE, COUNTER, LOT, BAY, DOOR, *LINES, *REGISTERS)
]


def test_configuration_of_anything():
    def run(rng):
        document = mutated_tree(rng.choice(CONFIGS), rng)
        if not isinstance(document, dict) or "\\ud800" in json.dumps(document):
            return  # TOML has no half of a surrogate pair
        loaded = load_devices(copy.deepcopy(document), PACKS, folder=BAY)
        assert bool(loaded.problems) or loaded.drivers is not None
        for problem in loaded.problems:
            assert problem.value.isprintable()
        for plan in loaded.drivers:
            plan.make(Bench(chirpstack="a:b"))

    attack(run)


def test_profile_of_any_text():
    def run(rng):
        file = rng.choice(sorted((HERE.parents[1] / "devices/profiles").glob("*.toml")))
        text = mutated_bytes(file.read_bytes(), rng).decode("utf-8", "replace")
        try:
            one = read_profile(text, file.name)
        except ConfigError:
            return
        decode(one, 85, rng.randbytes(20))

    attack(run)
