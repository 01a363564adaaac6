"""Mutants: one line of durability taken away, and the reconciliation must notice, within a budget.

Not an assert on a pragma: the mutated commands run, disks are cut or a hub lies, and what the owner
reads back differs from the device's books. The code as it is passes the same.
"""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.faults.liar import Liar
from tests.faults.reconcile import Result
from tests.faults.world import World
from tests.torture.powercut import cuts, record
from tests.torture.trial import Trial

BUDGET = 60
LIAR_S = 6.0


@dataclass(frozen=True)
class Mutant:
    """A change of the source, and what is done to the mutated line."""

    name: str
    path: str
    old: str
    new: str
    method: str  # "agent" or "hub": whose power is cut; "liar": a hub that lies

    def apply(self, code: Path) -> None:
        """Change a copy of the packages. The pattern must be there exactly once."""
        file = code / self.path
        text = file.read_text("utf-8")
        if text.count(self.old) != 1:
            raise AssertionError(f"{self.name}: {text.count(self.old)} times in {self.path}")
        file.write_text(text.replace(self.old, self.new), "utf-8")


MUTANTS = (
    Mutant(
        "agent: synchronous=OFF", "agent/store/schema.py",
        '"synchronous = FULL"', '"synchronous = OFF"', "agent",
    ),
    Mutant(
        "agent: acknowledged before commit", "agent/intake/journal.py",
        '        await self._database.write("commit"',
        "        acknowledge(group)\n        await asyncio.sleep(0.02)\n"
        '        await self._database.write("commit"',
        "agent",
    ),
    Mutant(
        "agent: body dropped before its receipt is verified", "agent/link/uplink.py",
        "        outcome = self._sync.receive(raw, now_us=self._clock.now_us())\n",
        "        await self._spool._database.write('receipt', lambda c: [\n"
        "            c.execute(f'DELETE FROM {t} WHERE id = ?', (i.ref.row,))\n"
        "            for i in items if i.ref.kind == 'body' for t in ('body', 'content')] and None)\n"
        "        outcome = self._sync.receive(raw, now_us=self._clock.now_us())\n",
        "liar",
    ),
    Mutant(
        "hub: synchronous=OFF", "hub/store/engine.py",
        '"synchronous=FULL",', '"synchronous=OFF",', "hub",
    ),
    Mutant(
        "hub: no fsync of a pack", "hub/store/bodies.py",
        '            os.fsync(handle)\n            point("pack.synced")\n',
        '            point("pack.synced")\n', "hub",
    ),
    Mutant(
        "hub: no fsync of a pack's folder", "hub/store/bodies.py",
        '        point("pack.renamed")\n        sync_folder(path.parent)\n',
        '        point("pack.renamed")\n', "hub",
    ),
)  # fmt: skip


@dataclass
class Caught:
    """What came of one mutant: the first result that is not ok, and how many runs it took."""

    name: str
    result: Result | None
    runs: int

    def __str__(self) -> str:
        how = "SURVIVED" if self.result is None else f"caught by run {self.runs}: {self.result}"
        return f"{self.name}: {how}"


async def hunt(
    mutant: Mutant | None, base: World, folder: Path, seed: int, *, method: str = "",
    budget: int = BUDGET, at_once: int = 4,
) -> Caught:  # fmt: skip
    """Run a mutant (or, with None, the code as it is) until the reconciliation notices."""
    code = base.code
    if mutant is not None:
        method, code = mutant.method, folder / "code"
        for package in ("agent", "hub", "protocol", "devices"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(base.code / package, code / package, ignore=ignored)
        mutant.apply(code)
    name = mutant.name if mutant else f"as it is, {method}"
    folder.mkdir(parents=True, exist_ok=True)
    world = base.copy(folder / "base")
    world.code = code
    run: Callable[..., Awaitable[tuple[Result | None, int]]] = (
        by_liar if method == "liar" else by_cuts
    )
    found, runs = await run(world, folder, seed, method=method, budget=budget, at_once=at_once)
    return Caught(name, found, runs)


async def by_cuts(
    world: World, folder: Path, seed: int, *, method: str, budget: int, at_once: int
) -> tuple[Result | None, int]:
    """Cut the victim's power until something is missing."""
    recording = await record(world, folder, 3.0, seed=seed, ends=())
    done = await cuts(
        recording, folder, budget, seed, victims=(method,), stop_at_first=True, at_once=at_once
    )
    for n, cut in enumerate(done, start=1):
        if not cut.result.ok:
            return cut.result, n
    return None, len(done)


async def by_liar(
    world: World, folder: Path, seed: int, *, method: str, budget: int, at_once: int
) -> tuple[Result | None, int]:
    """A hub that answers half of the batches with what it said to another."""
    del folder, method, budget, at_once
    liar = Liar(world.hub_port, seed)
    await liar.start()
    world.agent_hub_port = liar.port
    world.write_config()
    trial = Trial(world, seed)
    trial.begin()
    try:
        await trial.ensure("hub", "agent")
        await asyncio.sleep(LIAR_S)
        trial.device.producing = False
        with suppress(TimeoutError):
            async with asyncio.timeout(30):
                while liar.lies < 3:
                    await asyncio.sleep(0.1)
        await world.stop("agent")
        world.agent_hub_port = 0
        world.write_config()
        await trial.judge(inside=True)
    finally:
        await trial.close()
        await liar.stop()
    result = trial.outcome.result
    return (None if result.ok else result), 1
