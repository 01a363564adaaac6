"""Every case folder of every driver: a field report needs no code.

`tests/devices/<driver>/cases/<what_happened>/` with `config.toml` and either `error.txt` or
`input.jsonl` + `expected.jsonl`. A line of input is a message: `topic`, and `json`, `text` or
`hex`, perhaps `dup`, `retained`; `at` sets the gateway's clock, `restart` begins a new instance on
the same memory, `ack: false` is a crash between commit and acknowledgement.
SHANMEN_WRITE_CASES=1 writes what comes out, to be read before it is committed.
"""

import json
import os
from pathlib import Path

import pytest

from devices.kit import Bench, problem_lines, run_case
from devices.mqtt.decoder import Message

HERE = Path(__file__).resolve().parent
CASES = sorted(path.parent for path in HERE.glob("*/cases/*/config.toml"))
WRITE = os.environ.get("SHANMEN_WRITE_CASES") == "1"


def feed(driver, bench: Bench, order: dict):
    if "json" in order:
        payload = json.dumps(order["json"]).encode()
    else:
        payload = bytes.fromhex(order["hex"]) if "hex" in order else order["text"].encode()
    message = Message(
        topic=order["topic"],
        payload=payload,
        qos=order.get("qos", 1),
        dup=order.get("dup", False),
        retained=order.get("retained", False),
    )
    return driver.decode(message, bench.clock_us())


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
