"""Drivers: one failure stays one, nobody gives up, nothing is acknowledged by the supervisor."""

import asyncio
import contextlib

import pytest

from agent.host.health import Health
from agent.supervisor import (
    BACKOFF_MAX_S,
    WINDOW_READINGS,
    Pump,
    Slot,
    Supervisor,
    UncommittedError,
)
from devices.driver import DeviceState, DriverError, Lost, Promise, Reading
from protocol.errors import Code, UnavailableError


class Intake:
    """Keeps what was submitted; commits when told to."""

    def __init__(self, commit=True):
        self.commit = commit
        self.futures = []
        self.readings = []
        self.got = asyncio.Event()

    def submit(self, reading, *, driver):
        future = asyncio.get_running_loop().create_future()
        self.futures.append(future)
        self.readings.append((driver, reading))
        self.got.set()
        if self.commit:
            future.set_result(None)
        return future

    async def room(self, promise):
        pass


class Scripted:
    """A driver that does what its script says, one entry a run."""

    promise = Promise.A

    def __init__(self, *script):
        self.script = list(script)
        self.runs = 0
        self.closed = 0
        self.yielded = 0

    async def run(self):
        self.runs += 1
        what = self.script.pop(0) if self.script else "wait"
        try:
            for one in [what] if not isinstance(what, list) else what:
                if isinstance(one, BaseException):
                    raise one
                if one == "wait":
                    await asyncio.Event().wait()
                else:
                    self.yielded += 1
                    yield one
        finally:
            self.closed += 1


class Waits:
    """Instead of sleeping: notes how long, and lets the loop run once."""

    def __init__(self):
        self.seconds = []
        self.changed = asyncio.Event()

    async def __call__(self, seconds):
        self.seconds.append(seconds)
        self.changed.set()
        await asyncio.sleep(0)


READING = Reading(promise=Promise.A)


@contextlib.asynccontextmanager
async def running(slots, intake, waits, **more):
    health = Health(lambda: 1)
    supervisor = Supervisor(slots, intake, health, sleep=waits, jitter=lambda: 1.0, **more)
    task = asyncio.create_task(supervisor.run())
    try:
        yield health
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


async def test_one_broken_driver_does_not_touch_the_other():
    bad = [ValueError("bug") for _ in range(50)]
    broken, sound = Scripted(*bad), Scripted([READING, READING, "wait"])
    intake, waits = Intake(), Waits()
    slots = [Slot("broken", lambda: broken), Slot("sound", lambda: sound)]
    async with running(slots, intake, waits):
        await until(lambda: broken.runs >= 5 and len(intake.readings) == 2)
        assert sound.runs == 1
        assert [driver for driver, _ in intake.readings] == ["sound", "sound"]
    assert sound.closed == 1


async def test_waits_grow_to_a_cap_and_never_end():
    lost = Scripted(*[DriverError(Code.UNREACHABLE) for _ in range(12)])
    waits = Waits()
    async with running([Slot("lost", lambda: lost)], Intake(), waits):
        await until(lambda: len(waits.seconds) >= 12)
    assert waits.seconds[:4] == [1, 2, 4, 8]
    assert waits.seconds[11] == BACKOFF_MAX_S


async def test_a_source_that_goes_again_and_again_is_looked_for_soon(caplog):
    """A loose plug: each time it was read for half a minute."""
    loose = [DriverError(Code.UNREACHABLE, was_read=True) for _ in range(8)]
    lost = Scripted(*loose, *[DriverError(Code.UNREACHABLE) for _ in range(3)])
    waits = Waits()
    async with running([Slot("lost", lambda: lost)], Intake(), waits):
        await until(lambda: len(waits.seconds) >= 11)
    assert waits.seconds[:11] == [1] * 8 + [2, 4, 8]
    assert [r.message for r in caplog.records].count("driver stopped") == 1


