"""Runs the drivers: one failure stays one, and nobody gives up.

A driver that lost its source is asked again after a back-off, for ever. A driver with a bug is
logged with its trace and made anew; this is the one place of the agent with a wide `except`.
Reading never waits for the hub: drivers meet it only through the pipeline's commit.
"""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from agent.host.health import Health
from devices.driver import Driver, DriverError, Promise, Reading
from protocol.errors import ShanmenError

_LOG: Final = logging.getLogger(__name__)

#: Records that one driver may have submitted and not yet seen committed: twice a full commit.
WINDOW_RECORDS: Final = 4_000
#: Readings likewise; a reading may have no record at all.
WINDOW_READINGS: Final = 2_000
BACKOFF_MIN_S: Final = 1.0
BACKOFF_MAX_S: Final = 60.0
#: A driver that ran so long was well; its next failure starts from the shortest wait.
WELL_AFTER_S: Final = 60.0


class Intake(Protocol):
    """What the supervisor needs of the pipeline."""

    def submit(self, reading: Reading, *, driver: str) -> "asyncio.Future[None]":
        """Take a reading; the future is done after its commit, or failed without one."""
        ...

    async def room(self, promise: Promise) -> None:
        """Wait until a source of this class is welcome."""
        ...


@dataclass(slots=True)
class Slot:
    """One driver of the configuration and how it does."""

    name: str  # "mqtt/chirpstack": shown in status and logs
    make: Callable[[], Driver]  # constructs, never connects
    devices: Sequence[str] = ()
    driver: Driver | None = None
    failures: int = 0  # in a row
    tries: int = 0  # of these, since the source was last read: the wait grows with them
    restarts: int = 0  # in all
    last_error: str = ""
    running: bool = False
    began_s: float = 0.0  # of the present run, by the loop's clock
    pump: "Pump | None" = None  # of the present run, or of the last one


