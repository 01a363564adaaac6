"""Commit groups: everything that arrived while the previous commit ran is one transaction.

With an acknowledgement waiting, the writer commits at once when idle: no timer. What the source
keeps (D, E) may wait `commit_delay` and rides on any earlier commit. Only after COMMIT are futures
done and acknowledgements given, in the order of the hand-overs.
"""

import asyncio
import sqlite3
import sys
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from agent.intake.acknowledge import acknowledge
from agent.intake.commits import Change, Committed, Stamp, count_without_rows
from agent.intake.covered import Key
from agent.intake.groups import MAY_WAIT, Part, Pending, Prepared, place_of, prepare
from agent.intake.losses import QUARANTINE_FULL, Loss, Losses
from agent.intake.quarantine import Quarantine
from agent.intake.regain import note_befores
from agent.intake.register import Register
from agent.intake.rows import insert_row
from agent.intake.seen import Seen
from agent.intake.tap import Tap
from agent.intake.watermarks import Watermarks, put_watermarks
from agent.store.database import Database
from agent.store.ports import Clock, Randomness
from agent.store.resources import Bound, JournalRow
from agent.store.rest import lock
from agent.store.runs import Runs
from devices.driver import Promise
from protocol.errors import Code, FatalError, ShanmenError, UnavailableError

GROUP_RECORDS_MAX: Final = 2_000
GROUP_BYTES_MAX: Final = 1 << 20
PENDING_RECORDS_MAX: Final = 4 * GROUP_RECORDS_MAX  # above it `room` waits
RING_BYTES: Final = 4 << 20  # of class C, which waits for nobody
RING_OVERHEAD_BYTES: Final = 512  # of a hand-over in memory, whatever is in it
CLOCK_STEP_US: Final = 500_000  # a group does not span a step of the wall clock


