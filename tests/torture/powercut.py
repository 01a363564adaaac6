"""Power cuts replayed: record what really reaches the disks, cut anywhere, start again, compare.

Runs of the real commands under the shim are recorded: effects of agent and hub, and what the device
produced and was told, in one order; with kills and orderly stops in between, so that boots and
checkpoints are in it. For a cut the victim's disk is rebuilt as a power cut may leave it; the other
machine's as its process saw it, for it did not lose power. Both are started, the device comes back
with what it was not told `ok` for, and everything must be there once.
"""

import asyncio
import functools
import json
import random
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from protocol.errors import ShanmenError
from tests.faults import trace
from tests.faults.build import shim
from tests.faults.device import Device
from tests.faults.disk import Disk
from tests.faults.reconcile import Result, reconcile
from tests.faults.trace import Effect, Op
from tests.faults.world import World, WorldError, tail

PARTS = ("agent", "hub")
DEVICE_TIMEOUT_S = 120.0
#: Shares of the cuts that are put inside a checkpoint and into a boot; the rest falls anywhere.
CHECKPOINT_SHARE, BOOT_SHARE = 0.2, 0.15
DATABASES = frozenset({"/agent/spool.db", "/hub/hub.db"})


@dataclass
class Recording:
    """One recorded run: the world it began with, and all effects since."""

    world: World  # stopped, as it was before the recorded run
    effects: list[Effect]
    made: dict[str, dict[str, object]] = field(default_factory=dict)  # before it began
    told: set[str] = field(default_factory=set)

    @functools.cached_property
    def span(self) -> range:
        """Where a cut can be: after the first thing that the device was told."""
        first = next(i for i, e in enumerate(self.effects) if e.op == Op.EVENT and e.path == "ok")
        return range(first, len(self.effects))

    def inside_checkpoints(self) -> list[int]:
        """Moments between a write into a database itself (not its log) and the sync after it."""
        found: list[int] = []
        open_since: dict[str, int] = {}
        for at, effect in enumerate(self.effects):
            if effect.path not in DATABASES:
                continue
            if effect.op == Op.WRITE:
                found.append(at)
                open_since[effect.path] = at
            elif effect.op == Op.SYNC and effect.path in open_since:
                found += range(open_since.pop(effect.path) + 1, at)
        return [at for at in found if at in self.span]

    def boots(self) -> list[int]:
        """Moments between a start and what was first told after it."""
        found: list[int] = []
        since: int | None = None
        for at, effect in enumerate(self.effects):
            if effect.op == Op.EVENT and effect.path == "start":
                since = at
            elif effect.op == Op.EVENT and effect.path == "ok" and since is not None:
                found += range(since, at)
                since = None
        return [at for at in found if at in self.span]


ENDS = ("agent kill", "hub kill", "agent stop", "hub stop")


async def record(
    world: World, folder: Path, seconds: float, *, seed: int, device: Device | None = None,
    ends: Sequence[str] = ENDS,
) -> Recording:  # fmt: skip
    """Run hub and agent under the shim while the device produces; some kills and stops on the way."""
    rng = random.Random(seed)
    live = world.copy(folder / "live")
    log = folder / "trace"
    marker = trace.Marker(log)
    device = device or Device(live.device_port)
    device.port = live.device_port
    recording = Recording(world, [], dict(device.books.produced), set(device.books.acked))
    device.tell(
        on_ack=lambda key: marker.event("ok", key.encode()),
        on_made=lambda message: marker.event("made", json.dumps(message).encode()),
    )
    env = {"LD_PRELOAD": str(shim()), "SHIM_ROOT": str(live.folder), "SHIM_TRACE": str(log)}

    async def start(name: str) -> None:
        marker.event("start", name.encode())
        await live.start(name, **env)

    await start("hub")
    await start("agent")
    running = asyncio.create_task(device.run())
    try:
        await asyncio.sleep(seconds)
        for name, _, how in (end.partition(" ") for end in ends):
            await (live.kill(name) if how == "kill" else live.stop(name))
            await start(name)
            await asyncio.sleep(rng.uniform(0.5, 1.5))
        await asyncio.sleep(seconds / 2)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await live.close()
        marker.close()
    recording.effects = list(trace.read(log))
    log.unlink()
    shutil.rmtree(live.folder)
    return recording


