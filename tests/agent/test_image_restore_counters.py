"""An image of the gateway is restored: counters and cursors stay exact, what was acknowledged stays.

Real files and a real core; the devices are numbers that go up, and a driver that counts from the
committed watermark and is made anew when its watermark is taken back, as the supervisor does it.
"""

import asyncio
import hashlib
import random
import shutil
import tracemalloc
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import pytest
from msgspec.structs import replace

from agent import succession
from agent.intake import regain
from agent.intake.covered import Covered
from agent.store.ports import CoreSettings, ResourceSettings
from devices.driver import Promise, Reading, Rows, Watermark
from protocol.errors import UnavailableError
from protocol.evidence import Shown
from protocol.leaf import State
from protocol.limits import RESUME_BYTES_MAX
from tests.agent.kit import DAY_US, GATE, NOW_US, Site, identity, pack, record, watermark

LOAD = ResourceSettings(local="load", pack=pack("test.load"))
DOORS = [f"door-{n}/in_count" for n in range(1, 13)]
DRIVER = "mqtt/counters"


def _state(door: str, raw: int) -> bytes:
    """A watermark longer than a counter's, and of which nothing can be compressed."""
    total = raw.to_bytes(4, "big")
    return total + hashlib.blake2b(total + door.encode(), digest_size=24).digest()


@dataclass
class Building:
    """Twelve doors and what passed: the truth, which no restore of a gateway changes."""

    raw: dict[str, int] = field(default_factory=lambda: dict.fromkeys(DOORS, 0))
    log: list[int] = field(default_factory=list)  # what a cursor reads, in order

    def pass_by(self, draw: random.Random) -> None:
        for door in DOORS:
            self.raw[door] += draw.randrange(0, 9)


@dataclass
class Counting:
    """A class D driver: one report a door; its memory is the instance's."""

    site: Site
    building: Building
    promise: Promise = Promise.D
    state: dict[str, int] = field(default_factory=dict)
    resets: int = 0

    def __post_init__(self) -> None:
        self.site.core.forks.on_resumed = self.on_resumed

    def on_resumed(self, drivers: frozenset[str]) -> None:
        self.resets += 1
        if DRIVER in drivers:
            self.state.clear()

    def before(self, door: str) -> int:
        if door not in self.state:
            known = self.site.core.pipeline.watermark(DRIVER, f"counter/load/{door}")
            self.state[door] = 0 if known is None else int.from_bytes(known[:4], "big")
        return self.state[door]

    def report(
        self, doors=DOORS, at_us: Mapping[str, int] = MappingProxyType({})
    ) -> asyncio.Future:
        """at_us: the time that a door says, where it is not that of its number."""
        futures = []
        for door in doors:
            raw = self.building.raw[door]
            passed = raw - self.before(door)
            self.state[door] = raw
            mark = Watermark(source=f"counter/load/{door}", value=_state(door, raw))
            one = Reading(
                rows=[
                    Rows(
                        resource="load", records=[record(passed, text=door, at_us=at_us.get(door))]
                    )
                ],
                watermarks=[mark],
                promise=self.promise,
            )
            futures.append(self.site.core.pipeline.submit(one, driver=DRIVER))
        return asyncio.gather(*futures)

    async def read_log(self) -> None:
        """A class E cursor over the building's log, one reading for what is new."""
        known = self.site.core.pipeline.watermark("sql/log", "cursor")
        at = 0 if known is None else int.from_bytes(known, "big")
        rows = [record(n, text="log") for n in self.building.log[at:]]
        if rows:
            mark = Watermark(source="cursor", value=len(self.building.log).to_bytes(4, "big"))
            one = Reading(
                rows=[Rows(resource="log", records=rows)], watermarks=[mark], promise=Promise.E
            )
            await self.site.core.pipeline.submit(one, driver="sql/log")


LOG = ResourceSettings(local="log", pack=pack("test.log"))