async def test_a_lost_source_keeps_the_instance_and_a_bug_makes_a_new_one():
    made = []

    def make():
        script = [DriverError(Code.UNREACHABLE)], [ValueError("bug")]
        driver = Scripted(*(script if not made else ("wait",)))
        made.append(driver)
        return driver

    async with running([Slot("d", make)], Intake(), Waits()):
        await until(lambda: len(made) == 2 and made[1].runs == 1)
    assert made[0].runs == 2


async def test_a_failed_commit_ends_an_instance_that_waits_in_silence():
    made = []

    def make():
        made.append(Scripted([READING, READING, "wait"]))
        return made[-1]

    intake = Intake(commit=False)
    async with running([Slot("d", make)], intake, Waits()):
        await until(lambda: len(intake.futures) == 2)
        intake.futures[0].set_exception(UnavailableError(Code.DISK_FULL))
        intake.futures[1].set_exception(UnavailableError(Code.DISK_FULL))
        await until(lambda: len(made) == 2)
        assert made[0].closed == 1


async def test_submitting_is_bounded_and_not_one_by_one():
    driver = Scripted([READING] * (WINDOW_READINGS + 500))
    intake = Intake(commit=False)
    async with running([Slot("d", lambda: driver)], intake, Waits()):
        await until(lambda: len(intake.futures) > WINDOW_READINGS)
        for _ in range(20):
            await asyncio.sleep(0)
        assert driver.yielded == WINDOW_READINGS + 1
        for future in intake.futures[:600]:
            future.set_result(None)
        await until(lambda: driver.yielded == WINDOW_READINGS + 500)
        for future in intake.futures[600:]:
            if not future.done():
                future.set_result(None)


async def test_devices_of_a_lost_source_are_absent_and_logged_once(caplog):
    lost = Scripted(*[DriverError(Code.UNREACHABLE) for _ in range(6)])
    waits = Waits()
    slot = Slot("d", lambda: lost, devices=("gate-1",))
    with caplog.at_level("INFO"):
        async with running([slot], Intake(), waits) as health:
            await until(lambda: len(waits.seconds) >= 6)
        assert health.devices["gate-1"].state is DeviceState.ABSENT
        health.seen("gate-1", 5)
    assert health.devices["gate-1"].state is DeviceState.ONLINE
    assert "device changed" not in [r.message for r in caplog.records]  # one line for all of it
    assert [r.message for r in caplog.records].count("driver stopped") == 1
    assert slot.restarts == 6


async def test_a_driver_that_ran_well_starts_from_the_shortest_wait():
    now = [0.0]

    class Well(Scripted):
        async def run(self):
            now[0] += 100.0
            async for reading in super().run():
                yield reading

    driver = Well(*[DriverError(Code.UNREACHABLE) for _ in range(3)])
    waits = Waits()
    async with running([Slot("d", lambda: driver)], Intake(), waits, now=lambda: now[0]):
        await until(lambda: len(waits.seconds) >= 3)
    assert waits.seconds[:3] == [1, 1, 1]


async def test_a_source_that_refuses_for_good_is_asked_rarely():
    driver = Scripted(DriverError(Code.NOT_ALLOWED, retry=False))
    waits = Waits()
    async with running([Slot("d", lambda: driver)], Intake(), waits):
        await until(lambda: waits.seconds)
    assert waits.seconds[0] == BACKOFF_MAX_S


async def test_cancelling_disconnects_every_driver():
    drivers = [Scripted("wait") for _ in range(3)]
    async with running(
        [Slot(str(n), lambda d=d: d) for n, d in enumerate(drivers)], Intake(), Waits()
    ):
        await until(lambda: all(d.runs for d in drivers))
    assert [d.closed for d in drivers] == [1, 1, 1]


def test_too_many_device_names_share_one_entry():
    health = Health(lambda: 1)
    for number in range(5_000):
        health.count(f"d{number}", "messages")
    assert len(health.devices) <= 4_097
    with pytest.raises(KeyError):
        health.devices["d4999"]


