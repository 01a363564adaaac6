"""How each named point is reached: ordinary work passes most of them, a scenario leads to the rest.

A scenario prepares the world, starts the victim armed and waits for its end. It leaves a world that
needs nothing but to be started again: no scenario may cost a record that was acknowledged.
"""

import asyncio
import os
import shutil
import time
from collections.abc import Awaitable, Callable
from fnmatch import fnmatch
from pathlib import Path

from tests.faults.damage import add_ballast, drop_ballast, flip_in_log, spoil_first_due
from tests.faults.inbox import queue_message
from tests.faults.world import WorldError
from tests.torture import console
from tests.torture.trial import Kill, Trial

Scenario = Callable[[Trial, Kill], Awaitable[bool]]

DAY_US = 86_400_000_000
DAY_S = 86_400


async def at_a_moment(trial: Trial, kill: Kill) -> bool:
    """SIGKILL at a random moment of work."""
    await trial.ensure("hub", "agent")
    await asyncio.sleep(trial.rng.uniform(0.05, 1.5))
    await trial.world.kill(kill.victim)
    trial.count(kill, died=True)
    return True


async def at_work(trial: Trial, kill: Kill) -> bool:
    """The other one runs, the device produces: start, and fall when the point is passed."""
    trial.device.producing = True
    await trial.ensure("hub" if kill.victim == "agent" else "agent")
    await trial.arm(kill)
    return await trial.fell(kill)


async def at_stop(trial: Trial, kill: Kill) -> bool:
    """Armed at a point of the orderly stop."""
    trial.device.producing = True
    await trial.ensure("hub")
    await trial.world.stop("agent")
    await trial.world.start("agent", SHANMEN_POINT=f"{kill.point}:{kill.nth}")
    await asyncio.sleep(trial.rng.uniform(0.1, 0.6))
    child = trial.world.children["agent"]
    if child.returncode is None:
        child.terminate()
    return await trial.fell(kill)


# --- agent ----------------------------------------------------------------------------------------


async def fresh_file(trial: Trial, kill: Kill) -> bool:
    """Before the first file: only in a world whose agent never ran."""
    if (trial.world.folder / "agent" / "spool.db").exists() and kill.point.endswith("after"):
        return False
    return await at_work(trial, kill)