def site_at(folder) -> Site:
    folder.mkdir()
    settings = CoreSettings(resources=(GATE, LOAD, LOG), commit_delay_s=0.005)
    return Site(folder, settings=settings)


def totals(site: Site) -> dict[str, int]:
    found = dict.fromkeys(DOORS, 0)
    for one in site.hub.records():
        if one.values["text"] in found:
            found[one.values["text"]] += one.values["number"]
    return found


def of(site: Site, text: str) -> list[int]:
    return [r.values["number"] for r in site.hub.records() if r.values["text"] == text]


async def finish(site: Site, driver: Counting) -> None:
    """Everything reaches the hub; whatever was taken back is counted once more."""
    for _ in range(4):
        await site.drain()
        await driver.report()
        await driver.read_log()
    await site.drain()


async def day(site: Site, building: Building, draw: random.Random, turns: int, **how) -> None:
    driver = Counting(site, building, **how)
    for _ in range(turns):
        building.pass_by(draw)
        building.log.append(len(building.log))
        await driver.report()
        await driver.read_log()


@pytest.mark.parametrize("promise", [Promise.D, Promise.B])
@pytest.mark.parametrize("sealed", ["nothing", "some", "sent-late"])
@pytest.mark.parametrize("restarts", [1, 2])
async def test_totals_are_exact_after_an_image(tmp_path, promise, sealed, restarts):
    draw, building = random.Random(7), Building()
    site = site_at(tmp_path / "a")
    async with site.running():
        await day(site, building, draw, 3, promise=promise)
        await site.drain()
        await day(site, building, draw, 2, promise=promise)
        if sealed != "nothing":
            await site.seal()
        image = site.image(tmp_path / "image")
        await site.drain()
        await day(site, building, draw, 4, promise=promise)
        await site.give(500)
        await site.drain()
        await day(site, building, draw, 1, promise=promise)  # journalled, lost with the disk
    restored = site.like(folder=image, core=None, sync=None)
    for _ in range(restarts):  # the hub is away; the image's watermarks are all there is
        async with restored.running():
            await day(restored, building, draw, 3, promise=promise)
            await restored.give(600 + _)
            if sealed == "sent-late":
                await restored.seal()
    async with restored.running():
        driver = Counting(restored, building, promise=promise)
        await driver.report()
        await finish(restored, driver)
        assert driver.resets
    assert totals(restored) == building.raw
    assert of(restored, "log") == building.log
    kept = [n for n in of(restored, "x") if n >= 500]
    assert sorted(kept) == [500, *range(600, 600 + restarts)]
    for one in restored.hub.segments():
        assert len(one.segment.header.resume or b"") <= RESUME_BYTES_MAX


@pytest.mark.parametrize("seed", range(12))
async def test_totals_are_exact_at_random(tmp_path, seed):
    """Images of any age, the empty one too, each put back as often as chance will have it."""
    draw, building = random.Random(seed), Building()
    site, images = site_at(tmp_path / "0"), []
    images.append(site.image(tmp_path / "installed"))
    for turn in range(6):
        async with site.running():
            driver = Counting(site, building)
            for _ in range(draw.randrange(2, 9)):
                step = draw.choice(("report", "report", "some", "log", "seal", "send", "image"))
                building.pass_by(draw)
                if step == "report":
                    await driver.report()
                elif step == "some":
                    await driver.report(draw.sample(DOORS, 3))
                elif step == "log":
                    building.log += [len(building.log)]
                    await driver.read_log()
                elif step == "seal":
                    await site.seal()
                elif step == "send":
                    await site.exchange(items_max=draw.randrange(1, 6))
                elif len(images) < 3:
                    images.append(site.image(tmp_path / f"image{len(images)}"))
        if draw.random() < 0.6:
            site = restored_from(draw.choice(images), site, tmp_path / f"life{turn}")
    async with site.running():
        await finish(site, Counting(site, building))
    assert totals(site) == building.raw
    assert sorted(of(site, "log")) == building.log


