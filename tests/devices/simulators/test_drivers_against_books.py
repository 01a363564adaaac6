"""The real drivers on a real broker against the simulators' books, with an agent of ten lines that crashes.

What the agent promises (rows, identity and watermarks in one commit, then the acknowledgement) is
done in memory here; what is tested is that driver and broker give it what it needs.
"""

import asyncio
import random
import sys
import tomllib
from contextlib import aclosing
from pathlib import Path

import aiomqtt
import pytest

from devices.demo.reconcile import reconcile
from devices.demo.site import RESOURCES, Wires, write_site
from devices.driver import Promise, Reading
from devices.loader import load_devices
from devices.packs import load_packs
from devices.simulators.books import read_books
from devices.simulators.broker import Broker
from devices.simulators.counters import RESOURCE as COUNTER_RESOURCE
from hub.owner.output import plain
from protocol.records import Record

#: Counters that publish totals: a class of source that the demo has on wires only.
COUNTERS = "".join(
    f"""
[[device]]
id = "counters-{bits}"
profile = "mqtt/json"
resource = "{COUNTER_RESOURCE}"
connection = {{ mqtt = "site", topic = "counters/{bits}/+", device_level = 2 }}
time = {{ device = "ts" }}
[device.map]
line_id = {{ path = "line" }}
in_count = {{ path = "in_total", counter = {{ wrap = {1 << bits}, max_step = 10000 }} }}
out_count = {{ path = "out_total", counter = {{ wrap = {1 << bits}, max_step = 10000 }} }}
"""
    for bits in (16, 32)
)
SEED = 11
MARKER = "E0"
KINDS = ["nats", pytest.param("mosquitto", marks=pytest.mark.needs_mosquitto)]


class Health:
    def seen(self, device: str, at_us: int) -> None: ...
    def changed(self, device: str, state: object, detail: str = "") -> None: ...
    def count(self, device: str, counter: str, by: int = 1) -> None: ...


class SmallAgent:
    """Commits one reading at a time; forgets everything but what was committed."""

    def __init__(self) -> None:
        self.health = Health()
        self.marks: dict[str, bytes] = {}
        self.seen: set[bytes] = set()
        self.rows: dict[str, list[Record]] = {}
        self.rejected: list = []
        self.ended = False

    def watermark(self, source: str) -> bytes | None:
        return self.marks.get(source)

    def clock_us(self) -> int:
        import time

        return time.time_ns() // 1000

    def secret(self, name: str) -> str:
        assert name == "pseudonym"
        return "a secret of the site"

    def commit(self, reading: Reading) -> None:
        if reading.identity is not None:
            if reading.identity in self.seen:
                return
            self.seen.add(reading.identity)
        for one in reading.watermarks:
            self.marks[one.source] = one.value
        for rows in reading.rows:
            self.rows.setdefault(rows.resource, []).extend(rows.records)
        self.rejected += reading.rejected


async def pump(agent: SmallAgent, plan, crash: random.Random | None, quiet_s: float) -> None:
    """Run the driver until nothing came for a while, or until it dies somewhere."""
    lives = crash.randrange(50, 400) if crash else 1 << 60
    driver = plan.make(agent)
    async with aclosing(driver.run()) as readings:
        while True:
            try:
                async with asyncio.timeout(quiet_s):
                    reading = await anext(readings)
            except TimeoutError:
                agent.ended = True
                return
            lives -= 1
            if lives == 0 and crash and crash.random() < 0.5:
                return  # between arrival and commit
            agent.commit(reading)
            if lives == 0:
                return  # between commit and acknowledgement
            if reading.ack is not None:
                reading.ack()


@pytest.mark.parametrize("kind", KINDS)
async def test_crashing_agent_keeps_every_promise(tmp_path: Path, kind: str) -> None:
    broker = Broker(tmp_path / "broker", kind=kind, ack_wait_s=1)
    await broker.start()
    try:
        config = write_site(
            tmp_path,
            data=tmp_path,
            hub="http://127.0.0.1:9",
            broker=broker.url,
            wires=Wires(tmp_path, 1),
            seed=SEED,
        )
        document = tomllib.loads(config.read_text("utf-8") + COUNTERS)
        declared = RESOURCES | {COUNTER_RESOURCE: "visitor.passage"}
        loaded = load_devices(document, load_packs(), declared=declared, folder=tmp_path)
        assert loaded.problems == []
        (plan,) = [one for one in loaded.drivers if one.name.startswith("mqtt")]
        agent = SmallAgent()
        await open_session(plan.make(agent), broker)
        names = {"carpark": 1500, "gates": 600, "counters": 300}
        simulators = [
            await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                f"devices.simulators.{name}",
                "--broker",
                broker.url,
                "--books",
                str(tmp_path / f"{name}.jsonl"),
                "--rate",
                "400",
                "--count",
                str(count),
                "--seed",
                str(SEED),
            )
            for name, count in names.items()
        ]
        crash = random.Random(5)
        while not agent.ended:
            running = any(one.returncode is None for one in simulators)
            await pump(agent, plan, crash if running else None, quiet_s=5 if running else 3)
        for one in simulators:
            assert await one.wait() == 0
        books = read_books(tmp_path / f"{name}.jsonl" for name in names)
        assert set(books) == set(plan.resources)
        assert {one.device for one in agent.rejected} <= {MARKER}
        for resource, made in books.items():
            rows = [plain(one) for one in agent.rows.get(resource, [])]
            account = reconcile(made, rows, resource)
            assert account.kept, (resource, account)
            assert account.acknowledged == account.produced
            assert loaded.resources[resource].promise is Promise(account.promise)
    finally:
        await broker.stop()


async def open_session(driver, broker: Broker) -> None:
    """Let the broker know our persistent session: a marker is published until the driver hears it."""
    async with (
        aclosing(driver.run()) as readings,
        aiomqtt.Client("127.0.0.1", broker.port) as client,
    ):
        heard = asyncio.ensure_future(anext(readings))
        async with asyncio.timeout(20):
            while not heard.done():
                await client.publish(f"gates/{MARKER}/check", b"not JSON", qos=1)
                await asyncio.wait({heard}, timeout=0.05)
