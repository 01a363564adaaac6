"""SIGTERM under load, again and again: gone within its bound, and nothing is missing."""

import asyncio
import time

from tests.faults.reconcile import Result
from tests.faults.world import World, WorldError
from tests.torture.trial import Trial

#: What `World.stop` waits at most.
STOPPED_BY_FORCE_S = 30.0


async def under_load(world: World, seed: int, count: int) -> tuple[Result, float]:
    """Stop the agent `count` times while the device produces; result, and the slowest stop in s."""
    trial = Trial(world, seed)
    trial.begin()
    slowest = 0.0
    try:
        await trial.ensure("hub")
        for _ in range(count):
            await trial.ensure("agent")
            await asyncio.sleep(trial.rng.uniform(0.05, 0.6))
            began = time.monotonic()
            await world.stop("agent")
            slowest = max(slowest, time.monotonic() - began)
        await trial.judge(inside=True)
    except WorldError as error:
        trial.fail(error)
        slowest = max(slowest, STOPPED_BY_FORCE_S)
    finally:
        await trial.close()
    return trial.outcome.result, slowest
