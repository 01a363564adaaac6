"""SIGKILL of the real commands, at random moments and at every named point, while a device produces.

Worlds of some kills each; between them hub and agent simply start again, as systemd would start
them. A world ends with an orderly drain, and the device's books are compared with what the owner
reads with `shanmen read`. How each point is reached stands in `scenarios.py`.
"""

import asyncio
import random
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from protocol.errors import ShanmenError
from tests.faults.points import all_points
from tests.faults.world import World, WorldError
from tests.torture.scenarios import interrupted_enrolment, route
from tests.torture.trial import Kill, Killed, Trial

HITS = 5
RANDOM_KILLS = 60
WORLD_SIZE = {"work": 16, "joining": 30}
BARE = frozenset({"joining", "readmission"})  # groups that begin with an empty hub
WORLD_SIZE_ELSE = 6
ROUNDS = 6


@dataclass(frozen=True)
class Plan:
    """The kills of one world."""

    group: str
    kills: tuple[Kill, ...]
    seed: int


def kills_for(names: Iterable[str], hits: int, at_random: int) -> list[Kill]:
    """`hits` kills at each point, and some at random moments."""
    kills: list[Kill] = []
    for name in names:
        victim, _, point = name.partition(":")
        most = 3 if route(name)[1].__name__ == "at_work" else 1
        kills += [Kill(victim, point, 1 + n % most) for n in range(hits)]
    kills += [Kill(("agent", "hub")[n % 2]) for n in range(at_random)]
    return kills


def plans(kills: Sequence[Kill], seed: int) -> list[Plan]:
    """Kills in worlds: what passes in ordinary work is mixed, what needs a scenario is not."""
    rng = random.Random(seed)
    groups: dict[str, list[Kill]] = {}
    for kill in kills:
        groups.setdefault(route(kill.name)[0], []).append(kill)
    fresh = sorted(groups.pop("fresh", []), key=lambda kill: kill.point, reverse=True)
    work = groups.setdefault("work", []) if fresh else groups.get("work", [])
    rng.shuffle(work)
    made: list[Plan] = []
    for group, members in groups.items():
        if group != "joining":
            rng.shuffle(members)
        else:
            members.sort(key=lambda kill: kill.point, reverse=True)
        size = WORLD_SIZE.get(group, WORLD_SIZE_ELSE)
        count = max(1, -(-len(members) // size))
        if group == "work" and fresh:
            count = max(count, sum(kill.point.endswith("after") for kill in fresh))
        for n in range(count):
            first = tuple(sorted(fresh[n::count], key=lambda k: k.point, reverse=True))
            first = first if group == "work" else ()
            made.append(Plan(group, (*first, *members[n::count]), seed * 1000 + len(made)))
    return [plan for plan in made if plan.kills]


async def ordeal(world: World, plan: Plan, *, inside: bool = False) -> Killed:
    """Run one world through its kills, drain it, compare it; the folder is left to the caller."""
    trial = Trial(world, plan.seed)
    trial.begin()
    try:
        try:
            for kill in plan.kills:
                await route(kill.name)[1](trial, kill)
            if plan.group == "joining":
                await finish_joining(trial)
        except (WorldError, ShanmenError, TimeoutError, KeyError, ValueError, OSError) as error:
            trial.fail(error)
        else:
            await produce_a_little(trial)
            await trial.judge(inside=inside)
    finally:
        await trial.close()
    return trial.outcome


async def finish_joining(trial: Trial) -> None:
    """Whatever was lost on the way: asked once more, owner and gateway are in."""
    await trial.ensure("hub")
    await trial.world.add_owner(await trial.world.owner_token())
    tokens = trial.world.folder / "site-token"
    if not tokens.exists():
        tokens.write_text(await trial.world.site_token())
    await interrupted_enrolment(trial)
    await trial.world.enrol(tokens.read_text())


async def produce_a_little(trial: Trial) -> None:
    """The line works after all this."""
    trial.device.producing = True
    await trial.ensure("hub", "agent")
    before = len(trial.device.books.acked)

    async def more() -> bool:
        return len(trial.device.books.acked) > before + 50

    if not await trial.until(more, 60):
        raise WorldError("nothing is acknowledged any more")


@dataclass
class Bases:
    """Worlds that are copied: with everybody in, and with an empty hub."""

    joined: World
    bare: World

    @classmethod
    async def make(cls, folder: Path, code: Path) -> "Bases":
        joined, bare = World(folder / "base", code), World(folder / "bare", code)
        await asyncio.gather(joined.make(), bare.make_hub())
        return cls(joined, bare)


async def run(
    folder: Path, code: Path, *, seed: int, hits: int = HITS, at_random: int = RANDOM_KILLS,
    only: str = "*", at_once: int = 4,
) -> tuple[list[Killed], set[str]]:  # fmt: skip
    """All kills; results, and the points of the code that were to be hit."""
    bases = await Bases.make(folder, code)
    names = {name for name in all_points(code) if fnmatch(name, only)}
    kills = kills_for(sorted(names), hits, at_random if only == "*" else 0)
    done: list[Killed] = []
    for turn in range(ROUNDS):
        chosen = plans(kills, seed + turn)
        done += await side_by_side(chosen, bases, folder / f"turn-{turn}", at_once)
        counts = counted(done)
        kills = [
            Kill(*name.split(":")) for name in sorted(names) for _ in range(hits - counts[name])
        ]
        if not kills or any(not one.result.ok for one in done):
            break
    return done, names


async def side_by_side(
    chosen: Sequence[Plan], bases: Bases, folder: Path, at_once: int
) -> list[Killed]:
    """Several worlds, some at a time; worlds that kept everything are removed."""
    folder.mkdir(parents=True, exist_ok=True)
    gate = asyncio.Semaphore(at_once)

    async def one(n: int, plan: Plan) -> Killed:
        async with gate:
            base = bases.bare if plan.group in BARE else bases.joined
            world = base.copy(folder / f"{n}-{plan.group}")
            outcome = await ordeal(world, plan)
        print(f"  world {n} {plan.group}: {outcome.kills} kills, {outcome.result}", flush=True)
        if outcome.result.ok:
            shutil.rmtree(world.folder)
        return outcome

    return list(await asyncio.gather(*(one(n, plan) for n, plan in enumerate(chosen))))


def counted(done: Iterable[Killed]) -> Counter[str]:
    """Hits of each point over all worlds."""
    total: Counter[str] = Counter()
    for one in done:
        total.update(one.points)
    return total
