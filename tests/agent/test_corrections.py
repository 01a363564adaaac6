"""Corrections of a clock nobody had set: each segment once, whatever its base did."""

from protocol.notes import Correction
from protocol.times import ClockSource
from tests.agent.kit import FakeClock, Site


async def test_a_base_that_comes_back_corrects_nothing_twice(tmp_path):
    """Wall minus monotonic right at a border of the rounding: its base flips to and fro."""
    site = Site(tmp_path)
    site.clock.source = ClockSource.NONE
    flips = [5, 5, -5, 5, -5, -5, 5]
    async with site.running():
        site.clock.wall_us -= (site.clock.wall_us - site.clock.boot_us) % 500_000
        for number, flip in enumerate(flips):
            site.clock.wall_us += flip
            await site.give(number, at_us=site.clock.wall_us)
            await site.drain()
            site.clock.wall_us -= flip
            site.clock.advance(1)
        site.clock.source = ClockSource.SYSTEM
        site.clock.wall_us += 3_600_000_000
        await site.core.keep_house()
        await site.drain()
    notes = [note for note in site.hub.notes() if isinstance(note, Correction)]
    offsets: dict[int, int] = {}
    for note in notes:
        for seq in range(note.first_seq, note.last_seq + 1):
            assert seq not in offsets
            offsets[seq] = note.offset_us
    assert sorted(offsets) == list(range(len(flips)))
    assert len(notes) == 5  # one a range
    for seq, flip in enumerate(flips):
        later = 500_000 if flip < 0 else 0  # its base is one step earlier
        assert abs(offsets[seq] - 3_600_000_000 - later) <= 10


async def test_a_clock_that_becomes_known_while_a_segment_is_sealed(tmp_path):
    """The round of that second finds nothing to correct yet; a later one must."""
    site = Site(tmp_path, clock=FakeClock(wall_us=60_000_000, source=ClockSource.NONE))
    async with site.running():
        await site.give(1)
        database = site.core.main.database
        write = database.write

        async def slow(name, work, **more):
            if name == "seal":
                site.clock.source, site.clock.offset_us = ClockSource.HUB, 10**15
                await site.core.keep_house()
            return await write(name, work, **more)

        database.write = slow
        await site.seal()
        database.write = write
        await site.core.keep_house()
        await site.drain()
    (segment,) = site.hub.segments()
    assert segment.segment.header.clock.source is ClockSource.NONE
    (note,) = site.hub.notes()
    assert isinstance(note, Correction)
