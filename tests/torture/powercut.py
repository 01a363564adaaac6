"""Power cuts replayed: record what really reaches the disks, cut anywhere, start again, compare.

One run of the real commands under the shim is recorded: effects of agent and hub, and what the
device produced and was told, in one order. For a cut the victim's disk is rebuilt as a power cut may
leave it; the other machine's as its process saw it, for it did not lose power. Both are started, the
device comes back with what it was not told `ok` for, and everything must be there once.
"""

import asyncio
import json
import random
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from protocol.errors import ShanmenError
from tests.faults import trace
from tests.faults.build import shim
from tests.faults.device import Device
from tests.faults.disk import Disk
from tests.faults.reconcile import Result, reconcile
from tests.faults.trace import Effect, Op
from tests.faults.world import World, WorldError

PARTS = ("agent", "hub")
DEVICE_TIMEOUT_S = 60.0


@dataclass
class Recording:
    """One recorded run: the world it began with, and all effects since."""

    world: World  # stopped, as it was before the recorded run
    effects: list[Effect]

    @property
    def span(self) -> range:
        """Where a cut can be: after the first thing that the device was told."""
        first = next(i for i, e in enumerate(self.effects) if e.op == Op.EVENT and e.path == "ok")
        return range(first, len(self.effects))


async def record(world: World, folder: Path, seconds: float) -> Recording:
    """Run hub and agent under the shim for some seconds while the device produces."""
    live = world.copy(folder / "live")
    log = folder / "trace"
    marker = trace.Marker(log)
    device = Device(live.device_port, on_ack=lambda key: marker.event("ok", key.encode()))
    device.on_made = lambda message: marker.event("made", json.dumps(message).encode())
    env = {"LD_PRELOAD": str(shim()), "SHIM_ROOT": str(live.folder), "SHIM_TRACE": str(log)}
    await live.start("hub", **env)
    await live.start("agent", **env)
    running = asyncio.create_task(device.run())
    await asyncio.sleep(seconds)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    await live.close()
    marker.close()
    return Recording(world, list(trace.read(log)))


class Replay:
    """Walks a recording once and stops at ascending cuts."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._at = 0
        self._disks = {part: Disk() for part in PARTS}
        for part in PARTS:
            preload(self._disks[part], recording.world.folder / part)
        self._made: dict[str, dict[str, object]] = {}
        self._told: set[str] = set()

    def until(self, at: int) -> None:
        for effect in self._recording.effects[self._at : at + 1]:
            if effect.op == Op.EVENT and effect.path == "made":
                message = json.loads(effect.data)
                self._made[message["key"]] = message
            elif effect.op == Op.EVENT:
                self._told.add(effect.data.decode())
            else:
                part = effect.path.split("/")[1] if "/" in effect.path else ""
                if part in PARTS:
                    inside = effect.path[len(part) + 1 :]
                    data = effect.data
                    if effect.op == Op.RENAME:
                        data = data[len(part) + 1 :]
                    self._disks[part].feed(
                        Effect(effect.op, inside, effect.pid, effect.offset, data)
                    )
        self._at = at + 1

    def disks(self, victim: str, target: Path, rng: random.Random) -> None:
        """Write the world as the cut leaves it."""
        source = self._recording.world.folder
        target.mkdir(parents=True)
        for path in source.iterdir():
            if path.is_file():
                shutil.copy(path, target / path.name)
        for part, disk in self._disks.items():
            if part == victim:
                disk.after_cut(target / part, rng)
            else:
                disk.whole(target / part)
            for folder in ("", *disk.folders):
                (target / part / folder.lstrip("/")).chmod(0o700)

    def device(self, port: int) -> Device:
        """The device as it stood: what it produced, what it was told."""
        return Device.resumed(port, dict(self._made), set(self._told))


def preload(disk: Disk, folder: Path) -> None:
    """What was on the disk before the recording is safe."""
    for path in sorted(folder.rglob("*")):
        name = "/" + str(path.relative_to(folder))
        if path.is_dir():
            disk.feed(Effect(Op.MKDIR, name, 0, 0, b""))
        elif path.is_file():
            disk.feed(Effect(Op.CREATE, name, 0, 0, b""))
            disk.feed(Effect(Op.WRITE, name, 0, 0, path.read_bytes()))
            disk.files[name].sync()
    for folder_name in ("", *disk.folders):
        disk.feed(Effect(Op.DIRSYNC, folder_name, 0, 0, b""))
    disk.syncs = 0


async def after_cut(world: World, device: Device) -> Result:
    """Start both, let the device say the rest, drain, read, compare."""
    running = None
    try:
        await asyncio.gather(world.start("hub"), world.start("agent"))
        device.producing = False
        running = asyncio.create_task(device.run())
        async with asyncio.timeout(DEVICE_TIMEOUT_S):
            await device.drained()
        await world.drained()
        return reconcile(device.books, await world.read_inside())
    except (WorldError, ShanmenError, TimeoutError, KeyError, ValueError) as error:
        return Result(unverifiable=[f"{type(error).__name__}: {error}"[:1500]])
    finally:
        if running is not None:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
        await world.close()


@dataclass
class Cut:
    """One power cut and what came of it."""

    at: int
    victim: str
    seed: int
    result: Result


async def cuts(
    recording: Recording, folder: Path, count: int, seed: int, *, side_by_side: int = 2,
    victims: Sequence[str] = PARTS, stop_at_first: bool = False,
) -> list[Cut]:  # fmt: skip
    """Cut at `count` random moments, some at a time; a folder that failed is kept."""
    rng = random.Random(seed)
    moments = sorted(rng.choices(recording.span, k=count))
    replay, done = Replay(recording), []
    gate = asyncio.Semaphore(side_by_side)

    async def one(n: int, at: int, victim: str, world: World, device: Device) -> None:
        async with gate:
            result = await after_cut(world, device)
        done.append(Cut(at, victim, seed, result))
        if result.ok:
            shutil.rmtree(world.folder)

    async with asyncio.TaskGroup() as tasks:
        for n, at in enumerate(moments):
            async with gate:
                if stop_at_first and any(not c.result.ok for c in done):
                    break
                replay.until(at)
                victim = victims[n % len(victims)]
                target = folder / f"cut-{n}-{at}-{victim}"
                replay.disks(victim, target, rng)
                world = World(target, recording.world.code)
                world.write_config()
                device = replay.device(world.device_port)
            tasks.create_task(one(n, at, victim, world, device))
            await asyncio.sleep(0)
    return done