def restored_from(image, site: Site, folder) -> Site:
    """The gateway as the image has it; the image stays for the next time."""
    shutil.copytree(image, folder)
    return site.like(folder=folder, core=None, sync=None)


@pytest.mark.parametrize("sealed", [False, True])
async def test_totals_are_exact_after_an_image_older_than_the_first_record(tmp_path, sealed):
    """What the installer copied on the day of installation: no stream is in it."""
    draw, building = random.Random(11), Building()
    site = site_at(tmp_path / "a")
    async with site.running():
        pass
    image = site.image(tmp_path / "image")
    async with site.running():
        for _ in range(3):
            await day(site, building, draw, 3)
            await site.drain()
    restored = restored_from(image, site, tmp_path / "b")
    async with restored.running():
        await day(restored, building, draw, 12)
        if sealed:
            await restored.seal()
        await restored.give(1)
        await finish(restored, Counting(restored, building))
        assert "fork-unproven" not in restored.alarms
    assert totals(restored) == building.raw
    assert of(restored, "log") == building.log
    assert 1 in of(restored, "x")


async def test_totals_are_exact_after_the_same_image_twice(tmp_path):
    """The second time the hub has a stream that the image knows nothing of."""
    draw, building = random.Random(12), Building()
    site = site_at(tmp_path / "a")
    async with site.running():
        await day(site, building, draw, 3)
        await site.drain()
        image = site.image(tmp_path / "image")
        await day(site, building, draw, 4)
        await site.drain()
    for life in range(3):
        site = restored_from(image, site, tmp_path / f"life{life}")
        async with site.running():
            await day(site, building, draw, 2)
            await finish(site, Counting(site, building))
            await day(site, building, draw, 5)
            await site.drain()
        assert totals(site) == building.raw
        assert of(site, "log") == building.log


async def test_a_later_stream_is_newer_whatever_its_row_numbers(tmp_path):
    """Each life counts on from the image and is shorter than the one before."""
    draw, building = random.Random(16), Building()
    site = site_at(tmp_path / "a")
    async with site.running():
        await day(site, building, draw, 1)
        await site.drain()
    image = site.image(tmp_path / "image")
    async with site.running():
        await day(site, building, draw, 24)
        await site.drain()
    for turns in (12, 6, 1):
        site = restored_from(image, site, tmp_path / f"life{turns}")
        async with site.running():
            await Counting(site, building).report()
            await site.drain()  # its first rows make the fork
            await day(site, building, draw, turns)
            await site.drain()
        assert totals(site) == building.raw


async def test_a_year_of_evidence_takes_little_memory(tmp_path):
    """Half a million headers may lie behind an image: pages are folded, not kept."""
    draw, building = random.Random(13), Building()
    site = site_at(tmp_path / "a")
    async with site.running():
        await day(site, building, draw, 1)
        await site.drain()
    [one, *_] = site.hub.segments()
    [(run, _, _)] = one.segment.header.rows
    covered = Covered()

    def page(n: int) -> list[Shown]:
        return [
            Shown(
                header=replace(one.segment.header, seq=seq, rows=((run, seq * 10, seq * 10 + 9),)),
                id=one.segment.id, state=State.HEADER if seq % 1000 == 7 else State.BODY,
                leaf=0, head=b"",
            )
            for seq in range(n * 256, n * 256 + 256)
        ]  # fmt: skip

    covered.add(page(0), identity(site.hub))
    tracemalloc.start()
    try:
        kept = page(0)
        one_page, _ = tracemalloc.get_traced_memory()
        del kept
        tracemalloc.reset_peak()
        for n in range(1, 20):
            covered.add(page(n), identity(site.hub))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert covered.headers == 20 * 256
    assert covered.named == [(run, 0, 20 * 2560 - 1)]
    assert len(covered.durable) == 7, "six headers without their bodies leave six holes"
    assert peak < 2 * one_page, "nineteen pages more, and never room for two"


