"""A driver that hands over the load inside the real agent, and notes how long that took.

Profiles: `load/batches` (hand-overs of `size` records, as fast as they are taken), `load/singles`
(one record a hand-over; each of `producers` waits for its commit before the next), `load/polled`
(`rate` records a second, class D: may wait for the commit delay), `load/text` (500 B and more of
incompressible text a record). `report` is a JSON file written when `total` records are committed.
"""

import asyncio
import json
import os
import random
import resource
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from devices.driver import DriverContext, Promise, Reading, Rows
from devices.loader import DriverPlan, Request, ResourceUse
from protocol.packs import Pack, parse_pack
from protocol.records import Record
from tests.bench.load import KINDS, Load, field, hand_overs, packs

TEXT = "text"


def all_packs() -> dict[str, Pack]:
    """The packs of the load by pack id, for the agent that the bench starts."""
    text = parse_pack(
        {
            "id": "bench.text", "version": 1, "zh": "text", "en": "text", "grade": "shareable",
            "kind": "unstructured", "rhythm": "event", "record_index": [],
            "fields": [field("text", "string", length_max=2000)],
        }
    )  # fmt: skip
    personal = os.environ.get("BENCH_PERSONAL") == "1"
    return {p.id: p for p in (*packs(personal=personal).values(), text)}


class LoadConfig(msgspec.Struct, frozen=True):
    """What `[[device]]` says."""

    id: str
    profile: str
    total: int = 0
    size: int = 100
    producers: int = 64
    rate: float = 1.0
    report: str = ""


class LoadDriver:
    """Hands over what it made before it began, so that making records costs nothing measured."""

    def __init__(self, config: LoadConfig, context: DriverContext) -> None:
        self._config = config
        self._done = context.watermark("done") is not None
        kind = config.profile.partition("/")[2]
        self.promise = Promise.D if kind == "polled" else Promise.A
        self._run = getattr(self, f"_{kind}")
        self._committed = 0
        self._waits: list[float] = []
        self._marks: dict[str, float] = {}

    async def run(self) -> AsyncIterator[Reading]:
        if not self._done:
            async for reading in self._run():
                yield reading
        await asyncio.Event().wait()

    def _begin(self) -> None:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self._marks = {"began": time.time(), "cpu": usage.ru_utime + usage.ru_stime}

    def _count(self, records: int) -> None:
        self._committed += records
        if self._committed >= self._config.total > 0 and self._config.report:
            self._waits.sort()
            p99 = self._waits[int(len(self._waits) * 0.99)] if self._waits else 0.0
            self._marks |= {"committed": time.time(), "p99_s": p99, "records": self._committed}
            partial = Path(self._config.report + ".tmp")
            partial.write_text(json.dumps(self._marks))
            partial.rename(self._config.report)

    async def _batches(self) -> AsyncIterator[Reading]:
        ready = list(hand_overs(self._config.total, self._config.size))
        self._begin()
        for kind, records in ready:
            yield Reading(
                rows=[Rows(resource=kind, records=records)],
                promise=Promise.A,
                ack=lambda n=len(records): self._count(n),  # type: ignore[misc]
            )

    async def _singles(self) -> AsyncIterator[Reading]:
        made = [(k, r) for k, records in hand_overs(self._config.total, 1) for r in records]
        free: deque[int] = deque(range(self._config.producers))
        wake = asyncio.Event()

        def committed(producer: int, began: float) -> None:
            self._waits.append(time.perf_counter() - began)
            free.append(producer)
            wake.set()
            self._count(1)

        self._begin()
        for kind, record in made:
            while not free:
                wake.clear()
                await wake.wait()
            producer, began = free.popleft(), time.perf_counter()
            yield Reading(
                rows=[Rows(resource=kind, records=[record])],
                promise=Promise.A,
                ack=lambda p=producer, b=began: committed(p, b),  # type: ignore[misc]
            )

    async def _polled(self) -> AsyncIterator[Reading]:
        loads = [Load(kind) for kind in KINDS]
        self._begin()
        turn, due = 0, time.monotonic()
        while True:
            due += 1 / self._config.rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            load = loads[turn % len(loads)]
            turn += 1
            record = msgspec.structs.replace(load.take(1)[0], event_time_us=time.time_ns() // 1000)
            yield Reading(
                rows=[Rows(resource=load.kind, records=[record])],
                promise=Promise.D,
                ack=lambda: self._count(1),
            )

    async def _text(self) -> AsyncIterator[Reading]:
        rng = random.Random(1)
        self._begin()
        for at in range(0, self._config.total, self._config.size):
            records = [
                Record(event_time_us=time.time_ns() // 1000 + n, device="text", values={
                    "text": rng.randbytes(400).hex()[:520]})
                for n in range(min(self._config.size, self._config.total - at))
            ]  # fmt: skip
            yield Reading(
                rows=[Rows(resource=TEXT, records=records)],
                promise=Promise.A,
                ack=lambda n=len(records): self._count(n),  # type: ignore[misc]
            )
            await asyncio.sleep(0)


class LoadPlugin:
    """What the entry point names."""

    prefix = "load/"
    tables: tuple[str, ...] = ()

    def __call__(
        self, devices: list[tuple[str, Mapping[str, Any]]], request: Request
    ) -> Iterable[DriverPlan]:
        for _, table in devices:
            config = msgspec.convert(dict(table), LoadConfig)
            names = [TEXT] if config.profile == "load/text" else list(KINDS)
            uses = {
                n: ResourceUse(n, f"bench.{n}", (config.id,), Promise.A) for n in names
            }
            yield DriverPlan(
                name=f"load/{config.id}",
                make=lambda context, config=config: LoadDriver(config, context),
                config=config,
                devices=(config.id,),
                resources=uses,
            )


PLUGIN = LoadPlugin()


def main() -> None:
    """Be `shanmen-agent` with the bench's packs in its dictionary."""
    import agent.plan
    import devices.packs

    delivered = devices.packs.load_packs
    agent.plan.load_packs = lambda: {**delivered(), **all_packs()}
    from agent.cli import main as be_the_agent

    raise SystemExit(be_the_agent())


if __name__ == "__main__":
    main()
