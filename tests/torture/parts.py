"""Each part runs, prints what went wrong, and adds its figures."""

import asyncio
import os
import shutil
import sys
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import Protocol

from devices.demo.figures import Figures
from tests.faults.reconcile import Result
from tests.faults.world import World
from tests.shared import ROOT
from tests.torture import kills as killing
from tests.torture import mutants as hunting
from tests.torture import powercut as cutting
from tests.torture import stops as stopping

FUZZ_EXAMPLES = 20_000
CONTROL_CUTS = 16
STOPS = 50
NOTHING_COLLECTED = 5


class Options(Protocol):
    """What a part is told."""

    @property
    def folder(self) -> Path: ...
    @property
    def code(self) -> Path: ...
    @property
    def seed(self) -> int: ...
    @property
    def only(self) -> str: ...
    @property
    def hits(self) -> int: ...
    @property
    def cuts(self) -> int: ...
    @property
    def at_once(self) -> int: ...


async def kills(options: Options, figures: Figures) -> None:
    """SIGKILLs at every named point and at random."""
    done, names = await killing.run(
        options.folder / "kills", options.code, seed=options.seed, hits=options.hits,
        only=options.only, at_once=options.at_once,
    )  # fmt: skip
    base = World(options.folder / "kills" / "base", options.code)
    world = base.copy(options.folder / "kills" / "stops")
    stopped, slowest = await stopping.under_load(world, options.seed, STOPS)
    print(f"  {STOPS} x SIGTERM, slowest {slowest:.1f} s: {stopped}", flush=True)
    figures.add("stops", STOPS)
    figures.add("slowest_stop_s", round(slowest, 2))
    counts = killing.counted(done)
    for one in done:
        if not one.result.ok:
            print(f"  {one.folder} (seed {one.seed}): {one.result}\n    {one.result.unverifiable}")
    missed = sorted(name for name in names if counts[name] < options.hits)
    if missed:
        print("  hit too seldom:", ", ".join(f"{name} {counts[name]}" for name in missed))
    figures.add("kills", sum(one.kills for one in done))
    figures.add("points", sum(counts[name] > 0 for name in names))
    figures.add("hits_of_rarest_point", min((counts[name] for name in names), default=0))
    figures.add("points_not_hit", sum(counts[name] == 0 for name in names))
    add_results(figures, "kills", [*(one.result for one in done), stopped])


def add_results(figures: Figures, part: str, results: Iterable[Result]) -> None:
    """Lost, duplicated, unverifiable over all worlds; altered and unknown count as unverifiable."""
    found = list(results)
    figures.add(f"{part}_records", sum(one.records for one in found), "records read back")
    figures.add(f"{part}_lost", sum(len(one.lost) for one in found))
    figures.add(f"{part}_duplicated", sum(len(one.duplicated) for one in found))
    figures.add(
        f"{part}_unverifiable",
        sum(len(one.unverifiable) + len(one.altered) + len(one.unknown) for one in found),
    )


async def powercut(options: Options, figures: Figures) -> None:
    """Power cuts replayed."""
    folder = options.folder / "powercut"
    base = World(folder / "base", options.code)
    await base.make()
    done = await cutting.run(
        base, folder, count=options.cuts, seed=options.seed, at_once=options.at_once
    )
    for cut in done:
        if not cut.result.ok:
            print(f"  {cut.folder} ({cut.kind}): {cut.result}\n    {cut.result.unverifiable}")
    figures.add("cuts", len(done))
    for kind in ("checkpoint", "boot"):
        figures.add(f"cuts_in_{kind}", sum(cut.kind == kind for cut in done), "cuts")
    for victim in cutting.PARTS:
        figures.add(f"cuts_of_{victim}", sum(cut.victim == victim for cut in done), "cuts")
    add_results(figures, "powercut", (cut.result for cut in done))


async def mutants(options: Options, figures: Figures) -> None:
    """Mutants that must be caught; the code as it is must pass the same seeds."""
    folder = options.folder / "mutants"
    base = World(folder / "base", options.code)
    await base.make()
    chosen = [m for m in hunting.MUTANTS if fnmatch(m.name, options.only)]
    survivors = 0
    for n, mutant in enumerate(chosen):
        caught = await hunting.hunt(
            mutant, base, folder / str(n), options.seed + n, at_once=options.at_once
        )
        survivors += caught.result is None
        print(f"  {caught}", flush=True)
        shutil.rmtree(folder / str(n))
    controls = 0
    for n, method in enumerate(sorted({m.method for m in chosen})):
        control = await hunting.hunt(
            None, base, folder / method, options.seed + n, method=method,
            budget=CONTROL_CUTS, at_once=options.at_once,
        )  # fmt: skip
        print(f"  {control.name}: {control.result or 'all kept'}", flush=True)
        controls += control.result is not None
    figures.add("mutants", len(chosen))
    figures.add("survivors", survivors)
    figures.add("unmutated_caught", controls)


async def fuzz(options: Options, figures: Figures) -> None:
    """The fuzz tests, with ten times the examples; two processes share the files."""
    files = sorted(
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("test_*.py")
        if path.name.startswith("test_fuzz") or "SHANMEN_FUZZ_EXAMPLES" in path.read_text("utf-8")
    )
    env = {**os.environ, "SHANMEN_FUZZ_EXAMPLES": str(FUZZ_EXAMPLES)}
    # The longest first, so that the two workers end together.
    waiting = sorted(files, key=lambda path: (not path.startswith("tests/devices"), path))

    async def worker() -> int:
        failed = 0
        while waiting:
            path = waiting.pop(0)
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", path, cwd=ROOT, env=env,
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            )  # fmt: skip
            out, _ = await child.communicate()
            said = out.decode().strip().splitlines()
            print(f"  {path}: {said[-1] if said else ''}", flush=True)
            if child.returncode not in (0, NOTHING_COLLECTED):
                failed += 1
                print("\n".join(said[-40:]))
        return failed

    failures = sum(await asyncio.gather(worker(), worker()))
    figures.add("examples", FUZZ_EXAMPLES)
    figures.add("failures", failures)
