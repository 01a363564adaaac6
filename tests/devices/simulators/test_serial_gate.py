"""The real driver on the simulator's line, with an agent that crashes: every promise is kept.

The simulator is a process of its own; it pulls its plug, hurts frames, and holds tickets twice.
"""

import asyncio
import random
import sys
from contextlib import aclosing
from pathlib import Path

import pytest

from devices.demo.reconcile import reconcile
from devices.driver import DriverError
from devices.kit import load
from devices.serial_line import port as ports
from devices.simulators.books import read_books
from devices.simulators.serial_gate import CHECK_RESOURCE, PLAIN_RESOURCE, SCAN_RESOURCE
from hub.owner.output import plain
from protocol.times import Quality
from tests.devices.simulators.test_drivers_against_books import SmallAgent

NUMBERED = f"""
[[device]]
id = "E1"
profile = "serial_line/gate"
resource = "{CHECK_RESOURCE}"
pack = "ticket.check"
connection = {{ port = "PORT" }}
map = {{ gate_no = {{ const = "E1" }} }}
policy = {{ repeat_window = "2s" }}
"""
PLAIN = f"""
[[device]]
id = "E1"
profile = "serial_line/gate"
resource = "{PLAIN_RESOURCE}"
pack = "ticket.check"
connection = {{ port = "PORT" }}
message = {{ fields = ["time", "ticket", "direction", "result", "persons"] }}
reply = {{ accepted = "\\u0006\\r" }}
policy = {{ dedup_key = [] }}
map = {{ gate_no = {{ const = "E1" }} }}
"""
SCANNER = f"""
[[device]]
id = "E1"
profile = "serial_line/gm65"
resource = "{SCAN_RESOURCE}"
pack = "ticket.check"
connection = {{ port = "PORT" }}
map = {{ ticket_ref = {{ path = "text", transform = "pseudonym" }} }}
"""


async def simulator(folder: Path, kind: str, count: int, *more: str):
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "devices.simulators.serial_gate", "--port", str(folder / "gate"),
        "--books", str(folder / "gate.jsonl"), "--kind", kind, "--count", str(count),
        "--rate", "500", "--baud", "115200", "--patience", "0.3", "--seed", "7", *more,
    )  # fmt: skip


async def pump(agent: SmallAgent, plan, crash: random.Random, gone: asyncio.Task) -> bool:
    """Run one instance until it dies somewhere, or until the simulator is gone; True for that."""
    driver = plan.make(agent)
    lives = crash.randrange(3, 25)
    while True:
        try:
            async with aclosing(driver.run()) as readings:
                while True:
                    coming = asyncio.ensure_future(anext(readings))
                    await asyncio.wait({coming, gone}, return_when=asyncio.FIRST_COMPLETED)
                    if not coming.done():
                        coming.cancel()
                        await asyncio.gather(coming, return_exceptions=True)
                        return True
                    reading = coming.result()
                    lives -= 1
                    if lives == 0 and crash.random() < 0.5:
                        return False  # between arrival and commit
                    agent.commit(reading)
                    if lives == 0:
                        return False  # between commit and answer
                    if reading.ack is not None:
                        reading.ack()
        except DriverError:
            await asyncio.sleep(0)  # the plug is out: the supervisor asks the same instance again


@pytest.mark.parametrize(
    ("kind", "config", "resource"),
    [("numbered", NUMBERED, CHECK_RESOURCE), ("plain", PLAIN, PLAIN_RESOURCE)],
)
async def test_crashing_agent_keeps_the_promise_of_gates(
    tmp_path, monkeypatch, kind, config, resource
):
    monkeypatch.setattr(ports, "LOOK_EVERY_S", 0.02)
    loaded = load(config.replace("PORT", str(tmp_path / "gate")))
    (plan,) = loaded.drivers
    more = ("--trouble", "0.15", "--repeats", "0.3", "--unplug-every", "25")
    process = await simulator(tmp_path, kind, 80, *more)
    gone = asyncio.ensure_future(process.wait())
    agent, crash = SmallAgent(), random.Random(3)
    async with asyncio.timeout(120):
        while not await pump(agent, plan, crash, gone):
            pass
    assert process.returncode == 0
    books = read_books([tmp_path / "gate.jsonl"])
    rows = [plain(one) for one in agent.rows[resource]]
    account = reconcile(books[resource], rows, resource)
    assert account.kept, account
    assert account.acknowledged == account.produced
    # A ticket that is held again is another check where the gate numbers it; all are there.
    marked = [row for row in rows if "maybe_repeat" in row["quality"]]
    if kind == "numbered":
        assert account.produced == account.read > 80
        assert len(marked) >= account.produced - 80
    else:
        assert account.produced == 80
    assert loaded.resources[resource].promise.value == account.promise
    assert {one.reason for one in agent.rejected} & {"bad-checksum", "half-frame"}
    if kind == "plain":
        assert account.repeats_marked > 0


async def test_held_tickets_of_a_scanner_are_one_record_each(tmp_path, monkeypatch):
    monkeypatch.setattr(ports, "LOOK_EVERY_S", 0.02)
    (plan,) = load(SCANNER.replace("PORT", str(tmp_path / "gate"))).drivers
    agent = SmallAgent()
    driver = plan.make(agent)
    process = await simulator(tmp_path, "scanner", 12, "--repeats", "0.5")
    gone = asyncio.ensure_future(process.wait())
    async with aclosing(driver.run()) as readings, asyncio.timeout(60):
        try:
            while not gone.done():
                agent.commit(await anext(readings))
        except DriverError:
            await gone  # it has pulled its plug and ended
    records = agent.rows[SCAN_RESOURCE]
    made = read_books([tmp_path / "gate.jsonl"])[SCAN_RESOURCE]
    assert sum(one.sent for one in made) > len(made) == 12
    # What was scanned before the port was open is lost: class C; nothing comes twice.
    tickets = [record.values["ticket_ref"] for record in records]
    assert len(set(tickets)) == len(tickets) >= 11
    assert all(Quality(record.quality) == Quality.CLOCK_GATEWAY for record in records)