class Journal:
    """The first durable queue: records of one file, in commit groups."""

    def __init__(
        self,
        *,
        database: Database,
        bounds: Mapping[str, Bound],
        runs: Runs,
        register: Register,
        quarantine: Quarantine,
        losses: Losses,
        clock: Clock,
        random: Randomness,
        seen: Seen,
        watermarks: Watermarks,
        commit_delay_s: float,
    ) -> None:
        self.gate = asyncio.Lock()  # held by a commit; whoever replaces a stream takes it too
        self.grew = asyncio.Event()  # set by a commit that gives the sealer something to do
        self.is_awaited: Callable[[Bound], bool] = lambda _: True  # the sealer's: does it?
        self.watermarks = watermarks
        self.resets: Counter[str] = Counter()  # by driver: how often its sources were set back
        self.tap = Tap(bounds)
        self._noted: set[tuple[bytes, bytes, Key]] = set()  # run, resource, source
        self.commits = 0
        self.losses = losses
        self.lets_go: Callable[[], bool] = lambda: False  # whether a full file may stop nobody
        self._database = database
        self._bounds = bounds
        self._runs = runs
        self._register = register
        self._quarantine = quarantine
        self._clock = clock
        self._random = random
        self._seen = seen
        self._delay_s = commit_delay_s
        self._pending: deque[Pending] = deque()
        self._records = 0  # in `_pending`
        self._bytes = 0.0
        self._ring = 0.0  # bytes of class C in `_pending` and under way
        self._must = 0  # readings in `_pending` that do not wait
        self._deadline: float | None = None
        self._wake = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._failed: BaseException | None = None
        self._stopping = False
        self._has_ended = False

    async def load(self) -> None:
        """Read what was seen, and the watermarks; their number is bounded by the configuration."""
        trusted_us = self._clock.mark().trusted_us(self._clock.now_us())
        monotonic_us = self._clock.monotonic_us()

        def work(connection: sqlite3.Connection) -> None:
            self._quarantine.load(connection)
            self._seen.load(connection, trusted_us=trusted_us, monotonic_us=monotonic_us)
            self.watermarks.load(connection, self._register.root)
            self.losses.load(connection)

        await self._database.read(work)

    def submit(self, pending: Pending) -> None:
        """Queue a reading. Raises UnavailableError BUSY far above the bound that `room` keeps.

        Never for class C: what its ring does not hold is dropped and counted.
        """
        if self._failed is not None:
            raise FatalError(Code.STORAGE_UNKNOWN) from self._failed
        if self._has_ended:
            raise UnavailableError(Code.STOPPING)
        if pending.reading.promise is Promise.C and not self._enter_ring(pending):
            return
        if self._records > 4 * PENDING_RECORDS_MAX:
            raise UnavailableError(Code.BUSY, field="journal", value=self._records)
        self._pending.append(pending)
        self._records += pending.records
        self._bytes += pending.size
        if pending.is_waited_for:
            self._must += 1
            self._wake.set()
        elif self._deadline is None:
            loop = asyncio.get_running_loop()
            self._deadline = loop.time() + self._delay_s
            self._wake.set()
        if self._records >= GROUP_RECORDS_MAX or self._bytes >= GROUP_BYTES_MAX:
            self._wake.set()
            if self._records >= PENDING_RECORDS_MAX or self._bytes >= 4 * GROUP_BYTES_MAX:
                self._has_room.clear()

    def _enter_ring(self, pending: Pending) -> bool:
        """Class C cannot be asked again and does not wait: above the ring it is counted."""
        size = pending.size + RING_OVERHEAD_BYTES
        if self._ring + size > RING_BYTES or self._records > 4 * PENDING_RECORDS_MAX:
            self.losses.drop(pending.reading, pending.wall_us, driver=pending.driver)
            pending.future.set_result(None)  # it is accounted for, and its driver goes on
            return False
        self._ring += size

        def leave(_: asyncio.Future[None]) -> None:
            self._ring -= size

        pending.future.add_done_callback(leave)
        return True

    @property
    def has_room(self) -> bool:
        """Whether hand-overs are welcome now."""
        return self._has_room.is_set()

    async def room(self) -> None:
        """Wait until hand-overs are welcome again: back-pressure for whoever can wait."""
        await self._has_room.wait()

    @property
    def backlog(self) -> int:
        """Records handed over and not yet committed."""
        return self._records

    async def run(self) -> None:
        """Commit groups until `stop`; then what is left, once. Raises FatalError."""
        try:
            while await self._due():
                await self._commit_group()
            while self._pending and self._database.room.is_set():
                await self._commit_group()
        finally:
            self._failed = sys.exception()  # None after a stop
            self._has_ended = True
            self.give_up()

    def stop(self) -> None:
        """Let `run` end after one last commit of what is pending."""
        self._stopping = True
        self._wake.set()

    def give_up(self) -> None:
        """Refuse what is pending: nothing is committed any more."""
        self._refuse(self._take_all(), UnavailableError(Code.STOPPING))

    async def _due(self) -> bool:
        """Wait for a reason to commit; False when stopping."""
        while not self._stopping:
            if self._must or self._records >= GROUP_RECORDS_MAX or self._bytes >= GROUP_BYTES_MAX:
                if self._database.room.is_set():
                    return True
                await self._wait_for_room()
                continue
            left_s = None
            if self._deadline is not None:
                left_s = self._deadline - asyncio.get_running_loop().time()
                if left_s <= 0:
                    self._must += 1  # balanced when the group is taken
                    continue
            self._wake.clear()
            try:
                async with asyncio.timeout(left_s):
                    await self._wake.wait()
            except TimeoutError:
                pass
        return False

    def make_way(self) -> None:
        """If the file `lets_go`: count as lost what waits, but not what polled sources keep."""
        if not self.lets_go():
            return
        group = self._take_all()
        lost = [p for p in group if p.reading.promise not in MAY_WAIT]
        for pending in lost:
            self.losses.drop(pending.reading, pending.wall_us, driver=pending.driver)
        acknowledge(lost)
        if kept := [p for p in group if p.reading.promise in MAY_WAIT]:
            self._put_back(kept)
        self._wake.clear()

    async def _wait_for_room(self) -> None:
        self.make_way()
        try:
            async with asyncio.timeout(1.0):
                await (self._wake if self.lets_go() else self._database.room).wait()
        except TimeoutError:
            pass  # look again: a stop may have been asked for

    def _take(self) -> list[Pending]:
        pending = self._pending
        if self._records <= GROUP_RECORDS_MAX and self._bytes <= GROUP_BYTES_MAX and pending:
            ends = (pending[0], pending[-1])
            drift_us = ends[1].wall_us - ends[1].boot_us - ends[0].wall_us + ends[0].boot_us
            if abs(drift_us) <= CLOCK_STEP_US:
                return self._take_all()
        group: list[Pending] = []
        records, size = 0, 0.0
        base = pending[0].wall_us - pending[0].boot_us if pending else 0
        while pending:
            first = pending[0]
            if group and (
                records + first.records > GROUP_RECORDS_MAX
                or size + first.size > GROUP_BYTES_MAX
                or abs(first.wall_us - first.boot_us - base) > CLOCK_STEP_US
            ):
                break
            group.append(pending.popleft())
            records += first.records
            size += first.size
        self._records -= records
        self._bytes = self._bytes - size if pending else 0.0
        self._must = sum(1 for p in pending if p.is_waited_for) if pending else 0
        if not pending:
            self._deadline = None
        if self._records < PENDING_RECORDS_MAX and self._bytes < 4 * GROUP_BYTES_MAX:
            self._has_room.set()
        return group

    def _take_all(self) -> list[Pending]:
        group = list(self._pending)
        self._pending.clear()
        self._records = self._must = 0
        self._bytes = 0.0
        self._deadline = None
        self._has_room.set()
        return group

    def _put_back(self, group: Sequence[Pending]) -> None:
        self._pending.extendleft(reversed(group))
        self._records += sum(p.records for p in group)
        self._bytes += sum(p.size for p in group)
        self._must += sum(1 for p in group if p.is_waited_for) or 1

    def take_back(self, resource: bytes, watermarks: Mapping[Key, bytes | None]) -> None:
        """Set watermarks back after a fork, and refuse what was counted from the others.

        Holding `gate`: what was handed over before was made by instances that know no better.
        """
        if not watermarks:
            return
        self.watermarks.move(watermarks)
        self._noted = {one for one in self._noted if one[1] != resource}
        drivers = {driver for driver, _ in watermarks}
        self.resets.update(drivers)
        self.refuse_from(drivers)

    def refuse_from(self, drivers: Collection[str]) -> None:
        """Refuse what these drivers handed over, holding `gate`: nothing may be under way."""
        group = self._take_all()
        self._refuse([p for p in group if p.driver in drivers], UnavailableError(Code.BUSY))
        kept = [p for p in group if p.driver not in drivers]
        if kept:
            self._put_back(kept)
            self._bytes = sum(p.size for p in kept)
            self._wake.set()

    async def _commit_group(self) -> None:
        group: list[Pending] = []
        try:
            async with self.gate:  # taken inside: what `take_back` refuses must not be on its way
                group = self._take()
                if group:
                    await self._commit(group)
        except UnavailableError:
            self._put_back(group)
        except ShanmenError as error:
            self._refuse(group, error)
            raise

    async def _commit(self, group: Sequence[Pending]) -> None:
        if self._runs.is_old:
            await self._runs.begin()
        prepared = prepare(group, self._bounds, self._seen, self._register.epoch_us)
        last = group[-1]
        turn = self.watermarks.turn() if prepared.watermarks else 0
        stamp = Stamp(self._runs.current, last.wall_us, last.boot_us, self._clock.mark(), turn)

        def work(connection: sqlite3.Connection) -> Committed:
            return self._write(connection, prepared, stamp)

        def then(committed: Committed) -> None:
            self._move(committed, stamp)
            acknowledge(group)
            self.tap.committed(group, prepared)

        await self._database.write("commit", work, then=then)

    def _refuse(self, group: Sequence[Pending], error: ShanmenError) -> None:
        for pending in group:
            if not pending.future.done():
                if pending.reading.promise is Promise.C:
                    self.losses.drop(
                        pending.reading, pending.wall_us, driver=pending.driver
                    )  # nobody has it any more
                pending.future.set_exception(error)
                pending.future.exception()  # whoever does not wait for it is not told twice

    # --- on the database's thread ------------------------------------------------------------

    def _write(self, connection: sqlite3.Connection, prepared: Prepared, stamp: Stamp) -> Committed:
        seen_row = 0
        if prepared.keys:
            seen_row = self._seen.write(connection, prepared.keys, stamp.trusted_us)
        noted = note_befores(
            connection,
            self._register.root,
            stamp.run.id,
            prepared.parts,
            noted=self._noted,
            watermarks=self.watermarks.values,
        )
        changes = [self._part(connection, part, stamp) for part in prepared.parts if part.bodies]
        count_without_rows(connection, prepared)
        moved = prepared.watermarks
        put_watermarks(connection, self._register.root, moved, turn=stamp.turn)
        told, losses = prepared.lost, self.losses
        waiting = losses.declare(connection, self._register, self._random, told, stamp.wall_us)
        refused = prepared.refused
        uncounted = self._quarantine.put(connection, refused, stamp.wall_us) if refused else {}
        if uncounted:
            counts = {
                Loss(local, QUARANTINE_FULL, driver): count
                for (local, driver), count in uncounted.items()
            }
            self.losses.remember(connection, counts, stamp.wall_us)
        return Committed(prepared, changes, seen_row, uncounted, noted, waiting)

    def _part(self, connection: sqlite3.Connection, part: Part, stamp: Stamp) -> Change:
        bound, run = part.bound, stamp.run
        birth = self._register.birth(connection, bound) if bound.must_register else None
        stream = (birth and birth.stream) or bound.stream
        if stream is None:
            stream = self._register.new_stream()
            self._register.insert_stream(connection, bound, stream)
        change = Change(part, stream, stream.next_row, birth=birth)
        source = int(stamp.mark.source)
        for count, plain in part.bodies:
            first = change.next_row
            body = lock(run.key, place_of(stream.id, run.id, first, count), plain, self._random)
            unwritten = JournalRow(
                0, stream.id, run.id, first, count, stamp.boot_us, stamp.wall_us, source
            )
            row = insert_row(connection, unwritten, body)
            change.rows.append(row)
            change.next_row += count
        connection.execute(
            "UPDATE stream SET next_row = ?, records = records + ?,"
            " maybe_repeat = maybe_repeat + ?, quarantined = quarantined + ? WHERE id = ?",
            (change.next_row, part.records, part.maybe_repeat, part.quarantined, stream.id),
        )
        return change

    # --- after COMMIT, on the loop ----------------------------------------------------------------

    def _move(self, committed: Committed, stamp: Stamp) -> None:
        self.commits += 1
        keys = committed.prepared.keys
        if keys:
            self._seen.move(keys, committed.seen_row, stamp.boot_us)
        for change in committed.changes:
            part, bound, stream = change.part, change.part.bound, change.stream
            if change.birth is not None:
                self._register.born(bound, change.birth)
            bound.stream = stream
            stream.next_row = change.next_row
            stream.rows.extend(change.rows)
            stream.waiting += part.records
            if stream.oldest_us is None:
                stream.oldest_us = stamp.boot_us
            stream.is_urgent |= part.is_urgent
            bound.counters.journalled += part.records
            bound.counters.maybe_repeat += part.maybe_repeat
            size = sum(len(body) for _, body in part.bodies)
            bound.record_bytes += (size / part.records - bound.record_bytes) / 8
            if self.is_awaited(bound):
                self.grew.set()
        for part in committed.prepared.parts:
            part.bound.counters.quarantined += part.quarantined
        for bound in committed.prepared.duplicates:
            bound.counters.duplicates += 1
        for (local, driver), count in committed.uncounted.items():
            self.losses.add(local, QUARANTINE_FULL, count, stamp.wall_us, driver=driver)
        if committed.prepared.lost:
            self.losses.declared(committed.waiting, stamp.wall_us)
        self.watermarks.move(committed.prepared.watermarks)
        self._noted |= committed.noted