async def test_a_stream_that_the_hub_never_had_came_after_the_image_as_a_whole(tmp_path):
    """Even where its row numbers and those of the streams that are shown do not meet."""
    site = site_at(tmp_path / "a")
    async with site.running():
        await site.give(*range(8))
        await site.drain()
    [one] = site.hub.segments()
    header = replace(one.segment.header, rows=((b"run-0001", 500, 507),))
    shown = Shown(header=header, id=one.segment.id, state=State.BODY, leaf=0, head=b"")
    for origin, first in ((b"another-stream-1", 0), (bytes(header.stream), 500)):
        covered = Covered(origin)
        covered.add([shown], identity(site.hub))
        assert regain._since(covered, [], 4) == (first, set())


async def test_rows_of_the_image_that_nobody_accepted_stay(tmp_path):
    """The hub got less than the image holds: nothing is taken back, nothing counted again."""
    draw, building = random.Random(3), Building()
    site = site_at(tmp_path / "a")
    async with site.running():
        await day(site, building, draw, 3)
        image = site.image(tmp_path / "image")
        await site.seal()
        await site.exchange(items_max=9)
    restored = site.like(folder=image, core=None, sync=None)
    async with restored.running():
        await day(restored, building, draw, 2)
        await finish(restored, Counting(restored, building))
    assert totals(restored) == building.raw


async def test_rows_that_share_a_watermark_stay_or_go_together(tmp_path):
    """Class A is sealed before D: the hub has a later row, and lacks the one before it."""
    site, building, door = site_at(tmp_path / "a"), Building(), DOORS[:1]
    async with site.running():
        driver = Counting(site, building)
        building.raw[door[0]] = 2
        await driver.report(door)  # row 0
        image = site.image(tmp_path / "image")
        await site.drain()
        building.raw[door[0]] = 3
        await driver.report(door)  # row 1, lost with the disk
        await site.give(1, resource="load")  # row 2
        await site.seal()
        await site.exchange(items_max=1)
        assert of(site, "x") == [1]
    restored = site.like(folder=image, core=None, sync=None)
    for raw in (21, 27):  # rows 1 and 2, of two runs; they will stand in one segment
        building.raw[door[0]] = raw
        async with restored.running():
            await Counting(restored, building).report(door)
    async with restored.running():
        await finish(restored, Counting(restored, building))
    assert totals(restored) == building.raw


