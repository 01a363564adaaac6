"""One file and everything that works on it: journal, epochs, sealer.

There are two lanes at most: what may leave, and the vault. They share no randomness, and of memory
only where sources stand; and the vault asks which messages the main file has.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from agent.intake.journal import Journal
from agent.intake.losses import Losses
from agent.intake.memory import load_bounds
from agent.intake.quarantine import Quarantine
from agent.intake.register import Register
from agent.intake.seen import Seen
from agent.intake.watermarks import Watermarks
from agent.seal.epochs import Epochs
from agent.seal.sealer import RETRY_S, Sealer
from agent.store.database import Database
from agent.store.disk import DiskLevel
from agent.store.ports import Clock, CoreSettings, Identity, Randomness
from agent.store.resources import Bound
from agent.store.rest import RootKey
from agent.store.runs import Runs
from agent.store.schema import BodyState
from protocol.errors import Code, UnavailableError


class Lane:
    """The parts of one file, put together. `open` reads what was there before."""

    def __init__(
        self,
        *,
        database: Database,
        bounds: Mapping[str, Bound],
        identity: Identity,
        root: RootKey,
        clock: Clock,
        random: Randomness,
        settings: CoreSettings,
        boot: bytes,
        body_state: BodyState,
        budget_bytes: int,
        watermarks: Watermarks,
    ) -> None:
        self.database = database
        self.bounds = dict(bounds)
        self.random = random
        self.polled_room = asyncio.Event()
        self.runs = Runs(database, root, random, clock, boot)
        self.register = Register(identity, root, clock, random, epoch_us=settings.epoch_us)
        self.quarantine = Quarantine(root, random, budget_bytes=budget_bytes)
        self.epochs = Epochs(
            database=database,
            root=root,
            identity=identity,
            clock=clock,
            random=random,
            epoch_us=settings.epoch_us,
            lateness_us=settings.lateness_us,
        )
        self.seen = Seen(age_us=int(settings.seen_age_s * 1e6), count_max=settings.seen_max)
        self.journal = Journal(
            database=database,
            bounds=self.bounds,
            runs=self.runs,
            register=self.register,
            quarantine=self.quarantine,
            losses=Losses(self.bounds, settings.feeds, clock),
            clock=clock,
            random=random,
            seen=self.seen,
            watermarks=watermarks,
            commit_delay_s=settings.commit_delay_s,
        )
        self.sealer = Sealer(
            database=database,
            bounds=self.bounds,
            runs=self.runs,
            epochs=self.epochs,
            identity=identity,
            clock=clock,
            random=random,
            grew=self.journal.grew,
            records=settings.seal_records,
            age_s=settings.seal_age_s,
            live_age_s=settings.live_age_s,
            body_state=body_state,
        )
        #: (as registered, as configured), while rows of before wait under an older description.
        self._described_anew: deque[tuple[Bound, Bound]] = deque()
        self._stopping = asyncio.Event()
        self.journal.is_awaited = self.sealer.awaits
        database.level_changed = self._level_changed
        self._level_changed(database.level)

    async def load(self) -> None:
        """Take back from the file what memory must know; then a new run begins."""
        changed = await load_bounds(self.database, self.bounds, self.register, boot=self.runs.boot)
        for bound in self.bounds.values():
            await self._take_back_epochs(bound)
        await self.journal.load()
        await self.runs.begin()
        for before, bound in changed:
            if before.is_sealed:
                await self.epochs.load(before)
            self.bounds[bound.local] = before
            self._described_anew.append((before, bound))

    async def begin(self) -> None:
        """After `load`, and after what was damaged is declared: bind to what is configured now."""
        with contextlib.suppress(UnavailableError):
            await self._describe_anew()

    def unreadable(self) -> list[str]:
        """Small values that changed on the disk: each is done without, and stops nothing else."""
        found = {"positions": self.journal.watermarks.unreadable, "keys": self.epochs.unreadable}
        return [f"{count} {what} unreadable" for what, count in found.items() if count]

    async def _take_back_epochs(self, bound: Bound) -> None:
        """Live epochs of before, unless the grade is another one now: that begins with new keys."""
        if bound.is_regraded:
            self.epochs.close(bound)
        elif bound.is_sealed:
            await self.epochs.load(bound)

    async def _describe_anew(self) -> None:
        """Seal the rows of resources that are described otherwise now as they were; then bind anew.

        Raises UnavailableError on a full disk: they stay bound as they were, and only the hub's
        receipts make room. Nothing may be journalled until then: it would be bound to both.
        """
        while self._described_anew:
            before, bound = self._described_anew[0]
            if self.database.level >= DiskLevel.FULL:
                raise UnavailableError(Code.DISK_FULL)
            await self.sealer.seal_all(before)
            bound.stream, bound.epoch, bound.counters = (
                before.stream, before.epoch, before.counters
            )  # fmt: skip
            await self._take_back_epochs(bound)  # those that have a key for each of its groups
            self.bounds[bound.local] = bound
            self._described_anew.popleft()

    async def _take_readings(self) -> None:
        while self._described_anew and not self._stopping.is_set():
            try:
                await self._describe_anew()
            except UnavailableError:
                self.journal.make_way()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RETRY_S):
                        await self._stopping.wait()
        if self._described_anew:
            self.journal.give_up()
        else:
            await self.journal.run()

    async def run(self) -> None:
        """Journal and seal until `stop`. Raises FatalError if the file's state is unknown."""
        async with asyncio.TaskGroup() as tasks:
            name = self.database.path.stem
            tasks.create_task(self._take_readings(), name=f"{name}-journal")
            tasks.create_task(self.sealer.run(), name=f"{name}-sealer")

    async def look_for_room(self) -> None:
        """Leave the state FULL if there is room again. Raises UnavailableError."""
        await self.database.checkpoint()
        # Whoever else filled the file system may have made room: a small write finds out.
        await self.database.write("evict", lambda _: None)

    async def tell_losses(self, *, at_once: bool = True) -> bool:
        """Declare in this file what it could not take; False if nothing was lost."""
        return await self.journal.losses.tell(
            self.database, self.register, self.random, at_once=at_once
        )

    def stop(self) -> None:
        """Commit what is pending, finish the segment that is being sealed, end `run`."""
        self._stopping.set()
        self.journal.stop()
        self.sealer.stop()

    async def close(self) -> None:
        """Checkpoint and close the file; `run` must have ended."""
        self.sealer.close()
        await self.database.close()

    def _level_changed(self, level: DiskLevel) -> None:
        if level >= DiskLevel.POLLED_STOP:
            self.polled_room.clear()
        else:
            self.polled_room.set()


def folder_of(path: Path) -> Path:
    """Make the data folder, which only its owner may enter (0700)."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path
