"""A hub and an agent with the load driver, set up as in the torture, measured from outside."""

import asyncio
import json
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from agent.commands.status import ask
from agent.host.faults import Fault
from devices.demo.proxy import Link
from devices.simulators.books import Book
from devices.simulators.broker import Broker
from devices.simulators.publisher import Message, Publisher
from tests.bench.cgroup import Cgroup
from tests.bench.load import Load
from tests.faults.world import World, WorldError, is_drained, tail
from tests.shared import ROOT

PLUGIN = Path(__file__).with_name("plugin")
BUDGET_S = 900.0
QUIET_S = 0.5  # between looks at the agent: each costs it 2 ms

AGENT_TOML = """
data = "{folder}/agent"
owner = "{owner}"

[hub]
url = "http://127.0.0.1:{hub_port}"
retry_min = "100ms"
retry_max = "1s"

[storage]
budget = "8GiB"
keep_after_receipt = "0s"

[seal]
age = "{age}"
"""
LOAD_TOML = """
[[device]]
id = "load"
profile = "load/{profile}"
report = "{folder}/report.json"
{options}
"""
MQTT_TOML = """
[[resource]]
id = "gate"
pack = "bench.checks"

[[mqtt]]
id = "broker"
url = "{url}"
client_id = "bench"
[[device]]
id = "gate"
profile = "mqtt/json"
resource = "gate"
connection = {{ mqtt = "broker", topic = "gate/+", device_level = 1 }}
time = {{ device = "ts", format = "epoch_us", trust = "always" }}
policy = {{ dedup_key = ["id"] }}
[device.map]
code = {{ path = "code" }}
number = {{ path = "number" }}
gate = {{ path = "gate" }}
direction = {{ path = "direction" }}
amount = {{ path = "amount" }}
"""


@dataclass
class Site(World):
    """One world whose device is the load (profile), the broker, or both."""

    profile: str = "batches"
    options: Mapping[str, object] = field(default_factory=dict)
    age: str = "60s"
    personal: bool = False
    broker: Broker | None = None
    cgroup: Cgroup | None = None  # what the agent runs in from its next start on
    link_port: int = 0  # of a proxy that counts, when there is one
    ready_at: dict[str, float] = field(default_factory=dict)  # wall time of READY by program

    def env(self, extra: Mapping[str, str]) -> dict[str, str]:
        more = {"BENCH_PERSONAL": "1" if self.personal else "0", **extra}
        env = super().env(more)
        env["PYTHONPATH"] = os.pathsep.join([str(self.code), str(ROOT), str(PLUGIN)])
        return env

    async def start(self, name: str, *, wait: bool = True, **env: str) -> None:
        await super().start(name, wait=wait, **env)
        self.ready_at[name] = time.time()

    def words(self, command: str, *args: str) -> list[str]:
        module = {"agent": "tests.bench.load_driver"}.get(command)
        if module is None:
            return super().words(command, *args)
        own = [sys.executable, "-P", "-m", module, *args]
        return own if self.cgroup is None else self.cgroup.words(own)

    def write_config(self, keep: str = "0s") -> None:  # noqa: ARG002 - the world's parameter
        text = AGENT_TOML.format(
            folder=self.folder,
            owner=(self.folder / "owner.txt").read_text(),
            hub_port=self.link_port or self.hub_port,
            age=self.age,
        )
        if self.profile:
            names = ["text"] if self.profile == "text" else ["checks", "counters", "bays"]
            text += "".join(f'[[resource]]\nid = "{n}"\npack = "bench.{n}"\n' for n in names)
            options = "\n".join(f"{k} = {v}" for k, v in self.options.items())
            text += LOAD_TOML.format(folder=self.folder, profile=self.profile, options=options)
        if self.broker is not None:
            text += MQTT_TOML.format(url=self.broker.url)
        (self.folder / "agent.toml").write_text(text)

    def process(self, name: str) -> psutil.Process:
        return psutil.Process(self.children[name].pid)

    def cpu_s(self, name: str) -> float:
        """User and system seconds of one process so far."""
        times = self.process(name).cpu_times()
        return float(times.user + times.system)

    def tree_bytes(self, name: str) -> int:
        """Resident bytes of a process and its children: what the machine misses."""
        process = self.process(name)
        return sum(p.memory_info().rss for p in (process, *process.children(recursive=True)))

    def written_bytes(self, name: str) -> int:
        """Bytes that the kernel wrote, or will write, to a device for a process."""
        return int(self.process(name).io_counters().write_bytes)

    async def report(self) -> dict[str, float]:
        """The driver's report, once everything is committed."""
        path = self.folder / "report.json"
        async with asyncio.timeout(BUDGET_S):
            while not path.exists():
                self._must_run("agent")
                await asyncio.sleep(0.05)
        answer: dict[str, float] = json.loads(path.read_text())
        return answer

    async def accepted_all(self) -> float:
        """Wall time at which the last receipt was committed."""
        hub = (await self._once(is_drained))["hub"]
        assert isinstance(hub, dict)
        return float(hub["last_receipt_us"]) / 1e6

    async def sealed_all(self) -> dict[str, object]:
        """Until the journal is empty; the last look."""
        return await self._once(lambda found: not found["spool"]["journal"])  # type: ignore[index]

    async def first_accepted(self) -> float:
        """Wall time at which a look showed the first accepted record of any resource."""
        async with asyncio.timeout(BUDGET_S):
            while True:
                with suppress(Fault):
                    found = await self.look()
                    if any(one["accepted"] for one in found["resources"]):  # type: ignore[attr-defined]
                        return time.time()
                self._must_run("agent")
                await asyncio.sleep(0.02)

    async def look(self) -> dict[str, object]:
        """The agent's status without a process of its own: starting one would disturb."""
        return await ask(self.folder / "agent")

    async def _once(self, is_so) -> dict[str, object]:  # type: ignore[no-untyped-def]
        async with asyncio.timeout(BUDGET_S):
            while True:
                found = await self.look()
                if is_so(found):
                    return found
                self._must_run("agent")
                await asyncio.sleep(QUIET_S)

    def _must_run(self, name: str) -> None:
        if self.children[name].returncode is not None:
            raise WorldError(f"{name} ended: {tail(self.folder / f'{name}.log')}")


async def make(folder: Path, **options: object) -> Site:
    """A site that is set up and stopped."""
    site = Site(folder, **options)  # type: ignore[arg-type]
    await site.make()
    return site


async def peak(site: Site, name: str, until: "asyncio.Task[object]") -> int:
    """The largest resident size of a process tree while a task runs."""
    most = 0
    while not until.done():
        most = max(most, site.tree_bytes(name))
        await asyncio.wait({until}, timeout=0.05)
    return most


class CountedLink:
    """The demo's proxy as a counter of TCP payload, both directions."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.link = Link(site.hub_port)

    async def __aenter__(self) -> Link:
        link = await self.link.__aenter__()
        self._site.link_port = link.port
        self._site.write_config()
        return link

    async def __aexit__(self, *about: object) -> None:
        await self.link.__aexit__(*about)


async def publish(url: str, rate: float, book: Path) -> None:
    """Ticket checks to `gate/<device>`, QoS 1, `rate` a second, until cancelled."""
    load, number, due = Load("checks"), 0, time.monotonic()
    async with Publisher(url, "bench-gates", Book(book)) as publisher:
        while True:
            due += 1 / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            number += 1
            [record] = load.take(1)
            said = {"id": f"{number}", "ts": time.time_ns() // 1000, **record.values}
            topic = f"gate/{record.values['gate']}"
            await publisher.send(Message("", topic, json.dumps(said).encode()))
