"""`shanmen-agent run`: the only place where core and shell are put together.

    drivers → supervisor → core.pipeline ┊ journal · sealer · spool ┊ core.spool → uplink → hub
                                                                       inbox ← hub
On SIGTERM: stop reading, commit, acknowledge, abandon the request, checkpoint, exit within 10 s.
"""

import asyncio
import gc
import logging
import os
import signal
import threading
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agent import snapshot
from agent.commands.enrol import mismatched
from agent.commands.status import FolderLock, StatusServer
from agent.commands.tap_socket import TapServer
from agent.context import Context
from agent.core import Core
from agent.effects import CoreEffects, SpoolKeep
from agent.host.clock import Clock, boot_id
from agent.host.faults import Exit, Fault
from agent.host.health import Health, Progress
from agent.host.identity import IdentityFiles, Pin
from agent.host.keyring import Keyring
from agent.host.notify import Notifier
from agent.host.plan import Plan, core_settings
from agent.link.hub_client import HubClient
from agent.link.inbox import Inbox
from agent.link.readmission import Readmission
from agent.link.standing import Standing
from agent.link.uplink import Uplink
from agent.owner import OwnerWatch
from agent.report import Reporter
from agent.seal.spool import get
from agent.store.disk import DiskLevel
from agent.store.ports import Identity, Paths
from agent.store.schema import READS_UP_TO
from agent.supervisor import Slot, Supervisor
from agent.watch import Watch
from devices.loader import DriverPlan
from protocol.envelope import only_key
from protocol.errors import Code, ConfigError, FatalError, ShanmenError
from protocol.sync import AgentSync

_LOG: Final = logging.getLogger(__name__)

#: The whole stop; systemd kills after 10 s, and a hung disk must not make it wait.
STOP_S: Final = 9.0
_REPAIR_US: Final = 600_000_000
#: Objects made and not freed before a collection looks at the young ones; 700 would be Python's.
GC_THRESHOLD: Final = 10_000
_COMMIT_S: Final = 4.0
_DISCONNECT_S: Final = 1.5
_CHECKPOINT_S: Final = 3.0


@dataclass(slots=True)
class Parts:
    """Everything that runs, for the stop and for `status`."""

    plan: Plan
    core: Core
    client: HubClient
    uplink: Uplink
    inbox: Inbox
    supervisor: Supervisor
    owner: OwnerWatch
    watch: Watch
    health: Health
    clock: Clock
    stopping: bool = False

    async def snapshot(self) -> dict[str, Any]:
        """What `status` shows."""
        reached = self.uplink.last_receipt_us is not None or self.client.connected
        link = "connected" if self.client.connected else "trying" if reached else "never"
        return await snapshot.snapshot(
            plan=self.plan,
            core=self.core,
            uplink=self.uplink,
            health=self.health,
            clock=self.clock,
            slots=self.supervisor.slots,
            link=link,
            stopping=self.stopping,
        )


async def run(plan: Plan, notifier: Notifier, *, clock: Clock | None = None) -> None:
    """Run until SIGTERM or SIGINT. Raises Fault with the reason for ending otherwise."""
    folder = plan.folder
    lock = FolderLock(folder)
    _make_folder(folder)
    lock.take()
    # Repairing a damaged spool may take longer than systemd waits for a start.
    notifier.send(STATUS="starting", EXTEND_TIMEOUT_USEC=_REPAIR_US)
    try:
        stop = asyncio.Event()

        def end() -> None:
            # From the signal on: a repair does not look at `stop`, and may be cut off anywhere.
            if not stop.is_set():
                _end_by_force_after(STOP_S)
            stop.set()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, end)
        parts = await put_together(plan, notifier, clock or Clock())
        _settle_memory()
        try:
            await _serve(parts, notifier, stop)
        finally:
            await parts.client.close()
            await _bounded(parts.core.close(), _CHECKPOINT_S, "checkpoint")
    except* ShanmenError as group:
        raise _storage_fault(_first(group), folder) from group
    finally:
        lock.release()
        notifier.close()