class Supervisor:
    """Runs every slot until it is cancelled."""

    def __init__(
        self,
        slots: Sequence[Slot],
        intake: Intake,
        health: Health,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        now: Callable[[], float] | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.slots = tuple(slots)
        self._intake = intake
        self._health = health
        self._sleep = sleep
        self._now = now or time.monotonic
        self._jitter = jitter
        self._paused = asyncio.Event()

    def pause(self) -> None:
        """Take no reading any more; drivers stay connected for their acknowledgements."""
        self._paused.set()

    def ask_again(self, drivers: Collection[str]) -> None:
        """Give these drivers new instances: what the old ones believe to be read was taken back."""
        for slot in self.slots:
            if slot.name in drivers:
                slot.driver = None  # also of one that waits to try again
                if slot.pump is not None:
                    slot.pump.fail("watermark taken back")

    async def run(self) -> None:
        """Run all drivers; returns only by cancellation, after each has disconnected."""
        async with asyncio.TaskGroup() as group:
            for slot in self.slots:
                group.create_task(self._keep(slot), name=f"driver {slot.name}")

    async def _keep(self, slot: Slot) -> None:
        while True:
            slot.began_s = self._now()
            wait_s = await self._once(slot)
            await self._sleep(max(wait_s, self._backoff(slot.tries)))

    async def _once(self, slot: Slot) -> float:
        """Run a driver until it ends; returns the wait in seconds that it asks for."""
        try:
            before = slot.pump
            if slot.driver is None:
                if before is not None:
                    # It begins where sources stand: what the old one gave must be in that, or out.
                    await before.settled()
                slot.driver, before = slot.make(), None
            slot.running = True
            alarm = self._health.raise_alarm
            slot.pump = Pump(
                slot.name, slot.driver, self._intake, self._paused, alarm, before=before
            )
            await slot.pump.run()
            self._failed(slot, "ended")
        except DriverError as error:
            # The source is away; the driver itself is sound and keeps its instance.
            self._failed(slot, str(error), was_read=error.was_read)
            self._health.lost(slot.devices, error.code.key)
            return error.after_s if error.retry else BACKOFF_MAX_S
        except UncommittedError as error:
            # What it believes to be read was not committed: only a new instance asks again.
            slot.driver = None
            self._failed(slot, str(error))
        except Exception as error:  # noqa: BLE001 - one driver's bug must not end the others
            slot.driver = None
            self._failed(slot, type(error).__name__)
            _LOG.exception("driver broke", extra={"driver": slot.name})
        finally:
            slot.running = False
        return 0.0

    def _failed(self, slot: Slot, reason: str, *, was_read: bool = False) -> None:
        """Count; log the first failure of a row only, a dead device must not fill the journal.

        was_read: a plug that is loose goes again and again, and is well in between.
        """
        slot.last_error = reason
        slot.restarts += 1
        if self._now() - slot.began_s >= WELL_AFTER_S:
            slot.failures = slot.tries = 0
        slot.failures += 1
        slot.tries = 1 if was_read else slot.tries + 1
        if slot.failures == 1:
            _LOG.warning("driver stopped", extra={"driver": slot.name, "reason": reason})

    def _backoff(self, tries: int) -> float:
        longest = min(BACKOFF_MAX_S, BACKOFF_MIN_S * 2.0 ** min(tries - 1, 10))
        return longest * (0.7 + 0.3 * self._jitter())


class UncommittedError(Exception):
    """A reading was submitted and not committed; its source must be asked again."""


class Pump:
    """Moves readings of one driver into the pipeline, in order, a bounded number under way."""

    def __init__(
        self,
        name: str,
        driver: Driver,
        intake: Intake,
        paused: asyncio.Event,
        alarm: Callable[..., None],
        *,
        before: "Pump | None" = None,
    ) -> None:
        """before: of the same instance, whose readings under way are looked after here now."""
        self._alarm = alarm
        self._paused = paused
        self._name = name
        self._driver = driver
        self._intake = intake
        self._under_way: deque[tuple[asyncio.Future[None], int]] = deque()
        self._records = 0
        self._has_room = asyncio.Event()
        self._failure: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        if before is not None:
            self._take_over(before)

    def _take_over(self, before: "Pump") -> None:
        under_way = self._under_way = before.hand_over()
        self._records = sum(count for _, count in under_way)
        if under_way:
            under_way[0][0].add_done_callback(self._done)

    def hand_over(self) -> "deque[tuple[asyncio.Future[None], int]]":
        """What is under way, with the records of each: another pump looks after it from now on."""
        under_way, self._under_way = self._under_way, deque()
        if under_way:
            under_way[0][0].remove_done_callback(self._done)
        return under_way

    async def settled(self) -> None:
        """Wait until everything that was handed over is committed or refused."""
        if waiting := [future for future, _ in self._under_way if not future.done()]:
            await asyncio.wait(waiting)

    def fail(self, reason: str) -> None:
        """End the driver; a new instance asks its source again from what is committed."""
        if not self._failure.done():
            self._failure.set_result(reason)

    async def run(self) -> None:
        """Pump until the driver ends. Raises what the driver raises, or UncommittedError."""
        # A task of its own: a commit that failed must end a driver that waits in silence for its
        # source, and cancelling ourselves for that could hit an await that is not the driver's.
        moving = asyncio.create_task(self._move(), name=f"pump {self._name}")
        try:
            await asyncio.wait((moving, self._failure), return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not moving.done():
                moving.cancel()
                await asyncio.wait((moving,))
        if self._failure.done():
            if not moving.cancelled():
                moving.exception()  # comes second: the commit failed first
            raise UncommittedError(self._failure.result())
        self._failure.cancel()
        moving.result()

    async def _move(self) -> None:
        readings = self._driver.run()
        try:
            async for reading in readings:
                if self._paused.is_set():
                    # Not taken, so not acknowledged: its source has it still after the stop.
                    await asyncio.Event().wait()
                self._submit(reading)
                if reading.promise is Promise.C:
                    # It cannot be asked again: the journal's ring bounds it, and counts the rest.
                    if self._is_full():
                        await asyncio.sleep(0)
                    continue
                if self._is_full():
                    self._has_room.clear()
                    await self._has_room.wait()
                await self._intake.room(reading.promise)
        finally:
            if isinstance(readings, AsyncGenerator):
                await readings.aclose()

    def _submit(self, reading: Reading) -> None:
        if self._under_way and self._under_way[0][0].done():
            self._done(self._under_way[0][0])  # its callback may not have had its turn
        if self._failure.done():
            # It counts from a watermark that was taken back, or from what was not committed.
            raise UncommittedError(self._failure.result())
        try:
            future = self._intake.submit(reading, driver=self._name)
        except ShanmenError as error:
            raise UncommittedError(error.code.key) from error
        for lost in reading.lost:
            self._alarm("source-lost", driver=self._name, reason=lost.reason)
        if future.done() and not future.cancelled() and future.exception() is None:
            return  # class C above its ring: nothing is under way
        rows = reading.rows
        count = len(rows[0].records) if len(rows) == 1 else sum(len(r.records) for r in rows)
        self._under_way.append((future, count))
        self._records += count
        if len(self._under_way) == 1:
            future.add_done_callback(self._done)

    def _is_full(self) -> bool:
        return self._records > WINDOW_RECORDS or len(self._under_way) > WINDOW_READINGS

    def _done(self, _oldest: "asyncio.Future[None]") -> None:
        """The oldest is done, usually with a whole commit: one callback looks at all of it."""
        under_way = self._under_way
        while under_way and under_way[0][0].done():
            future, count = under_way.popleft()
            self._records -= count
            error = None if future.cancelled() else future.exception()
            if future.cancelled() or error is not None:
                reason = "cancelled" if error is None else _reason(error)
                if not self._failure.done():
                    self._failure.set_result(reason)
        if under_way:
            under_way[0][0].add_done_callback(self._done)
        if not self._is_full():
            self._has_room.set()


def _reason(error: BaseException) -> str:
    return error.code.key if isinstance(error, ShanmenError) else type(error).__name__
