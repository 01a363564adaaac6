"""SIGKILL of the real commands, at random moments and at every named point, while a device produces.

Worlds of some kills each; between them hub and agent simply start again, as systemd would start
them. A world ends with an orderly drain, and the device's books are compared with what the owner
reads. Points that ordinary work does not pass have a scenario (`scenarios.py`) that leads there.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.device import Device
from tests.faults.reconcile import Result, reconcile
from tests.faults.world import World, WorldError

#: A kill armed at a point that is not met within this time is disarmed by hand.
POINT_TIMEOUT_S = 8.0


@dataclass(frozen=True)
class Kill:
    """One SIGKILL to come: at the nth hit of a point, or at a moment."""

    victim: str  # "agent" or "hub"
    point: str = ""  # empty: at a random moment
    nth: int = 1


@dataclass
class Killed:
    """What one world went through and how it ended."""

    result: Result
    kills: int = 0
    points: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)


async def ordeal(world: World, kills: Sequence[Kill], seed: int) -> Killed:
    """Run one world through its kills, drain it, compare it; the folder is left to the caller."""
    rng = random.Random(seed)
    outcome = Killed(Result())
    device = Device(world.device_port)
    running = asyncio.create_task(device.run())
    try:
        for kill in kills:
            await strike(world, kill, rng, outcome)
        for name in ("hub", "agent"):
            if name not in world.children:
                await world.start(name)
        device.producing = False
        async with asyncio.timeout(60):
            await device.drained()
        await world.drained()
        outcome.result = reconcile(device.books, await world.read_all())
    except (WorldError, TimeoutError, KeyError, ValueError) as error:
        outcome.result = Result(unverifiable=[f"{type(error).__name__}: {error}"[:1500]])
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await world.close()
    return outcome


async def strike(world: World, kill: Kill, rng: random.Random, outcome: Killed) -> None:
    """Have both run, the victim armed, and wait for its end."""
    other = "hub" if kill.victim == "agent" else "agent"
    if other not in world.children:
        await world.start(other)
    await world.stop(kill.victim)
    if not kill.point:
        await world.start(kill.victim)
        await asyncio.sleep(rng.uniform(0.05, 1.5))
        await world.kill(kill.victim)
        outcome.kills += 1
        return
    armed = {"SHANMEN_POINT": f"{kill.point}:{kill.nth}"}
    await world.start(kill.victim, wait=False, **armed)
    if await world.died(kill.victim, POINT_TIMEOUT_S):
        outcome.kills += 1
        outcome.points[kill.point] += 1
        world.children.pop(kill.victim)
    else:
        outcome.missed.append(kill.point)
        await world.kill(kill.victim)


async def side_by_side(
    worlds: Sequence[tuple[World, Sequence[Kill]]], seed: int, *, at_once: int = 2
) -> list[Killed]:
    """Several worlds, some at a time; results in order."""
    gate = asyncio.Semaphore(at_once)

    async def one(n: int, world: World, kills: Sequence[Kill]) -> Killed:
        async with gate:
            return await ordeal(world, kills, seed + n)

    return await asyncio.gather(*(one(n, w, k) for n, (w, k) in enumerate(worlds)))


def spread(kills: Sequence[Kill], size: int) -> list[list[Kill]]:
    """The kills in worlds of about `size`, so that neighbours differ."""
    count = max(1, -(-len(kills) // size))
    return [list(kills[n::count]) for n in range(count)]


def folder_for(base: Path, n: int) -> Path:
    return base / f"world-{n}"
