"""A hub and an agent with the load driver, set up as in the torture, measured from outside."""

import asyncio
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from devices.demo.proxy import Link
from tests.faults.world import World, WorldError, is_drained
from tests.shared import ROOT

PLUGIN = Path(__file__).with_name("plugin")
BUDGET_S = 900.0

AGENT_TOML = """
data = "{folder}/agent"
owner = "{owner}"

[hub]
url = "http://127.0.0.1:{hub_port}"
retry_min = "100ms"
retry_max = "1s"
batch = "8MiB"

[storage]
budget = "8GiB"
keep_after_receipt = "0s"
{extra}
{resources}
[[device]]
id = "load"
profile = "load/{profile}"
{options}
report = "{folder}/report.json"
"""


@dataclass
class Site(World):
    """One world whose device is the load."""

    profile: str = "batches"
    options: Mapping[str, object] = field(default_factory=dict)
    extra: str = ""
    personal: bool = False
    link_port: int = 0  # of a proxy that counts, when there is one

    def env(self, extra: Mapping[str, str]) -> dict[str, str]:
        more = {"BENCH_PERSONAL": "1" if self.personal else "0", **extra}
        env = super().env(more)
        env["PYTHONPATH"] = os.pathsep.join([str(self.code), str(ROOT), str(PLUGIN)])
        return env

    def words(self, command: str, *args: str) -> list[str]:
        module = {"agent": "tests.bench.load_driver"}.get(command)
        if module is None:
            return super().words(command, *args)
        return [sys.executable, "-P", "-m", module, *args]

    def write_config(self, keep: str = "0s") -> None:
        names = ["text"] if self.profile == "text" else ["checks", "counters", "bays"]
        resources = "".join(f'[[resource]]\nid = "{n}"\npack = "bench.{n}"\n' for n in names)
        (self.folder / "agent.toml").write_text(
            AGENT_TOML.format(
                folder=self.folder,
                owner=(self.folder / "owner.txt").read_text(),
                hub_port=self.link_port or self.hub_port,
                extra=self.extra,
                resources=resources,
                profile=self.profile,
                options="\n".join(f"{k} = {v}" for k, v in self.options.items()),
            )
        )

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

    async def report(self) -> dict[str, float]:
        """The driver's report, once everything is committed."""
        path = self.folder / "report.json"
        async with asyncio.timeout(BUDGET_S):
            while not path.exists():
                if self.children["agent"].returncode is not None:
                    raise WorldError("the agent ended")
                await asyncio.sleep(0.05)
        answer: dict[str, float] = json.loads(path.read_text())
        return answer

    async def accepted_all(self) -> float:
        """Wall time at which the last receipt was committed."""
        async with asyncio.timeout(BUDGET_S):
            while True:
                status = await self.look()
                if is_drained(status):
                    hub = status["hub"]
                    assert isinstance(hub, dict)
                    return float(hub["last_receipt_us"]) / 1e6
                await asyncio.sleep(0.1)

    async def look(self) -> dict[str, object]:
        """The agent's status without a process of its own: starting one would disturb."""
        from agent.status import ask

        return await ask(self.folder / "agent")


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


def now() -> float:
    return time.time()
