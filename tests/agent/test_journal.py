"""Commit groups: who is acknowledged when, and how many syncs that takes."""

import asyncio
import contextlib
import threading
import time

import pytest

from agent.context import Context
from agent.intake.journal import RING_BYTES, RING_OVERHEAD_BYTES
from agent.store.ports import CoreSettings
from devices.driver import DriverError, Lost, Promise, Reading, Rejected, Watermark
from protocol.errors import Code, FatalError, UnavailableError
from protocol.notes import Gap
from tests.agent.kit import BAYS, GATE, Site, reading
from tests.protocol.makers import NOW_US


class Gate:
    """Holds every COMMIT of one name back until it is opened: an fsync of any length."""

    def __init__(self, site: Site, name: str = "commit") -> None:
        database = site.core.main.database
        self._inner = database._transact
        self._open = threading.Event()
        self._loop = asyncio.get_running_loop()
        self.waiting = asyncio.Event()
        self.commits = 0
        self.name = name
        database._transact = self

    def __call__(self, name, work):
        if name == self.name:
            self.commits += 1
            self._loop.call_soon_threadsafe(self.waiting.set)
            assert self._open.wait(10)
        return self._inner(name, work)

    def open(self) -> None:
        self._open.set()


async def test_group_is_everything_that_arrived_during_the_commit_before(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        gate = Gate(site)
        first = site.core.pipeline.submit(reading(0), driver="mqtt")
        await gate.waiting.wait()
        others = [
            site.core.pipeline.submit(reading(n, identity=b"%d" % n), driver="mqtt")
            for n in range(1, 65)
        ]
        assert not first.done()
        gate.open()
        async with asyncio.timeout(5):
            await asyncio.gather(first, *others)
        assert gate.commits == 2
        await site.drain()
    assert site.hub.numbers() == list(range(65))


async def test_group_is_capped(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        gate = Gate(site)
        futures = [site.core.pipeline.submit(reading(0), driver="mqtt")]
        await gate.waiting.wait()
        futures += [
            site.core.pipeline.submit(reading(*range(n, n + 100)), driver="mqtt")
            for n in range(1, 5001, 100)
        ]
        gate.open()
        async with asyncio.timeout(5):
            await asyncio.gather(*futures)
        assert gate.commits == 1 + 3  # 5,000 records by 2,000
        rows = await site.core.main.database.read(
            lambda c: c.execute("SELECT n FROM journal").fetchall()
        )
        assert max(row[0] for row in rows) <= 2000


async def test_acknowledged_after_the_commit_and_in_order(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        gate = Gate(site)
        acked: list[int] = []
        futures = [
            site.core.pipeline.submit(reading(n, ack=lambda n=n: acked.append(n)), driver="mqtt")
            for n in range(3)
        ]
        await gate.waiting.wait()
        for _ in range(5):
            await asyncio.sleep(0)
        assert acked == []
        gate.open()
        async with asyncio.timeout(5):
            await asyncio.gather(*futures)
        await asyncio.sleep(0)
        assert acked == [0, 1, 2]


async def test_what_the_source_keeps_waits_and_rides_on_an_earlier_commit(tmp_path):
    settings = CoreSettings(resources=(GATE, BAYS), commit_delay_s=3600)
    site = Site(tmp_path, settings=settings)
    async with site.running():
        gate = Gate(site)
        gate.open()
        polled = [
            site.core.pipeline.submit(reading(n, promise=Promise.D), driver="poll")
            for n in range(5)
        ]
        for _ in range(20):
            await asyncio.sleep(0)
        assert gate.commits == 0
        await site.give(100)  # somebody waits for an acknowledgement
        assert gate.commits == 1
        assert all(future.done() for future in polled)


async def test_what_the_source_keeps_is_committed_after_the_delay(tmp_path):
    site = Site(tmp_path, settings=CoreSettings(resources=(GATE,), commit_delay_s=0.01))
    async with site.running():
        async with asyncio.timeout(5):
            await site.core.pipeline.submit(reading(1, promise=Promise.E), driver="poll")


async def test_urgent_record_is_committed_and_sealed_at_once(tmp_path):
    site = Site(tmp_path, settings=CoreSettings(resources=(GATE,), commit_delay_s=3600))
    async with site.running():
        site.core.spool.wake.clear()
        async with asyncio.timeout(5):
            await site.core.pipeline.submit(
                reading(1, promise=Promise.D, urgent=True), driver="poll"
            )
            await site.core.spool.wake.wait()
        stats = await site.core.spool.stats()
        assert stats.due == 1


async def test_stop_commits_what_is_pending(tmp_path):
    site = Site(tmp_path, settings=CoreSettings(resources=(GATE,), commit_delay_s=3600))
    async with site.running():
        future = site.core.pipeline.submit(reading(1, promise=Promise.D), driver="poll")
    assert future.done()
    assert future.exception() is None
    async with site.running():
        await site.drain()
    assert site.hub.numbers() == [1]


async def test_repeated_message_is_counted_and_acknowledged_once(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        gate = Gate(site)
        one = site.core.pipeline.submit(reading(1, identity=b"a"), driver="mqtt")
        await gate.waiting.wait()
        futures = [
            site.core.pipeline.submit(reading(1, identity=b"a"), driver="mqtt"),  # same group
            site.core.pipeline.submit(reading(2, identity=b"b"), driver="mqtt"),
            site.core.pipeline.submit(reading(2, identity=b"b"), driver="mqtt"),
            site.core.pipeline.submit(reading(3, identity=b"a"), driver="other"),
        ]
        gate.open()
        async with asyncio.timeout(5):
            await asyncio.gather(one, *futures)
    async with site.running():
        await site.give(2, identity=b"b")  # after a restart too
        await site.drain()
        counters = site.core.pipeline.counters()["gate"]
        assert counters.duplicates == 3
        assert counters.produced == 6
    assert site.hub.numbers() == [1, 2, 3]


async def test_a_repeat_moves_no_watermark(tmp_path):
    from tests.agent.kit import watermark

    site = Site(tmp_path)
    async with site.running():
        await site.give(1, identity=b"a", watermarks=watermark(b"new"))
        await site.give(1, identity=b"a", watermarks=watermark(b"old"))
        assert site.core.pipeline.watermark("mqtt", "cursor") == b"new"


async def test_back_pressure_is_bounded(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        gate = Gate(site)

        def flood():
            for _ in range(1000):
                site.core.pipeline.submit(reading(*range(100)), driver="mqtt")

        with pytest.raises(UnavailableError):
            flood()
        assert site.core.main.journal.backlog <= 34_000
        waits = asyncio.ensure_future(site.core.pipeline.room(Promise.A))
        await asyncio.sleep(0)
        assert not waits.done()
        gate.open()
        async with asyncio.timeout(10):
            await waits


async def test_acknowledgement_that_raises_stops_nobody(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        reported = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: reported.append(context))

        def broken() -> None:
            raise RuntimeError("the client is gone")

        await site.give(1, ack=broken)
        await site.give(2)
        assert len(reported) == 1
        await site.drain()
    assert site.hub.numbers() == [1, 2]


async def test_source_that_cannot_wait_is_counted_above_the_ring(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        gate = Gate(site)
        kept = 0
        counters = site.core.pipeline.counters()["gate"]
        while not counters.lost:
            last = site.core.pipeline.submit(reading(kept, promise=Promise.C), driver="scanner")
            kept += 1
        kept -= 1
        assert kept <= RING_BYTES // RING_OVERHEAD_BYTES
        await last  # accounted for: its driver goes on
        gate.open()
        async with asyncio.timeout(20):
            await site.give(10**6)
        site.core.pipeline.submit(reading(10**6 + 1, promise=Promise.C), driver="scanner")
        await site.give(10**6 + 2)  # the ring is empty again
        await site.core.keep_house()
        await site.drain()
    assert site.hub.numbers() == [*range(kept), *range(10**6, 10**6 + 3)]
    (gap,) = gaps(site)
    assert (gap.unit, gap.count, gap.reason) == ("time", 1, "no room")


def gaps(site):
    return [note for note in site.hub.notes() if isinstance(note, Gap)]


async def test_the_ring_is_not_filled_by_others(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        gate = Gate(site)
        number = 0
        while site.core.main.journal.has_room:
            site.core.pipeline.submit(reading(*range(number, number + 100)), driver="mqtt")
            number += 100
        last = site.core.pipeline.submit(reading(number, promise=Promise.C), driver="scanner")
        gate.open()
        async with asyncio.timeout(20):
            await last
        await site.drain()
    assert site.hub.numbers() == list(range(number + 1))


async def test_a_loss_outlives_a_full_disk(tmp_path):
    """The note that cannot be written is written later, with what was lost meanwhile."""
    site = Site(tmp_path)
    async with site.running():
        await site.give(0)
        journal, database = site.core.main.journal, site.core.main.database
        journal.losses.add("gate", "no room", 3, site.clock.wall_us)
        real = database._transact

        def full(name, work):
            if name == "note":
                raise UnavailableError(Code.DISK_FULL)
            return real(name, work)

        database._transact = full
        with pytest.raises(UnavailableError):
            await site.core.keeping.tell_losses()

        grown = []

        def grows(name, work):
            if name == "note" and not grown:  # sealer and keeping write too, at times of their own
                grown.append(name)
                journal.losses.add("gate", "no room", 2, site.clock.wall_us)
            return real(name, work)

        database._transact = grows
        await site.core.keeping.tell_losses()
        database._transact = real
        await site.core.keeping.tell_losses()
        assert not journal.losses
        await site.drain()
    assert [gap.count for gap in gaps(site)] == [3, 2]


async def test_a_journal_that_failed_takes_nothing_more(tmp_path):
    site = Site(tmp_path)
    refused = []
    with contextlib.suppress(ExceptionGroup):  # the core ends with what ended its journal
        async with site.running():
            database = site.core.main.database
            real = database._transact

            def breaks(name, work):
                if name == "commit":
                    raise FatalError(Code.STORAGE_DAMAGED)
                return real(name, work)

            database._transact = breaks
            for number in range(2):
                try:
                    await site.give(number)
                except FatalError as error:
                    refused.append(error.code)
    assert refused == [Code.STORAGE_DAMAGED, Code.STORAGE_UNKNOWN]


async def test_a_loss_before_the_first_record_waits_for_its_stream(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        site.core.main.journal.losses.add("gate", "quarantine full", 3, site.clock.wall_us)
        await site.core.keep_house()
        await site.give(1)
        await site.core.keep_house()
        await site.drain()
    assert [(gap.count, gap.reason) for gap in gaps(site)] == [(3, "quarantine full")]


async def test_messages_above_a_full_quarantine_are_told_for_what_their_driver_feeds(tmp_path):
    feeds = {"mqtt": ("gate",), "serial": ("bays",)}
    settings = CoreSettings(resources=(GATE, BAYS), budget_bytes=16 << 20, feeds=feeds)
    site = Site(tmp_path, settings=settings)

    async def garble(times: int, reason: str = "not-json") -> None:
        raw = Rejected(device="gate-1", reason=reason, raw=bytes(60_000))
        for _ in range(times):
            rejected = Reading(rejected=[raw], promise=Promise.B)
            await site.core.pipeline.submit(rejected, driver="mqtt")

    async with site.running():
        await site.give(1)
        await site.give(2, driver="serial", resource="bays")
        assert not site.core.main.quarantine.is_full
        await garble(30)
        assert site.core.main.quarantine.is_full
        await site.core.keep_house()
        assert not site.core.main.journal.losses
        await garble(5)
        await site.core.keep_house()  # told an hour later, not every second
        await site.drain()
        gate = site.core.main.bounds["gate"].id
        assert [(gap.resource, gap.count, gap.reason) for gap in gaps(site)] == [
            (gate, None, "quarantine full")
        ]
        site.clock.advance(3_600)
        await site.core.keep_house()
        await site.drain()
        assert len(gaps(site)) == 2
    async with site.running():
        assert site.core.main.quarantine.is_full


async def test_what_a_source_lost_is_a_gap_of_its_resource(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        await site.give(1)
        lost = Lost(resource="gate", since_us=NOW_US - 5, reason="session lost")
        told = Reading(lost=[lost], promise=Promise.B)
        await site.core.pipeline.submit(told, driver="mqtt")
        await site.core.keep_house()
        await site.drain()
    assert [(gap.unit, gap.first, gap.last, gap.count, gap.reason) for gap in gaps(site)] == [
        ("time", NOW_US - 5, NOW_US, None, "session lost")
    ]


async def test_what_a_source_lost_is_declared_by_the_commit_that_takes_it(tmp_path):
    """Killed right after it: the source's watermark moved, so nobody tells it again."""
    site, image = Site(tmp_path / "a"), tmp_path / "killed"
    async with site.running():
        await site.give(1)
        await site.drain()
        lost = Lost(resource="gate", since_us=NOW_US - 5, reason="session lost")
        mark = Watermark(source="session", value=b"0")
        told = Reading(lost=[lost], watermarks=[mark], promise=Promise.B)
        await site.core.pipeline.submit(told, driver="mqtt")
        site.image(image)
    restarted = site.like(folder=image)
    async with restarted.running():
        assert restarted.core.pipeline.watermark("mqtt", "session") == b"0"
        await restarted.drain()
    assert [gap.reason for gap in gaps(restarted)] == ["session lost"]


async def test_what_a_driver_notes_by_itself_is_durable_when_it_goes_on(tmp_path):
    site, image = Site(tmp_path / "a"), tmp_path / "killed"
    async with site.running(), asyncio.timeout(10):
        await _context(site).note(Watermark(source="session", value=b"asking"))
        site.image(image)
    restarted = site.like(folder=image)
    async with restarted.running():
        assert _context(restarted).watermark("session") == b"asking"


async def test_what_a_driver_could_not_note_ends_its_run_and_not_its_instance(
    tmp_path, monkeypatch
):
    site = Site(tmp_path)
    async with site.running(), asyncio.timeout(10):

        def submit(_pending):
            raise UnavailableError(Code.BUSY)

        with monkeypatch.context() as full:
            full.setattr(site.core.main.journal, "submit", submit)
            with pytest.raises(DriverError):
                await _context(site).note(Watermark(source="session", value=b"asking"))


def _context(site: Site) -> Context:
    """What the MQTT driver is lent; the rest of it is not for notes."""
    return Context(
        driver="mqtt",
        health=None,
        pipeline=site.core.pipeline,
        clock=None,
        keyring=None,
        root=None,
    )


async def test_what_a_source_lost_before_its_first_record_waits_for_its_stream(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        lost = Lost(resource="gate", since_us=NOW_US - 5, reason="session lost")
        told = Reading(lost=[lost], promise=Promise.B)
        await site.core.pipeline.submit(told, driver="mqtt")
        await site.give(1)
        await site.core.keep_house()
        await site.drain()
    assert [gap.reason for gap in gaps(site)] == ["session lost"]


async def test_a_loss_without_a_number_outlives_the_note_of_the_one_before(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        await site.give(0)
        losses, database = site.core.main.journal.losses, site.core.main.database
        at_us = site.clock.wall_us
        losses.add("gate", "quarantine full", 0, at_us, driver="mqtt")
        real = database._transact

        grown = []

        def grows(name, work):
            if name == "note" and not grown:
                grown.append(name)
                losses.add("gate", "quarantine full", 0, at_us + 7, driver="mqtt")
            return real(name, work)

        database._transact = grows
        await site.core.main.tell_losses()
        database._transact = real
        await site.core.main.tell_losses()
        await site.drain()
    assert [gap.last - at_us for gap in gaps(site)] == [0, 7]


async def test_losses_told_by_two_at_once_are_told_once(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        await site.give(0)
        site.core.main.journal.losses.add("gate", "no room", 3, site.clock.wall_us)
        tell = site.core.main.tell_losses
        await asyncio.gather(tell(), tell())
        await site.drain()
    assert [gap.count for gap in gaps(site)] == [3]


async def test_what_the_ring_does_not_hold_at_a_stop_is_told(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        await site.give(0)
        async with asyncio.timeout(5):
            while site.core.keeping._forgotten_us is None:  # the first round is over
                await asyncio.sleep(0)
        site.core.main.database.room.clear()  # 95 %: nothing is journalled any more
        site.core.pipeline.submit(reading(1, 2, promise=Promise.C), driver="scanner")
    async with site.running():
        await site.drain()
    assert [(gap.count, gap.reason) for gap in gaps(site)] == [(2, "no room")]


async def test_a_run_that_begins_while_keys_are_forgotten_keeps_its_key(tmp_path):
    """Its rows of a whole day could not be opened."""
    site = Site(tmp_path)
    async with site.running():
        await site.give(1)
        await site.drain()
        runs = site.core.main.runs

        async def hold() -> None:
            time.sleep(0.2)  # the new run is in the file, and the loop has not heard of it

        await asyncio.gather(runs.begin(), runs.forget(), hold())
        await site.give(2)
        await site.drain()
        assert site.hub.numbers() == [1, 2]
        assert site.core.pipeline.counters()["gate"].lost == 0
