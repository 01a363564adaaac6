"""A driver that hands over the load inside the real agent, and notes how long that took.

Profiles: `load/batches` (hand-overs of `size` records, as fast as they are taken or `rate` records
a second), `load/singles` (one record a hand-over; each of `producers` waits for its commit before
the next), `load/polled` (`rate` records a second, class D: may wait for the commit delay),
`load/text` (incompressible text, 500 B a record and more). `report` is a JSON file written when
`total` records are committed. The records are made before the driver begins, so that making them
costs nothing that is measured; above `distinct` of them they come again.
"""

import asyncio
import gc
import json
import os
import random
import resource
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import msgspec

from devices.driver import Promise, Reading, Rows
from devices.loader import DriverPlan, Request, ResourceUse
from protocol.packs import Pack, parse_pack
from protocol.records import Record
from tests.bench.load import DISTINCT, KINDS, field, hand_overs, packs

TEXT = "text"
TEXT_CHARS = 620  # of 95 kinds: what no compression brings below 500 B
TEXT_DISTINCT = 4_000  # more than a segment holds, so that none compresses against itself
POLLED_DISTINCT = 12_000  # two minutes at 100 a second
LETTERS = bytes(32 + n % 95 for n in range(256))

HandOver = tuple[str, list[Record]]


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
    rate: float = 0.0
    distinct: int = DISTINCT
    report: str = ""


class Counts:
    """Transactions of this process (crash points around COMMIT) and the length of the shim's trace."""

    def __init__(self) -> None:
        self.transactions = 0
        self._trace = os.environ.get("SHIM_TRACE", "")
        if self._trace:
            sys.addaudithook(self._look)

    def _look(self, event: str, args: tuple[object, ...]) -> None:
        if event == "shanmen.point" and str(args[0]).endswith(".before"):
            self.transactions += not str(args[0]).startswith("checkpoint")

    def now(self) -> list[int]:
        return [self.transactions, Path(self._trace).stat().st_size if self._trace else 0]


COUNTS = Counts()


class LoadDriver:
    """One run of the load; after a restart of the agent it does nothing more."""

    def __init__(self, config: LoadConfig) -> None:
        self._config = config
        kind = config.profile.partition("/")[2]
        self.promise = Promise.D if kind == "polled" else Promise.A
        self._run = getattr(self, f"_{kind}")
        self._committed = 0
        self._waits: list[float] = []
        self._marks: dict[str, object] = {}

    def run(self) -> AsyncIterator[Reading]:
        # The generator itself: one more around it would cost what is measured.
        is_over = Path(self._config.report).exists()
        readings: AsyncIterator[Reading] = _nothing() if is_over else self._run()
        return readings

    def _begin(self) -> None:
        gc.collect()
        gc.freeze()  # the load is no part of the agent's own garbage
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self._marks = {"began": time.time(), "cpu": usage.ru_utime + usage.ru_stime}
        self._marks["counts_before"] = COUNTS.now()

    def _count(self, records: int) -> None:
        self._committed += records
        if self._committed >= self._config.total > 0:
            self._waits.sort()
            p99 = self._waits[int(len(self._waits) * 0.99)] if self._waits else 0.0
            self._marks |= {"committed": time.time(), "p99_s": p99, "records": self._committed}
            self._marks["counts"] = COUNTS.now()
            partial = Path(self._config.report + ".tmp")
            partial.write_text(json.dumps(self._marks))
            partial.rename(self._config.report)

    def _reading(self, name: str, records: list[Record]) -> Reading:
        return Reading(
            rows=[Rows(resource=name, records=records)],
            promise=self.promise,
            ack=lambda n=len(records): self._count(n),  # type: ignore[misc]
        )

    async def _batches(self) -> AsyncIterator[Reading]:
        config = self._config
        made = hand_overs(config.total, config.size, distinct=config.distinct)
        first = next(made)  # all are made by now
        self._begin()
        began, handed = time.monotonic(), 0
        for kind, records in _with(first, made):
            yield self._reading(kind, records)
            handed += len(records)
            if config.rate:
                await asyncio.sleep(max(0.0, began + handed / config.rate - time.monotonic()))
        await asyncio.Event().wait()

    async def _text(self) -> AsyncIterator[Reading]:
        config, rng = self._config, random.Random(1)
        made = [
            Record(event_time_us=1_790_000_000_000_000 + n * 20_000, device="text", values={
                "text": rng.randbytes(TEXT_CHARS).translate(LETTERS).decode("ascii")})
            for n in range(TEXT_DISTINCT)
        ]  # fmt: skip
        self._begin()
        endless = cycle(made)
        for _ in range(config.total // config.size):
            yield self._reading(TEXT, list(islice(endless, config.size)))
        await asyncio.Event().wait()

    async def _singles(self) -> AsyncIterator[Reading]:
        config = self._config
        made = hand_overs(config.total, 1, distinct=config.distinct)
        first = next(made)
        free: deque[int] = deque(range(config.producers))
        wake = asyncio.Event()

        def committed(producer: int, began: float) -> None:
            self._waits.append(time.perf_counter() - began)
            free.append(producer)
            wake.set()
            self._count(1)

        self._begin()
        for kind, records in _with(first, made):
            while not free:
                wake.clear()
                await wake.wait()
            producer, began = free.popleft(), time.perf_counter()
            yield Reading(
                rows=[Rows(resource=kind, records=records)],
                promise=Promise.A,
                ack=lambda p=producer, b=began: committed(p, b),  # type: ignore[misc]
            )
        await asyncio.Event().wait()

    async def _polled(self) -> AsyncIterator[Reading]:
        made = cycle(list(hand_overs(POLLED_DISTINCT, 1)))
        self._begin()
        due = time.monotonic()
        for kind, [record] in made:
            due += 1 / self._config.rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            now = msgspec.structs.replace(record, event_time_us=time.time_ns() // 1000)
            yield self._reading(kind, [now])


async def _nothing() -> AsyncIterator[Reading]:
    await asyncio.Event().wait()
    yield Reading()


def _with(first: HandOver, rest: Iterator[HandOver]) -> Iterator[HandOver]:
    yield first
    yield from rest


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
            uses = {n: ResourceUse(n, f"bench.{n}", (config.id,), Promise.A) for n in names}
            yield DriverPlan(
                name=f"load/{config.id}",
                make=lambda _context, config=config: LoadDriver(config),
                config=config,
                devices=(config.id,),
                resources=uses,
            )


PLUGIN = LoadPlugin()


def main() -> None:
    """Be `shanmen-agent` with the bench's packs in its dictionary."""
    limit = int(os.environ.get("BENCH_DATA_BYTES", "0"))
    if limit:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    import agent.host.plan
    import devices.packs

    delivered = devices.packs.load_packs
    agent.host.plan.load_packs = lambda: {**delivered(), **all_packs()}
    from agent.cli import main as be_the_agent

    raise SystemExit(be_the_agent())


if __name__ == "__main__":
    main()
