"""Every case folder of every driver: a field report needs no code.

`tests/devices/<driver>/cases/<what_happened>/` with `config.toml` and either `error.txt` or
`input.jsonl` + `expected.jsonl`. A line of input is a message: `topic`, and `json`, `text` or
`hex`, perhaps `dup`, `retained`; of a serial line it is bytes as they come, `quiet` (nothing came
for a while) or `unplug`, and `counters` shows what was counted so far; of modbus it is what one unit
answered: `unit` and `read`, registers from an address on, and `lost: true` is a reading that the
agent never committed. `at` sets the gateway's clock, `restart` begins a new instance on the same
memory, `ack: false` is a crash between commit and acknowledgement.
SHANMEN_WRITE_CASES=1 writes what comes out, to be read before it is committed.
"""

import json
import os
from pathlib import Path
from weakref import WeakKeyDictionary

import msgspec
import pytest

from devices.driver import Reading
from devices.frames import Framer
from devices.kit import Bench, problem_lines, run_case
from devices.modbus.registers import parse_address
from devices.mqtt.decoder import Message
from devices.serial_line.driver import SerialDriver

HERE = Path(__file__).resolve().parent
CASES = sorted(path.parent for path in HERE.glob("*/cases/*/config.toml"))
WRITE = os.environ.get("SHANMEN_WRITE_CASES") == "1"


FRAMERS: WeakKeyDictionary[SerialDriver, Framer] = WeakKeyDictionary()


def feed_registers(driver, bench: Bench, order: dict):
    image = {}
    for text, values in order["read"].items():
        start = parse_address(text)
        image |= {(start.function, start.at + at): value for at, value in enumerate(values)}
    reading = driver.decode(order["unit"], image, bench.clock_us())
    yield Reading() if order.get("lost") else reading


def feed(driver, bench: Bench, order: dict):
    if isinstance(driver, SerialDriver):
        yield from feed_line(driver, bench, order)
    elif "read" in order:
        yield from feed_registers(driver, bench, order)
    else:
        yield from driver.decode(message_of(order), bench.clock_us())


def feed_line(driver: SerialDriver, bench: Bench, order: dict):
    if "counters" in order:
        yield {"counters": {name: n for (_, name), n in sorted(bench.health.counters.items())}}
        return
    if set(order) == {"at"}:
        return
    framer = FRAMERS.setdefault(driver, Framer(driver.source.framing))
    if order.get("unplug"):
        events = framer.close()
        driver.decoder.reconnected()
    elif order.get("quiet"):
        events = framer.idle()
    else:
        events = framer.feed(payload_of(order))
    for event in events:
        decoded = driver.decode(event)
        if decoded is None:
            continue
        sent: list[dict] = []
        answer = decoded.answer
        if answer is None:
            yield decoded.reading
            continue
        yield msgspec.structs.replace(
            decoded.reading, ack=lambda: sent.append({"answer": answer.decode("latin-1")})
        )
        yield from sent


def payload_of(order: dict) -> bytes:
    if "json" in order:
        return json.dumps(order["json"]).encode()
    return bytes.fromhex(order["hex"]) if "hex" in order else order["text"].encode()


def message_of(order: dict) -> Message:
    return Message(
        topic=order["topic"],
        payload=payload_of(order),
        qos=order.get("qos", 1),
        dup=order.get("dup", False),
        retained=order.get("retained", False),
    )


@pytest.mark.parametrize("case", CASES, ids=lambda path: f"{path.parent.parent.name}-{path.name}")
def test_case(case: Path):
    if (case / "input.jsonl").exists():
        found = [json.dumps(line, ensure_ascii=False) for line in run_case(case, feed)]
        expected = case / "expected.jsonl"
    else:
        found = problem_lines(case)
        expected = case / "error.txt"
    if WRITE:
        expected.write_text("".join(line + "\n" for line in found), "utf-8")
    assert found == expected.read_text("utf-8").splitlines()


def test_there_are_cases_of_both_kinds():
    assert any((case / "error.txt").exists() for case in CASES)
    assert any((case / "expected.jsonl").exists() for case in CASES)