class Replay:
    """Walks a recording once and stops at ascending cuts."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._at = 0
        self._disks = {part: Disk() for part in PARTS}
        for part in PARTS:
            preload(self._disks[part], recording.world.folder / part)
        self._made = dict(recording.made)
        self._told = set(recording.told)

    def until(self, at: int) -> None:
        for effect in self._recording.effects[self._at : at + 1]:
            if effect.op == Op.EVENT:
                if effect.path == "made":
                    message = json.loads(effect.data)
                    self._made[message["key"]] = message
                elif effect.path == "ok":
                    self._told.add(effect.data.decode())
                continue
            part = effect.path.split("/")[1] if "/" in effect.path else ""
            if part in PARTS:
                inside = effect.path[len(part) + 1 :]
                data = effect.data
                if effect.op == Op.RENAME:
                    data = data[len(part) + 1 :]
                self._disks[part].feed(Effect(effect.op, inside, effect.pid, effect.offset, data))
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
        logs = tail(world.folder / "agent.log", 800) + tail(world.folder / "hub.log", 800)
        return Result(unverifiable=[f"{type(error).__name__}: {error}"[:1500] + f"\n{logs}"])
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
    kind: str
    result: Result
    folder: str = ""


def moments(recording: Recording, count: int, rng: random.Random) -> list[tuple[int, str]]:
    """Where to cut, ascending: inside checkpoints, in boots, anywhere."""
    pools = {"checkpoint": recording.inside_checkpoints(), "boot": recording.boots()}
    shares = {"checkpoint": CHECKPOINT_SHARE, "boot": BOOT_SHARE}
    found: list[tuple[int, str]] = []
    for kind, pool in pools.items():
        if pool:
            found += [(at, kind) for at in rng.choices(pool, k=int(count * shares[kind]))]
    found += [(at, "any") for at in rng.choices(recording.span, k=count - len(found))]
    return sorted(found)


async def cuts(
    recording: Recording, folder: Path, count: int, seed: int, *, at_once: int = 4,
    victims: Sequence[str] = PARTS, stop_at_first: bool = False,
) -> list[Cut]:  # fmt: skip
    """Cut at `count` moments, some at a time; a folder that failed is kept."""
    rng = random.Random(seed)
    replay, done = Replay(recording), []
    gate = asyncio.Semaphore(at_once)

    async def one(cut: Cut, world: World, device: Device) -> None:
        try:
            cut.result = await after_cut(world, device)
            done.append(cut)
            if cut.result.ok:
                shutil.rmtree(world.folder)
        finally:
            gate.release()

    async with asyncio.TaskGroup() as tasks:
        for n, (at, kind) in enumerate(moments(recording, count, rng)):
            await gate.acquire()
            if stop_at_first and any(not c.result.ok for c in done):
                gate.release()
                break
            replay.until(at)
            victim = victims[n % len(victims)]
            target = folder / f"cut-{n}-{at}-{victim}"
            replay.disks(victim, target, rng)
            world = World(target, recording.world.code)
            world.write_config()
            cut = Cut(at, victim, seed, kind, Result(), str(target))
            tasks.create_task(one(cut, world, replay.device(world.device_port)))
    return done


async def deeper(recording: Recording, folder: Path, victim: str, seed: int) -> Recording:
    """A second recording that begins on a disk that a cut left behind: its boots are recoveries."""
    rng = random.Random(seed)
    replay = Replay(recording)
    replay.until(rng.choice(recording.span))
    target = folder / "begin"
    replay.disks(victim, target, rng)
    world = World(target, recording.world.code)
    world.write_config()
    return await record(world, folder, 2.0, seed=seed, device=replay.device(world.device_port))


async def run(base: World, folder: Path, *, count: int, seed: int, at_once: int = 4) -> list[Cut]:
    """All cuts: half in a first recording, a quarter each in two that begin after a cut."""
    folder.mkdir(parents=True, exist_ok=True)
    first = await record(base, folder / "0", 4.0, seed=seed)
    done = await cuts(first, folder / "0", count // 2, seed, at_once=at_once)
    for n, victim in enumerate(PARTS, start=1):
        (folder / str(n)).mkdir(exist_ok=True)
        second = await deeper(first, folder / str(n), victim, seed + n)
        done += await cuts(second, folder / str(n), count // 4, seed + n, at_once=at_once)
    return done
