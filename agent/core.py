"""The core as one thing: open the files, run journal and sealer, hand out pipeline and spool."""

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Mapping, Sequence
from typing import Final

from agent.answers import Answers
from agent.forks import Forks
from agent.intake.memory import keep_inside
from agent.intake.watermarks import Watermarks
from agent.keeping import Keeping
from agent.lane import Lane, folder_of
from agent.mending import mend, open_questions
from agent.pipeline import Pipeline
from agent.seal.batch import Ref
from agent.seal.resend import Returned
from agent.seal.spool import Received, Spool, get
from agent.store.database import Database
from agent.store.disk import LEAVE_FULL, DiskLevel
from agent.store.ports import Clock, CoreSettings, Identity, Paths, Randomness
from agent.store.recovery import Damage, any_trace, open_database
from agent.store.resources import Bound, bind
from agent.store.rest import RootKey
from agent.store.schema import BodyState, StreamState
from protocol.checkpoint import parse_note
from protocol.errors import ShanmenError, UnavailableError
from protocol.ids import ResourceId
from protocol.wraps import Seen

KEEP_S: Final = 1.0  # between rounds of housekeeping
VAULT_NOTE_US: Final = 600_000_000  # between notes of what a full vault could not take
LAST_NOTE_S: Final = 2.0  # of a stop, for a disk that may not answer