async def old_event(trial: Trial, kill: Kill) -> bool:
    """An event of another day needs an epoch of its own."""
    day = 40 + trial.outcome.kills + trial.rng.randrange(300)
    trial.device.next_at.append(time.time_ns() // 1000 - day * DAY_US)
    return await at_work(trial, kill)


async def late_owner(trial: Trial, kill: Kill) -> bool:
    """The owner's principal is not here yet at the start; it comes while data is held."""
    await trial.world.stop("agent")
    (trial.world.folder / "agent" / "keys" / "owner").unlink(missing_ok=True)
    return await at_work(trial, kill)


async def image_restored(trial: Trial, kill: Kill) -> bool:
    """The agent's disk goes back to an image whose journal the hub has received meanwhile.

    Or to the one that the installer made before the first record, again and again.
    """
    world, device = trial.world, trial.device
    installed = world.folder / "installed"
    if not (world.folder / "agent" / "spool.db").exists():
        copy_disk(world.folder / "agent", installed)
    await trial.ensure("hub", "agent")
    device.producing = True

    async def waiting() -> bool:
        return bool((await world.status())["spool"]["journal"])

    if not await trial.until(waiting):
        raise WorldError("nothing waits in the journal")
    device.producing = False
    async with asyncio.timeout(60):
        await device.drained()
    await world.kill("agent")
    image = world.folder / "image"
    is_old = installed.exists() and trial.rng.random() < 0.5
    copy_disk(installed if is_old else world.folder / "agent", image)
    device.producing = True
    await trial.ensure("agent")
    await asyncio.sleep(1.0)
    await trial.quiet()
    await world.kill("agent")
    shutil.rmtree(world.folder / "agent")
    image.rename(world.folder / "agent")
    await trial.arm(kill)
    fell = await trial.fell(kill)
    await trial.quiet()
    device.producing = True
    return fell


def copy_disk(source: Path, target: Path) -> None:
    """Copy an agent's folder in place of what was there."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.sock"))


async def damaged_body(trial: Trial, kill: Kill) -> bool:
    """A body that the hub has is spoiled here before its receipt is recorded."""
    world = trial.world
    trial.device.producing = True
    await trial.ensure("hub")
    await trial.arm(Kill("agent", "receipt.before", trial.rng.randint(2, 3)))
    await world.died("agent", 20)
    await world.kill("agent")
    spoil_first_due(world.folder / "agent" / "spool.db")
    await trial.arm(kill)
    return await trial.fell(kill)


async def hub_went_back(trial: Trial, kill: Kill) -> bool:
    """The hub is restored from an older backup: everything that is held is sent again."""
    world = trial.world
    await trial.ensure("hub", "agent")
    trial.device.producing = True
    backup = world.folder / f"backup-{time.time_ns()}"
    await world.do("hub", "backup", str(backup), "--data", "hub")
    await asyncio.sleep(1.2)
    await trial.quiet()
    await world.stop("agent")
    await world.stop("hub")
    await world.do("hub", "restore", str(backup), "--data", "hub")
    trial.device.producing = True
    await trial.ensure("hub")
    await trial.arm(kill)
    return await trial.fell(kill)


async def damaged_log(trial: Trial, kill: Kill) -> bool:
    """A bit of the log flips while everything of it has reached the hub."""
    world = trial.world
    trial.device.producing = True
    await trial.ensure("hub", "agent")
    await asyncio.sleep(0.5)
    await trial.quiet()
    await world.kill("agent")
    flip_in_log(world.folder / "agent" / "spool.db-wal", trial.rng.random())
    return await mended(trial, kill)


async def zeroed_page(trial: Trial, kill: Kill) -> bool:
    """Page 1 is gone, after a clean stop: the file is rebuilt from what reads."""
    world = trial.world
    trial.device.producing = True
    await trial.ensure("hub", "agent")
    await asyncio.sleep(0.5)
    await trial.quiet()
    await world.stop("agent")
    with (world.folder / "agent" / "spool.db").open("r+b") as file:
        file.write(bytes(4096))
    return await mended(trial, kill)


async def mended(trial: Trial, kill: Kill) -> bool:
    """Fall while mending; then let it be mended before the device goes on."""
    await trial.ensure("hub")
    await trial.arm(kill)
    fell = await trial.fell(kill)
    await trial.quiet()
    trial.device.producing = True
    return fell


async def unsynced_clock(trial: Trial, kill: Kill) -> bool:
    """Nobody knows the time when records are sealed; then the hub tells it."""
    world = trial.world
    trial.device.producing = True
    await world.stop("agent")
    await world.stop("hub")
    await trial.arm(kill, SHANMEN_CLOCK="unsynchronised")

    async def sealed() -> bool:
        return bool((await world.status())["spool"]["due"])

    await trial.until(sealed)
    await trial.ensure("hub")
    return await trial.fell(kill)


async def full_quarantine(trial: Trial, kill: Kill) -> bool:
    """More is refused at the door than the quarantine holds: counted, and told in a note."""
    trial.device.producing = True
    trial.device.junk += 70
    return await at_work(trial, kill)


async def full_disk(trial: Trial, kill: Kill) -> bool:
    """The budget is used up while rows wait to be sealed; later there is room again."""
    world = trial.world
    trial.device.producing = True
    await trial.ensure("hub", "agent")

    async def waiting() -> bool:
        return bool((await world.status())["spool"]["journal"])

    async def is_full() -> bool:
        return (await world.status())["state"] == "disk-full"

    await trial.until(waiting)
    await world.kill("agent")
    spool = world.folder / "agent" / "spool.db"
    add_ballast(spool)
    try:
        await trial.arm(kill)
        if kill.point == "reserve.restored":
            await trial.until(is_full, 10)
            await asyncio.sleep(1.0)
            drop_ballast(spool)
        return await trial.fell(kill)
    finally:
        await world.kill("agent")
        drop_ballast(spool)


async def inbox_message(trial: Trial, kill: Kill) -> bool:
    """The hub has something to say."""
    await trial.world.stop("hub")
    await queue_message(trial.world.folder / "hub")
    return await at_work(trial, kill)


# --- hub ------------------------------------------------------------------------------------------


async def hub_command(trial: Trial, kill: Kill, *words: str) -> bool:
    """A command of the operator, done by a hub that is armed."""
    await trial.ensure("agent")
    await trial.arm(kill, ready=True)
    try:
        await trial.world.do("hub", *words, "--data", "hub", timeout=30)
    except WorldError:
        pass  # the hub fell under it
    return await trial.fell(kill, 5)


async def operator(trial: Trial, kill: Kill) -> bool:
    """A new token."""
    return await hub_command(trial, kill, "token", "new", "--site", "s1")


async def backup(trial: Trial, kill: Kill) -> bool:
    """A backup while the line works; into the same folder as the one before."""
    trial.device.producing = True
    return await hub_command(trial, kill, "backup", str(trial.world.folder / "backup"))


async def restore(trial: Trial, kill: Kill) -> bool:
    """`restore` falls, and is run again."""
    world = trial.world
    await trial.ensure("hub", "agent")
    trial.device.producing = True
    folder = world.folder / f"backup-{time.time_ns()}"
    await world.do("hub", "backup", str(folder), "--data", "hub")
    await asyncio.sleep(0.5)
    await world.stop("hub")
    words = ("restore", str(folder), "--data", "hub")
    fell = False
    try:
        await world.do("hub", *words, SHANMEN_POINT=f"{kill.point}:{kill.nth}")
    except WorldError as error:
        if ": -9" not in str(error):
            raise
        fell = True
    trial.count(kill, fell)
    if fell:
        await world.do("hub", *words)
    await trial.ensure("hub")
    return fell


async def orphan(trial: Trial, kill: Kill) -> bool:
    """Packs that nothing refers to, older than a day."""
    await trial.world.stop("hub")
    folder = trial.world.folder / "hub" / "packs" / "0a"
    folder.mkdir(mode=0o700, exist_ok=True)
    for n in range(2):
        path = folder / f"0a{trial.rng.randbytes(31).hex()}.{('pack', 'tmp')[n]}"
        path.write_bytes(b"orphan")
        os.utime(path, (time.time() - 2 * DAY_S,) * 2)
    return await at_work(trial, kill)


async def joining(trial: Trial, kill: Kill) -> bool:
    """The owner or the gateway comes to the hub, which falls: the answer is lost, and asked again."""
    world = trial.world
    await trial.ensure("hub")
    if kill.point.startswith("principal"):
        token, join = await world.owner_token(), world.add_owner
    else:
        token, join = await world.site_token(), world.enrol
        tokens = world.folder / "site-token"
        if not tokens.exists():
            tokens.write_text(token)
        token = tokens.read_text()
    await trial.arm(kill, ready=True)
    try:
        await join(token)
    except WorldError:
        pass
    return await trial.fell(kill, 10)


async def readmission(trial: Trial, kill: Kill) -> bool:
    """The hub goes back behind the gateway's enrolment, and falls while it lets it in again."""
    world = trial.world
    saved = world.folder / "before-the-gateway"
    if not saved.exists():
        await trial.ensure("hub")
        await world.add_owner(await world.owner_token())
        await world.do("hub", "backup", str(saved), "--data", "hub")
        await world.enrol(await world.site_token())
    trial.device.producing = True
    await trial.ensure("hub", "agent")
    await trial.quiet()
    await world.stop("agent")
    await world.stop("hub")
    await world.do("hub", "restore", str(saved), "--data", "hub")
    trial.device.producing = True  # a gateway with nothing to send is not asked who it is
    await trial.arm(kill, ready=True)
    await world.start("agent")
    fell = await trial.fell(kill)
    await trial.ensure("hub")

    async def waits() -> bool:
        return bool((await world.status())["state"] == "waiting")

    if not await trial.until(waits, 60):
        raise WorldError("the gateway does not come back to wait")
    agent = (await world.status())["agent"]
    await world.do("hub", "agent", "approve", agent, "--data", "hub")
    await world.stop("agent")  # else its segments rest for the minute that the hub asked for
    await world.start("agent")
    return fell


async def interrupted_enrolment(trial: Trial) -> None:
    """The agent falls between its request and the stored answer, then enrols with the same token."""
    world = trial.world
    await trial.ensure("hub")
    token = (world.folder / "site-token").read_text()
    for n in range(5):
        kill = Kill("agent", "", 1)
        try:
            await world.do(
                "agent", "enrol", token, "--owner", (world.folder / "owner.txt").read_text(),
                "--config", "agent.toml", SHANMEN_RENAME_KILL=f"/{'enrolled' if n % 2 else 'enrolment'}:1",
            )  # fmt: skip
        except WorldError as error:
            trial.count(kill, ": -9" in str(error))


#: Point → scenario, the first pattern that fits; a group shares worlds.
ROUTES: tuple[tuple[str, str, Scenario], ...] = (
    ("*:random", "work", at_a_moment),
    ("agent:open.*", "fresh", fresh_file),
    ("agent:checkpoint.*", "work", at_stop),
    ("agent:epoch.*", "work", old_event),
    ("agent:owner.*", "work", late_owner),
    ("agent:keep.*", "work", inbox_message),
    ("agent:note.*", "quarantine", full_quarantine),
    ("agent:fork.*", "image", image_restored),
    ("agent:refuse.*", "body", damaged_body),
    ("agent:resend.*", "hub-back", hub_went_back),
    ("agent:recover.*", "log", damaged_log),
    ("agent:damage.copied", "log", damaged_log),
    ("agent:damage.rebuilt", "page", zeroed_page),
    ("agent:correct.*", "clock", unsynced_clock),
    ("agent:reserve.*", "disk", full_disk),
    ("hub:admin.*", "work", operator),
    ("hub:backup.*", "work", backup),
    ("hub:restore.*", "restore", restore),
    ("hub:sweep.*", "work", orphan),
    ("hub:principal.*", "joining", joining),
    ("hub:enrol.*", "joining", joining),
    ("hub:readmit.*", "readmission", readmission),
    ("hub:user.*", "work", console.account),
    ("hub:login.*", "work", console.visit),
    ("hub:logout.*", "work", console.visit),
    ("hub:session.*", "work", console.visit),
    ("hub:live.*", "work", console.visit),
    ("*", "work", at_work),
)


def route(name: str) -> tuple[str, Scenario]:
    """The group and the scenario of a point."""
    return next((group, run) for pattern, group, run in ROUTES if fnmatch(name, pattern))