MIDNIGHT_US = (NOW_US // DAY_US + 1) * DAY_US


def pass_at(driver: Counting, raw: int, time_us: int) -> asyncio.Future:
    """The first door shows this total at this time."""
    driver.building.raw[DOORS[0]] = raw
    return driver.report(DOORS[:1], {DOORS[0]: time_us})


async def _some_accepted(site: Site, count: int) -> None:
    for _ in range(10 * count):
        if sum(one.state is State.BODY for one in site.hub.segments()) == count:
            return
        await site.exchange(items_max=1)
    pytest.fail(f"the hub never had {count} segments")


@pytest.mark.parametrize("accepted", [1, 2])
async def test_totals_over_midnight_are_exact_whichever_of_the_segments_the_hub_has(
    tmp_path, accepted
):
    """A cut over two epochs is several segments: each says where the door stood after it."""
    site, building = site_at(tmp_path / "a"), Building()
    door = DOORS[0]
    async with site.running():
        driver = Counting(site, building)
        await pass_at(driver, 2, MIDNIGHT_US - 9_000_000)
        await site.drain()
        image = site.image(tmp_path / "image")
        for step, raw in enumerate((5, 9, 14, 20)):
            await pass_at(driver, raw, MIDNIGHT_US + (step - 2) * 1_000_000)
        await site.seal()
        await _some_accepted(site, 1 + accepted)
        assert totals(site)[door] == (9, 20)[accepted - 1]
    restored = site.like(folder=image, core=None, sync=None)
    async with restored.running():
        await finish(restored, Counting(restored, building))
    assert totals(restored) == building.raw


@pytest.mark.parametrize("accepted", [1, 2, 3])
async def test_a_clock_that_goes_back_over_midnight_leaves_no_part_out(tmp_path, accepted):
    """What came after midnight stands between: no segment may speak for what is behind it."""
    site, building = site_at(tmp_path / "a"), Building()
    async with site.running():
        driver = Counting(site, building)
        await pass_at(driver, 2, MIDNIGHT_US - 9_000_000)
        await site.drain()
        image = site.image(tmp_path / "image")
        for raw, time_us in ((5, -2_000_000), (9, 1_000_000), (14, -1_000_000)):
            await pass_at(driver, raw, MIDNIGHT_US + time_us)
        await site.seal()
        await _some_accepted(site, 1 + accepted)
        assert totals(site)[DOORS[0]] == (5, 9, 14)[accepted - 1]
    restored = site.like(folder=image, core=None, sync=None)
    async with restored.running():
        await finish(restored, Counting(restored, building))
    assert totals(restored) == building.raw


async def test_readings_under_way_are_refused_when_the_watermark_goes_back(tmp_path):
    draw, building = random.Random(5), Building()
    site = site_at(tmp_path / "a")
    async with site.running():
        await day(site, building, draw, 2)
        await site.drain()
        image = site.image(tmp_path / "image")
        await day(site, building, draw, 2)
        await site.drain()
    settings = CoreSettings(resources=(GATE, LOAD, LOG), commit_delay_s=60.0)
    restored = site.like(folder=image, core=None, sync=None, settings=settings)
    async with restored.running():
        driver = Counting(restored, building)
        building.pass_by(draw)
        first = driver.report()
        await restored.give(1)  # what need not wait takes them along
        await first
        await restored.seal()
        building.pass_by(draw)
        late = driver.report()  # handed over before the fork, counted from the image
        await restored.drain()
        with pytest.raises(UnavailableError):
            await late
        building.pass_by(draw)
        again = driver.report()
        await restored.give(2)
        await again
        await restored.drain()
    assert totals(restored) == building.raw


async def test_what_class_a_gave_since_the_image_keeps_its_watermark(tmp_path):
    """Its rows stay, for nobody gives them again: neither may its driver forget them."""
    draw, building = random.Random(14), Building()
    site = site_at(tmp_path / "a")

    async def frame(site: Site, count: int) -> None:
        """A radio device: its frame counter stands in the watermark."""
        mark = watermark(count.to_bytes(4, "big"), "frames/d1")
        await site.give(count, resource="load", driver="mqtt/radio", watermarks=mark)

    async with site.running():
        await day(site, building, draw, 1)
        await frame(site, 10)
        await site.drain()
        image = site.image(tmp_path / "image")
        await frame(site, 20)
        await day(site, building, draw, 1)
        await site.drain()
    restored = site.like(folder=image, core=None, sync=None)
    async with restored.running():
        await frame(restored, 30)
        await finish(restored, Counting(restored, building))
        kept = restored.core.pipeline.watermark("mqtt/radio", "frames/d1")
    assert totals(restored) == building.raw
    assert of(restored, "x") == [10, 20, 30]
    assert int.from_bytes(kept or b"", "big") == 30


async def test_a_second_fork_goes_back_to_where_the_first_one_went(tmp_path):
    """A copy of the gateway speaks in the stream that the first one began, and of no counter."""
    draw, building = random.Random(15), Building()
    site = site_at(tmp_path / "a")
    async with site.running():
        await day(site, building, draw, 2)
        await site.drain()
        image = site.image(tmp_path / "image")
        await day(site, building, draw, 2)
        await site.drain()
    restored = site.like(folder=image, core=None, sync=None)
    async with restored.running():
        driver = Counting(restored, building)
        building.pass_by(draw)
        await driver.report()
        await restored.drain()
        assert driver.resets == 1
        copy = restored_from(restored.image(tmp_path / "image2"), restored, tmp_path / "copy")
        async with copy.running():
            await copy.give(*range(100), resource="load")
            await copy.drain()
        building.pass_by(draw)
        await restored.give(1)  # waits: what was noted before is not forgotten by itself
        await driver.report()
        await finish(restored, driver)
        assert driver.resets == 2
    assert totals(restored) == building.raw


@pytest.mark.parametrize("promise", [Promise.C, Promise.B, Promise.A])
async def test_what_nobody_gives_again_stays_after_an_image_restore(tmp_path, promise):
    (tmp_path / "a").mkdir()
    site = Site(tmp_path / "a")

    async def scan(site: Site, number: int) -> None:
        mark = Watermark(source="recent", value=b"codes %d" % number, is_memory=True)
        await site.give(number, promise=promise, watermarks=[mark], driver="serial/gate")

    async with site.running():
        await scan(site, 1)
        await site.drain()
        image = site.image(tmp_path / "image")
        await scan(site, 2)
        await site.drain()
    restored = site.like(folder=image, core=None, sync=None, alarms=[])
    async with restored.running():
        for number in (3, 4, 5):  # the hub is away: an afternoon of scans
            await scan(restored, number)
        await restored.drain()
        assert "fork" in restored.alarms
        await scan(restored, 6)
        await restored.drain()
        lost = restored.hub.notes()
    assert lost == []
    assert restored.hub.numbers() == [1, 2, 3, 4, 5, 6]


async def test_one_commit_group_over_midnight_of_which_the_hub_has_the_first_segment(tmp_path):
    """Two reports within `commit_delay`, one before midnight: one journal row, two segments."""
    site, building = site_at(tmp_path / "a"), Building()
    door = DOORS[0]
    async with site.running():
        driver = Counting(site, building)
        await pass_at(driver, 2, MIDNIGHT_US - 9_000_000)
        await site.drain()
        image = site.image(tmp_path / "image")
        await asyncio.gather(
            pass_at(driver, 5, MIDNIGHT_US - 1_000_000),
            pass_at(driver, 9, MIDNIGHT_US + 1_000_000),
        )
        await site.seal()
        await _some_accepted(site, 2)
        assert totals(site)[door] == 5
    restored = site.like(folder=image, core=None, sync=None)
    async with restored.running():
        await finish(restored, Counting(restored, building))
    assert totals(restored) == building.raw


async def test_two_doors_of_which_one_has_a_wrong_clock(tmp_path):
    """Each commit group is two segments, always: no midnight is needed."""
    site, building = site_at(tmp_path / "a"), Building()
    doors = DOORS[:2]
    at_us = {doors[0]: NOW_US - 5 * DAY_US, doors[1]: NOW_US}

    async with site.running():
        driver = Counting(site, building)
        building.raw |= dict.fromkeys(doors, 2)
        await driver.report(doors, at_us)
        await site.drain()
        before = len(site.hub.segments())
        image = site.image(tmp_path / "image")
        building.raw |= dict.fromkeys(doors, 7)
        await driver.report(doors, at_us)
        await site.seal()
        await _some_accepted(site, before + 1)
    restored = site.like(folder=image, core=None, sync=None)
    async with restored.running():
        await finish(restored, Counting(restored, building))
    assert totals(restored) == building.raw


async def test_the_old_behaviour_counts_twice(tmp_path, monkeypatch):
    """What this file is for: without the rule the totals are too high, and the test sees it."""
    monkeypatch.setattr(succession, "regain", lambda *_args, **_more: regain.Regained())
    with pytest.raises(AssertionError):
        await test_totals_are_exact_after_an_image(tmp_path, Promise.D, "some", 1)


async def test_resume_of_the_newest_header_alone_is_not_enough(tmp_path, monkeypatch):
    """Twelve counters do not stand in one header: only all of them together know every source."""
    whole = Covered.add

    def add(self, shown, one):
        self.newest.clear()
        self.newest_regained.clear()
        for header in shown:
            self.newest.clear()
            self.newest_regained.clear()
            whole(self, [header], one)

    monkeypatch.setattr(Covered, "add", add)
    with pytest.raises(AssertionError):
        await test_totals_are_exact_after_an_image(tmp_path, Promise.D, "nothing", 1)
