"""The hub is absent for the first seven days, on an injected clock; then everything arrives, once.

The days pass in the agent's core, put together from the files that the real commands made; the week
is then delivered by the real agent to the real hub and read as the owner's tool does.
"""

import asyncio
import gc
import time
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

from agent.core import Core
from agent.host.clock import Clock, SystemState
from agent.host.notify import Notifier
from agent.host.plan import read
from agent.service import put_together
from agent.store.schema import PAGE_BYTES
from tests.faults.device import Books
from tests.faults.line_driver import CHECKS, PASSAGES, TABLE, LineConfig, LineDriver
from tests.faults.reconcile import reconcile
from tests.faults.world import World
from tests.shared import ROOT

DAY_S, DAYS = 86_400, 7
STEP_S = 7_200
WAL_MAX = 16 << 20
ROOM = 1 << 20  # tables, indexes and half-used pages beside the bodies
GROWTH_MAX = 1 << 20  # bytes that the agent's code holds, from the second day's end to the last's


@dataclass
class Days:
    """The clock, which the test moves; and the device's books."""

    wall_us: int
    boot_ns: int = 1_000_000_000
    books: Books = field(default_factory=Books)
    last: dict[str, int] = field(default_factory=lambda: dict.fromkeys("ADE", 0))

    def clock(self) -> Clock:
        return Clock(
            wall=lambda: self.wall_us,
            boot=lambda: self.boot_ns,
            system=lambda: SystemState(synchronised=True, error_us=1000),
        )

    def advance(self, seconds: int) -> None:
        self.wall_us += seconds * 1_000_000
        self.boot_ns += seconds * 1_000_000_000

    def message(self, kind: str) -> dict[str, object]:
        n = self.last[kind] = self.last[kind] + 1
        facts = {"A": {"gate": f"E{n % 3}", "nth": 1 + n % 5}, "D": {"total": n * 3}, "E": {"n": n}}
        made = {"key": f"{kind}{n}", "at": self.wall_us + n % 1000, **facts[kind]}
        self.books.produced[f"{kind}{n}"] = made
        return made


@asynccontextmanager
async def core_of(world: World, days: Days) -> AsyncIterator[Core]:
    """The agent's core on the world's data folder and the days' clock; no driver, no link."""
    text = (world.folder / "agent.toml").read_text().partition("[[device]]")[0]
    plan = read(text, world.folder / "agent.toml")
    parts = await put_together(plan, Notifier({}), days.clock())
    running = asyncio.create_task(parts.core.run())
    try:
        yield parts.core
    finally:
        parts.core.stop()
        await running
        await parts.core.close()
        await parts.client.close()


async def step(core: Core, days: Days, driver: LineDriver) -> None:
    """Two hours: the device gives, is answered, its segments close, the house is kept."""
    given = []
    for kind in "AAAAAAAADDEE" * 2:
        message = days.message(kind)
        key = str(message["key"])
        reading = driver._reading(message, lambda key=key: days.books.acked.add(key))
        given.append(core.pipeline.submit(reading, driver="line/days"))
    await asyncio.gather(*given)
    days.advance(STEP_S)
    while await core.sealer.seal_due():
        pass
    await core.keep_house()


async def test_a_week_without_a_hub_is_kept_in_bounds_and_then_delivered_once(
    base: World, tmp_path: Path
) -> None:
    world = base.copy(tmp_path / "w")
    days = Days(time.time_ns() // 1000 - (DAYS * DAY_S + 3600) * 1_000_000)
    driver = LineDriver(LineConfig(0), SimpleNamespace(watermark=lambda _source: None))
    runs: set[bytes] = set()
    held: list[int] = []
    tracemalloc.start()
    try:
        async with core_of(world, days) as core:
            for day in range(1, DAYS + 1):
                for _ in range(DAY_S // STEP_S):
                    await step(core, days, driver)
                    runs.add(core.main.runs.current.id)
                await in_bounds(core)
                if day in {2, DAYS}:
                    held.append(held_by_the_agent())
            assert held[1] - held[0] <= GROWTH_MAX
            await keys_of_a_week(core, runs)
    finally:
        tracemalloc.stop()
    assert len(days.books.acked) == len(days.books.produced) == DAYS * (DAY_S // STEP_S) * 24

    await world.start("hub")
    await world.start("agent")
    try:
        await world.drained()
        found = await world.status()
        for row in found["resources"]:
            assert row["records"] == row["accepted"] > 0, row
        rows = await world.read_inside()  # every proof, chain and key is checked
    finally:
        await world.close()
    assert str(reconcile(days.books, rows)) == "all kept"


async def in_bounds(core: Core) -> None:
    """The file holds what is due and little else, and is far from what it may take."""
    database = core.main.database
    stats = await core.spool.stats()
    (pages,) = await database.read(lambda c: c.execute("PRAGMA page_count").fetchone())
    (most,) = await database.read(lambda c: c.execute("PRAGMA max_page_count").fetchone())
    (rows,) = await database.read(lambda c: c.execute("SELECT count(*) FROM journal").fetchone())
    assert rows == 0
    assert pages < most
    assert pages * PAGE_BYTES <= 3 * stats.due_bytes + ROOM
    assert database.path.with_name("spool.db-wal").stat().st_size <= WAL_MAX


async def keys_of_a_week(core: Core, runs: set[bytes]) -> None:
    """An epoch key a day, all still needed; a journal key a day, all but the last destroyed."""

    def work(connection):
        epochs = connection.execute(
            "SELECT count(DISTINCT epoch), count(DISTINCT from_us),"
            " count(*) - count(DISTINCT wrapped) FROM epoch_key WHERE resource = ?",
            (core.bounds[CHECKS].id,),
        ).fetchone()
        kept = {row[0] for row in connection.execute("SELECT id FROM run")}
        return epochs, kept

    (epochs, intervals, repeated), kept = await core.main.database.read(work)
    assert epochs == intervals
    assert epochs in {DAYS, DAYS + 1}
    assert not repeated
    assert len(runs) >= DAYS
    assert kept == {core.main.runs.current.id}
    assert core.bounds.keys() == {CHECKS, PASSAGES, TABLE}


def held_by_the_agent() -> int:
    """Bytes that were allocated in the agent's own code and are still held."""
    gc.collect()
    own = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, f"{ROOT}/agent/*")])
    return sum(one.size for one in own.statistics("filename"))