async def test_a_pump_that_was_failed_submits_nothing_more():
    """Between the watermark's going back and the driver's end, nothing it believes may pass."""
    taken: list[object] = []

    class Door:
        def submit(self, reading, *, driver):
            taken.append(reading)
            return asyncio.get_running_loop().create_future()

        async def room(self, promise):
            return

    class Quick:
        promise = Promise.D

        async def run(self):
            while True:
                yield Reading(promise=Promise.D)
                await asyncio.sleep(0)

    pump = Pump("quick", Quick(), Door(), asyncio.Event(), Health(lambda: 0).raise_alarm)
    task = asyncio.create_task(pump.run())
    while not taken:
        await asyncio.sleep(0)
    pump.fail("watermark taken back")
    before = len(taken)
    with pytest.raises(UncommittedError):
        await task
    assert len(taken) == before


async def test_what_a_source_lost_is_an_alarm():
    lost = Lost(resource="gate", since_us=0, reason="session lost")
    broker = Scripted([Reading(lost=[lost], promise=Promise.B), "wait"])
    async with running([Slot("mqtt/b", lambda: broker)], Intake(), Waits()) as health:
        await until(lambda: health.alarms)
    assert dict(health.alarms["source-lost"].fields) == {
        "driver": "mqtt/b",
        "reason": "session lost",
    }


async def test_a_source_that_cannot_be_asked_again_is_never_held_up():
    """Class C: no window and no room; the journal's ring bounds it, and counts the rest."""

    class Shut(Intake):
        async def room(self, promise):
            await asyncio.Event().wait()

    scanner = Scripted([Reading(promise=Promise.C)] * (3 * WINDOW_READINGS) + ["wait"])
    slot = Slot("scanner", lambda: scanner)
    async with running([slot], Shut(commit=False), Waits()):
        await until(lambda: scanner.yielded == 3 * WINDOW_READINGS)
    assert slot.restarts == 0


async def test_a_driver_in_back_off_asks_again_with_a_new_instance():
    """Its old instance believes what was taken back."""
    made, waiting, go = [], asyncio.Event(), asyncio.Event()

    def make():
        made.append(Scripted(DriverError(Code.UNREACHABLE) if not made else "wait"))
        return made[-1]

    async def wait(_seconds):
        waiting.set()
        await go.wait()

    supervisor = Supervisor([Slot("d", make)], Intake(), Health(lambda: 1), sleep=wait)
    task = asyncio.create_task(supervisor.run())
    await asyncio.wait_for(waiting.wait(), 5)
    supervisor.ask_again({"d"})
    go.set()
    await until(lambda: len(made) == 2 and made[1].runs == 1)
    assert made[0].runs == 1
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_a_new_instance_waits_for_what_the_old_one_handed_over():
    """It counts from the committed watermark: what was not committed yet would come twice."""
    made = []

    def make():
        made.append(Scripted([READING, ValueError("bug")] if not made else [READING, "wait"]))
        return made[-1]

    intake, waits = Intake(commit=False), Waits()
    async with running([Slot("one", make)], intake, waits):
        await until(lambda: waits.seconds)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(made) == 1
        intake.futures[0].set_result(None)
        await until(lambda: len(made) == 2 and len(intake.readings) == 2)


async def test_a_commit_that_fails_after_the_line_was_lost_makes_a_new_instance():
    """The instance was kept with its counts; nobody else would hear that they are not true."""
    made = []

    def make():
        made.append(Scripted([READING, DriverError(Code.UNREACHABLE)], ["wait"]))
        return made[-1]

    intake, waits = Intake(commit=False), Waits()
    async with running([Slot("one", make)], intake, waits):
        await until(lambda: made and made[0].runs == 2)
        intake.futures[0].set_exception(UnavailableError(Code.BUSY))
        await until(lambda: len(made) == 2)


async def test_a_reading_does_not_follow_one_whose_commit_failed_in_the_same_turn():
    class Failing(Intake):
        def submit(self, reading, *, driver):
            future = super().submit(reading, driver=driver)
            future.set_exception(UnavailableError(Code.BUSY))
            return future

    intake = Failing(commit=False)
    pump = Pump("one", Scripted([READING] * 3), intake, asyncio.Event(), lambda *_a, **_k: None)
    with pytest.raises(UncommittedError):
        await pump.run()
    assert len(intake.readings) == 1
