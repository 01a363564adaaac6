"""One world on trial: what a scenario may do to it, and how the trial is judged at its end."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

from protocol.errors import ShanmenError
from tests.faults.device import Device
from tests.faults.reconcile import Result, reconcile
from tests.faults.world import World, WorldError, tail

#: An armed process that does not come to its point within this time is killed by hand: a miss.
POINT_TIMEOUT_S = 20.0
DEVICE_TIMEOUT_S = 120.0
#: How often a scenario whose point was missed is tried again.


@dataclass(frozen=True)
class Kill:
    """One SIGKILL to come: at the nth hit of a point, or at a moment."""

    victim: str  # "agent" or "hub"
    point: str = ""  # empty: at a random moment
    nth: int = 1

    @property
    def name(self) -> str:
        return f"{self.victim}:{self.point}" if self.point else f"{self.victim}:random"


@dataclass
class Killed:
    """What one world went through and how it ended."""

    result: Result = field(default_factory=Result)
    kills: int = 0
    points: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    folder: str = ""
    seed: int = 0


class Trial:
    """A world, its device and the kills so far."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.rng = random.Random(seed)
        self.device = Device(world.device_port)
        self.outcome = Killed(folder=str(world.folder), seed=seed)
        self._running: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Let the device run."""
        self._running = asyncio.create_task(self.device.run())

    async def ensure(self, *names: str) -> None:
        """Have these processes running."""
        for name in names:
            child = self.world.children.get(name)
            if child is not None and child.returncode is not None:
                raise WorldError(f"{name} ended: {tail(self.world.folder / f'{name}.log')}")
            if child is None:
                await self.world.start(name)

    async def quiet(self, *, drain: bool = True) -> None:
        """The device pauses; everything that it said is committed, and with `drain` at the hub."""
        await self.ensure("hub", "agent") if drain else await self.ensure("agent")
        self.device.producing = False
        async with asyncio.timeout(DEVICE_TIMEOUT_S):
            await self.device.drained()
        if drain:
            await self.world.drained()

    async def until(self, holds: Callable[[], Awaitable[bool]], timeout: float = 20.0) -> bool:
        """Wait until something holds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while True:
                    with suppress(WorldError):
                        if await holds():
                            return True
                    await asyncio.sleep(0.02)
        return False

    async def arm(self, kill: Kill, *, ready: bool = False, **env: str) -> None:
        """Start the victim with its kill armed; it may die before it is ready."""
        await self.world.stop(kill.victim)
        env["SHANMEN_POINT"] = f"{kill.point}:{kill.nth}"
        await self.world.start(kill.victim, wait=ready, **env)

    async def fell(self, kill: Kill, timeout: float = POINT_TIMEOUT_S) -> bool:
        """Wait for the victim's end at its point; True if it came."""
        died = await self.world.died(kill.victim, timeout)
        child = self.world.children[kill.victim]
        if died and child.returncode != -9:
            code = child.returncode
            self.world.children.pop(kill.victim)
            if kill.name in STOPPING and code == 0:
                return False
            log = tail(self.world.folder / f"{kill.victim}.log")
            raise WorldError(f"{kill.name}: ended with {code}: {log}")
        await self.world.kill(kill.victim)
        self.count(kill, died)
        return died

    def count(self, kill: Kill, died: bool) -> None:
        """Note a kill, or a miss."""
        if not died:
            self.outcome.missed.append(kill.name)
            return
        self.outcome.kills += 1
        self.outcome.points[kill.name] += 1

    async def judge(self, *, inside: bool = False) -> None:
        """An orderly end: drain, read back, compare."""
        world = self.world
        try:
            await self.quiet()
            rows = await world.read_inside() if inside else await world.read_all()
            self.outcome.result = reconcile(self.device.books, rows)
        except (WorldError, ShanmenError, TimeoutError, KeyError, ValueError) as error:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """What cannot be read back is unverifiable, whatever the cause."""
        log = tail(self.world.folder / "agent.log", 600)
        self.outcome.result = Result(
            unverifiable=[f"{type(error).__name__}: {error}"[:2500] + f"\n{log}"]
        )

    async def close(self) -> None:
        """End everything."""
        if self._running is not None:
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                await self._running
        await self.world.close()


#: Points on the way down: a process that is told to stop may be gone before.
STOPPING = frozenset({"agent:checkpoint.before", "agent:checkpoint.after"})