class Core:
    """Everything between drivers and uplink. `Core.open`, then `run` beside the uplink."""

    def __init__(
        self,
        *,
        main: Lane,
        vault: Lane | None,
        bounds: Mapping[str, Bound],
        identity: Identity,
        clock: Clock,
        root: RootKey,
        settings: CoreSettings,
    ) -> None:
        self.main = main
        self.vault = vault
        self.bounds = bounds
        if vault is not None:
            vault.journal.lets_go = self._vault_lets_go
            vault.journal.tap = main.journal.tap.of_vault()
            # A resource moves into the vault, never out of it, and of a message for both files the
            # main file's part is committed last: what that one has seen is complete. It does not
            # ask the vault, which may have its part alone; nor may what leaves depend on it.
            vault.seen.earlier = main.seen
        self.identity = identity
        self.spool = Spool(main.database, clock, identity.signing.public)
        self.pipeline = Pipeline(
            main=main, vault=vault, bounds=bounds, clock=clock, root=root, feeds=settings.feeds
        )
        self.forks = Forks(main, vault, identity, main.random)
        self.answers = Answers(
            database=main.database,
            spool=self.spool,
            forks=self.forks,
            bounds=main.bounds,
            identity=identity,
            random=main.random,
            wrap_again=main.epochs.wrap_again,
        )
        self.lanes = (main,) if vault is None else (main, vault)
        self.sealer = main.sealer
        self.clock = clock
        self.keeping = Keeping(
            lane=main,
            spool=self.spool,
            identity=identity,
            clock=clock,
            random=main.random,
            grace_s=settings.grace_s,
            lateness_us=settings.lateness_us,
        )
        self._stopping = asyncio.Event()
        self.damage = Damage()  # what was wrong with the spool at this start

    @classmethod
    async def open(
        cls,
        paths: Paths,
        settings: CoreSettings,
        identity: Identity,
        clock: Clock,
        *,
        root_key: bytes,
        boot: bytes,
        random: Randomness = secrets.token_bytes,
        vault_random: Randomness = secrets.token_bytes,
    ) -> "Core":
        """Open the files and take back what they know.

        boot: an id of this boot of the machine, so that monotonic times of an earlier process can
        be compared. Raises ConfigError (a grade), FatalError, UnavailableError.
        """
        folder_of(paths.folder)
        root = RootKey(root_key, random)
        bounds = {r.local: bind(r, identity.agent) for r in settings.resources}
        kept_inside = None
        if any_trace(paths.vault) or not all(bound.leaves for bound in bounds.values()):
            kept_inside = await open_database(paths.vault, budget_bytes=settings.vault_budget_bytes)
            await keep_inside(kept_inside[0], bounds)
        inside = {local: bound for local, bound in bounds.items() if not bound.leaves}
        outside = {local: bound for local, bound in bounds.items() if bound.leaves}
        database, damage = await open_database(paths.spool, budget_bytes=settings.budget_bytes)
        watermarks = Watermarks(is_shared=kept_inside is not None)
        main = Lane(
            database=database,
            bounds=outside,
            identity=identity,
            root=root,
            clock=clock,
            random=random,
            settings=settings,
            boot=boot,
            body_state=BodyState.DUE,
            budget_bytes=settings.budget_bytes,
            watermarks=watermarks,
        )
        await main.load()
        questions = await mend(main, damage, identity, clock) if damage else open_questions(main)
        await main.begin()
        vault = None
        if kept_inside is not None:
            vault = await _open_vault(
                kept_inside,
                settings,
                identity,
                clock,
                (inside, root_key, boot, vault_random, watermarks.of_vault()),
            )
        core = cls(
            main=main,
            vault=vault,
            bounds=bounds,
            identity=identity,
            clock=clock,
            root=root,
            settings=settings,
        )
        core.damage = damage
        damage.reasons += [reason for lane in core.lanes for reason in lane.unreadable()]
        await core._begin()
        for question in questions:
            core.answers.streams[question.stream] = question.resource
            core.spool.ask(question)
        return core

    async def _begin(self) -> None:
        spool, main = self.spool, self.main
        raw = await main.database.read(lambda connection: get(connection, "checkpoint"))
        if isinstance(raw, bytes):
            try:
                spool.checkpoint = parse_note(raw.decode())
                self._see()
            except (ShanmenError, UnicodeDecodeError):
                self.damage.reasons.append("checkpoint unreadable")  # the enrolment's counts
        await self.answers.load()
        stats = await spool.stats()
        main.sealer.due_bodies = stats.due
        main.sealer.sealed = spool.wake
        spool.on_receipt = self._received
        spool.on_return = self._returned
        spool.follow = self._follow
        spool.damage = self._damaged
        spool.wake.set()

    async def _follow(self, received: Received) -> bool:
        has_moved = await self.answers.follow(received)
        if received.refused or received.forked or received.missing or received.is_new_generation:
            self.main.sealer.due_bodies = (await self.spool.stats()).due
        return has_moved

    async def _damaged(self, refs: Sequence[Ref]) -> None:
        await self.answers.damaged(refs)
        self.main.sealer.due_bodies = (await self.spool.stats()).due

    def _received(self, moved: Sequence[tuple[bytes, int]]) -> None:
        by_id = {bound.id: bound for bound in self.main.bounds.values()}
        for resource, records in moved:
            bound = by_id.get(ResourceId(resource))
            if bound is not None:
                bound.counters.accepted += records
        self.main.sealer.due_bodies = max(0, self.main.sealer.due_bodies - len(moved))
        self._see()

    def _returned(self, returned: Sequence[Returned]) -> None:
        by_id = {bound.id: bound for bound in self.main.bounds.values()}
        for one in returned:
            bound = by_id.get(ResourceId(one.resource))
            if bound is not None:
                bound.counters.accepted -= one.records
            self.main.sealer.due_bodies += one.bodies

    def _see(self) -> None:
        checkpoint = self.spool.checkpoint
        if checkpoint is not None:
            self.main.epochs.seen = Seen(checkpoint.origin, checkpoint.size, checkpoint.root)

    async def confirm_owner(self, identity: Identity) -> None:
        """The owner is known and pinned now: wraps are made, held segments become due."""
        self.identity = identity
        for lane in (self.main, self.vault):
            if lane is None:
                continue
            async with lane.sealer.gate, lane.journal.gate:
                lane.register.identity = identity
                lane.sealer.identity = identity
                await lane.epochs.confirm_owner(identity)
                for bound in lane.bounds.values():
                    changed = lane.register.content_hash(bound) != bound.entry_hash
                    bound.must_register = bound.must_register or changed
        self.forks.identity = self.answers.identity = self.keeping.identity = identity
        self.spool.wake.set()

    @property
    def vault_level(self) -> DiskLevel:
        """How full the vault is; NORMAL where there is none."""
        return DiskLevel.NORMAL if self.vault is None else self.vault.database.level

    def _vault_lets_go(self) -> bool:
        """A full vault stops nobody else: it is emptied by hand only, so it may stay so for years.

        Where the main file takes nothing either, or somebody else filled the file system,
        everything waits and nothing is lost.
        """
        if self.vault is None or self.vault_level not in {DiskLevel.ACKS_STOP, DiskLevel.FULL}:
            return False
        return self.vault.database.disk.share >= LEAVE_FULL and self.main.database.room.is_set()

    async def run(self) -> None:
        """Journal, seal and keep house until `stop`. Raises FatalError in an exception group."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep(), name="keeping")
            tasks.create_task(self.main.run(), name="main")
            if self.vault is not None:
                tasks.create_task(self.vault.run(), name="vault")
                tasks.create_task(self._keep_vault(self.vault), name="vault-keeping")
                tasks.create_task(self._stop_both(self.vault), name="stopping")
        await self._last_notes(self.keeping.tell_losses())  # what the last commits could not take
        if self.vault is not None:
            await self._last_notes(self.vault.tell_losses())

    async def keep_house(self) -> None:
        """One round of housekeeping: evict, correct, forget. `run` does it every second."""
        with contextlib.suppress(UnavailableError):
            await self.keeping.round()

    async def _keep(self) -> None:
        while not self._stopping.is_set():
            await self.keep_house()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(KEEP_S):
                    await self._stopping.wait()

    async def _keep_vault(self, vault: Lane) -> None:
        """Find room again; declare what a full vault could not take, seldom: it is full."""
        told_us = self.clock.monotonic_us()
        while not self._stopping.is_set():
            with contextlib.suppress(UnavailableError):
                if vault.database.level >= DiskLevel.FULL:
                    await vault.look_for_room()
                if self.clock.monotonic_us() - told_us >= VAULT_NOTE_US:
                    told_us = self.clock.monotonic_us()
                    await vault.tell_losses()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(KEEP_S):
                    await self._stopping.wait()

    @staticmethod
    async def _last_notes(telling: Awaitable[object]) -> None:
        with contextlib.suppress(UnavailableError, TimeoutError):
            async with asyncio.timeout(LAST_NOTE_S):
                await telling

    def stop(self) -> None:
        """Commit what is pending and let `run` end; readings that come later are refused."""
        self._stopping.set()
        if self.vault is None:
            self.main.stop()

    async def _stop_both(self, vault: Lane) -> None:
        """Stop the files once no reading is half committed: one part of it in each."""
        await self._stopping.wait()
        await self.pipeline.settle()
        self.main.stop()
        vault.stop()

    async def close(self) -> None:
        """Close the files; `run` must have ended."""
        await self.main.close()
        if self.vault is not None:
            await self.vault.close()

    def live(self, resources: Mapping[ResourceId, float]) -> None:
        """Somebody watches these resources for so many seconds: segments of 2 s."""
        now_us = self.clock.monotonic_us()
        for bound in self.bounds.values():
            if bound.id in resources:
                self.main.sealer.live[bound.local] = now_us + int(resources[bound.id] * 1e6)
        self.main.journal.grew.set()


async def _open_vault(
    opened: tuple[Database, Damage],
    settings: CoreSettings,
    identity: Identity,
    clock: Clock,
    own: tuple[Mapping[str, Bound], bytes, bytes, Randomness, Watermarks],
) -> Lane:
    """The lane of what never leaves.

    own: its resources, root key, boot id, random source, and the memory of watermarks.
    """
    inside, root_key, boot, random, watermarks = own
    database, damage = opened
    vault = Lane(
        database=database,
        bounds=inside,
        identity=identity,
        root=RootKey(root_key, random),
        clock=clock,
        random=random,
        settings=settings,
        boot=boot,
        body_state=BodyState.KEPT,
        budget_bytes=settings.vault_budget_bytes,
        watermarks=watermarks,
    )
    await vault.load()
    if damage:
        await mend(vault, damage, identity, clock)
        for bound in vault.bounds.values():
            if bound.stream is not None:
                bound.stream.state = StreamState.LIVE  # what never leaves is compared with nobody
    await vault.begin()
    return vault