def _settle_memory() -> None:
    """What stands for the whole life is not looked through by every garbage collection again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ground:
    """What every part stands on."""

    plan: Plan
    clock: Clock
    core: Core
    health: Health
    progress: Progress
    client: HubClient
    keyring: Keyring
    stored: IdentityFiles
    pin: Pin
    is_waiting: bool  # for approval, when it was enrolled

    @property
    def identity(self) -> Identity:
        return self.core.identity


async def put_together(plan: Plan, notifier: Notifier, clock: Clock) -> Parts:
    """Open the files and make every part; nothing runs yet. Raises Fault, ShanmenError."""
    ground = await _ground(plan, clock)
    inbox, uplink = await _conversation(ground)
    core, health = ground.core, ground.health
    supervisor = Supervisor(_slots(ground), core.pipeline, health)
    core.forks.on_resumed = supervisor.ask_again
    return Parts(
        plan=plan,
        core=core,
        client=ground.client,
        uplink=uplink,
        inbox=inbox,
        supervisor=supervisor,
        owner=OwnerWatch(
            client=ground.client,
            stored=ground.stored,
            pin=ground.pin,
            core=core,
            health=health,
        ),
        watch=Watch(
            notifier=notifier,
            progress=ground.progress,
            health=health,
            clock=clock,
            hub=plan.config.hub,
            alarms=plan.config.alarm,
            has_due=core.spool.has_due,
            is_full=lambda: core.main.database.level >= DiskLevel.ACKS_STOP,
            quarantine_full=lambda: any(lane.quarantine.is_full for lane in core.lanes),
            vault_level=lambda: core.vault_level,
        ),
        health=health,
        clock=clock,
    )


async def _ground(plan: Plan, clock: Clock) -> _Ground:
    keyring = Keyring(plan.folder / "keys")
    stored = IdentityFiles(keyring.folder)
    keys = keyring.keys(keyring.root_key())
    enrolled = None if keys is None else stored.enrolled(keys)
    identity = None if keys is None else stored.identity(keys, plan.config.owner)
    if identity is None or enrolled is None:
        raise Fault(Exit.NOT_ENROLLED, "not-enrolled")
    core = await Core.open(
        Paths(folder=plan.folder),
        core_settings(plan),
        identity,
        clock,
        root_key=keyring.root_bytes(),
        boot=boot_id(),
    )
    await _take_back_time(core, clock)
    health = Health(clock.now_us)
    core.answers.alarm = lambda key, fields: health.raise_alarm(key, **fields)
    if core.damage:
        health.raise_alarm("damage", reason=", ".join(core.damage.reasons))
    pin = stored.pin(plan.config.owner, enrolled)
    if (wrong := mismatched(pin, enrolled)) is not None:
        health.raise_alarm("owner-mismatch", **wrong.fields)
    client = HubClient(plan.config.hub, clock, hub=identity.hub.hub, key=identity.signing)
    await client.open()
    return _Ground(
        plan=plan,
        clock=clock,
        core=core,
        health=health,
        progress=Progress(clock.boot_ns, clock.boot_ns(), clock.boot_ns()),
        client=client,
        keyring=keyring,
        stored=stored,
        pin=pin,
        is_waiting=enrolled.state == "waiting",
    )


def _slots(ground: _Ground) -> list[Slot]:
    root = ground.keyring.root_key()

    def slot(plan: DriverPlan) -> Slot:
        context = Context(
            plan.name, ground.health, ground.core.pipeline, ground.clock, ground.keyring, root
        )
        return Slot(plan.name, lambda: plan.make(context), plan.devices)

    return [slot(plan) for plan in ground.plan.drivers]


async def _conversation(ground: _Ground) -> tuple[Inbox, Uplink]:
    """Uplink and inbox, which know of each other."""
    core, clock, identity = ground.core, ground.clock, ground.identity
    sync = AgentSync(
        agent=identity.agent,
        agent_keys=only_key(identity.signing.public),
        hub=await core.spool.stored_hub() or identity.hub,
        checkpoint=core.spool.checkpoint,
    )
    table = ground.plan.config.hub
    reporter = Reporter(core, clock)
    inbox = Inbox(
        client=ground.client,
        clock=clock,
        health=ground.health,
        keep=SpoolKeep(core.main.database),
        agent=identity.agent,
        hub_keys=lambda: only_key(sync.hub.signing_public),
        allowed=ground.plan.config.inbox,
        back_off_s=(table.retry_min.seconds, table.retry_max.seconds),
        report=reporter.with_poll,
    )
    uplink = Uplink(
        client=ground.client,
        sync=sync,
        spool=core.spool,
        clock=clock,
        health=ground.health,
        progress=ground.progress,
        table=table,
        alarms=ground.plan.config.alarm,
        inbox=inbox,
        reports=reporter,
        standing=Standing(
            health=ground.health,
            sync=sync,
            folder=ground.plan.folder,
            refused=Code.AGENT_WAITING if ground.is_waiting and not _was_let_in(core) else None,
            readmit=Readmission(ground.client, ground.stored, identity.signing),
        ),
    )
    await inbox.start(
        CoreEffects(core, clock, uplink),
        link_up=uplink.knock,
        answered=uplink.ask_again,
        failed=uplink.poll_failed,
    )
    return inbox, uplink


def _was_let_in(core: Core) -> bool:
    """Whether the hub took records since: the stored answer to the enrolment does not change."""
    return any(bound.counters.accepted for bound in core.bounds.values())


async def _serve(parts: Parts, notifier: Notifier, stop: asyncio.Event) -> None:
    """Run every part until `stop`, then end them in the order that loses nothing."""
    status = StatusServer(parts.plan.folder, parts.snapshot)
    await status.start()
    tap = TapServer(parts.plan.folder, parts.core.main.journal.tap)
    await tap.start()
    try:
        async with asyncio.TaskGroup() as group:
            core = group.create_task(parts.core.run(), name="core")
            drivers = group.create_task(parts.supervisor.run(), name="drivers")
            others = [
                group.create_task(parts.uplink.run(), name="uplink"),
                group.create_task(parts.inbox.run(), name="inbox"),
                group.create_task(parts.owner.run(), name="owner"),
                group.create_task(parts.watch.run(), name="watch"),
            ]
            notifier.ready(parts.plan.config.hub.url)
            _LOG.info("running", extra={"drivers": len(parts.plan.drivers)})
            await stop.wait()
            notifier.stopping()
            parts.stopping = True
            parts.supervisor.pause()
            parts.core.stop()
            await _bounded(asyncio.wait((core,)), _COMMIT_S, "commit")
            # Acknowledgements were given in the commit; disconnecting lets them out.
            drivers.cancel()
            await _bounded(asyncio.wait((drivers,)), _DISCONNECT_S, "disconnect")
            for task in (core, *others):
                task.cancel()
    finally:
        await tap.stop()
        await status.stop()
    _LOG.info("stopped")


async def _take_back_time(core: Core, clock: Clock) -> None:
    """A time that an earlier run knew to have passed has passed now as well."""
    floor = await core.main.database.read(lambda connection: get(connection, "time_floor"))
    if isinstance(floor, int):
        clock.floor_us = max(clock.floor_us, floor)


async def _bounded(work: Awaitable[object], seconds: float, what: str) -> None:
    try:
        async with asyncio.timeout(seconds):
            await work
    except TimeoutError:
        _LOG.error("stop took too long", extra={"step": what})


def _end_by_force_after(seconds: float) -> None:
    """A disk that hangs in fsync cannot be waited for; what was acknowledged is durable."""
    timer = threading.Timer(seconds, os._exit, (int(Exit.DISK),))
    timer.daemon = True
    timer.start()


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(13, os.strerror(13))
    except OSError as error:
        raise Fault(Exit.DISK, "disk-unwritable", folder=folder, reason=error) from error


def _first(group: BaseExceptionGroup[Any]) -> ShanmenError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, ShanmenError)
    return error


def _storage_fault(error: ShanmenError, folder: Path) -> Fault:
    if isinstance(error, ConfigError):
        return Fault(Exit.CONFIG, "configuration", reason=error)
    if error.code is Code.VERSION_UNSUPPORTED and isinstance(error, FatalError):
        file = folder / error.field
        return Fault(Exit.DISK, "spool-newer", file=file, version=error.value, most=READS_UP_TO)
    if error.code is Code.DISK_FULL:
        return Fault(Exit.DISK, "disk-full", folder=folder)
    return Fault(Exit.DISK, "storage", folder=folder, reason=error)
