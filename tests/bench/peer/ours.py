"""Our side: the real agent and the real hub, which is the durable receiver (its last receipt)."""

import asyncio
import json
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

from agent.host.faults import Fault
from tests.bench.peer.settings import TOPIC
from tests.bench.peer.side import Side
from tests.bench.site import AGENT_TOML, CountedLink, Site
from tests.faults.reading import read_inside

#: Received and not yet committed, at most, and the broker's own bound.
IN_FLIGHT = 500
RESOURCE = "gate"

_BROKER = """url = "{url}"
client_id = "bench"
in_flight = {in_flight}"""
_ONE = """
[[mqtt]]
id = "broker"
{broker}
"""
_DEVICE = """
[[resource]]
id = "gate"
pack = "bench.checks"

[[device]]
id = "gates"
profile = "{profile}"
resource = "gate"
connection = {{ {mqtt}topic = "{topic}" }}
time = {{ device = "ts", format = "epoch_ms", trust = "always" }}
policy = {{ dedup_key = ["values.number"] }}
[device.map]
code = {{ path = "values.code" }}
number = {{ path = "values.number" }}
gate = {{ path = "values.gate" }}
direction = {{ path = "values.direction" }}
amount = {{ path = "values.amount" }}
"""
_ARRAYS = """
[device.broker]
id = "broker"
{broker}
"""


def device_toml(url: str, size: int) -> str:
    """The tables of one device that says `size` records a message."""
    broker = _BROKER.format(url=url, in_flight=IN_FLIGHT)
    profile = "mqtt/json" if size == 1 else "arrays/json"
    mqtt = 'mqtt = "broker", ' if size == 1 else ""
    device = _DEVICE.format(profile=profile, mqtt=mqtt, topic=TOPIC)
    table = (_ONE if size == 1 else _ARRAYS).format(broker=broker)
    return table + device if size == 1 else device + table


@dataclass
class BrokerSite(Site):
    """One world whose only device is the topic of the bench."""

    size: int = 1

    def write_config(self, keep: str = "0s") -> None:  # noqa: ARG002 - the world's parameter
        super().write_config(keep)
        if self.broker is None:
            return
        path = self.folder / "agent.toml"
        text = AGENT_TOML.format(
            folder=self.folder,
            owner=(self.folder / "owner.txt").read_text(),
            hub_port=self.link_port or self.hub_port,
            age=self.age,
        )
        path.write_text(text + device_toml(self.broker.url, self.size))


class Ours(Side):
    """Agent and hub of one site, with a counter of bytes between them."""

    name = "shanmen"

    def __init__(self, site: Site) -> None:
        self.site = site
        self._link = CountedLink(site)

    async def start(self) -> None:
        await self.site.make()
        await self._link.__aenter__()
        await self.site.start("hub")
        await self.site.start("agent")

    async def close(self) -> None:
        await self.site.close()
        await self._link.__aexit__()

    async def progress(self) -> int:
        with suppress(Fault):
            rows = (await self.site.look())["resources"]
            assert isinstance(rows, list)
            return sum(int(row["accepted"]) for row in rows)
        return -1

    async def last_at(self) -> float:
        hub = (await self.site.look())["hub"]
        assert isinstance(hub, dict)
        return float(hub["last_receipt_us"]) / 1e6

    @property
    def gateway(self) -> int:
        return self.site.children["agent"].pid

    @property
    def receiver(self) -> int:
        return self.site.children["hub"].pid

    @property
    def wire_bytes(self) -> int:
        return self._link.link.forwarded

    async def kill(self) -> None:
        await self.site.kill("agent")
        await self.site.start("agent")

    async def identities(self) -> Counter[int]:
        """Each id of what the owner reads back, everything verified."""
        found = await read_inside(self.site.folder, RESOURCE)
        return Counter(int(one["number"]) for one in found)

    async def loaded(self) -> tuple[float, float]:
        """When the load driver began, and its CPU seconds until then."""
        path = self.site.folder / "report.json"
        while not path.exists():
            await asyncio.sleep(0.05)
        told = json.loads(path.read_text())
        return float(told["began"]), float(told["cpu"])
