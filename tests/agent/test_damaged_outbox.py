"""Items of the outbox whose bytes changed on the disk: none of them stops the others."""

from dataclasses import replace

import pytest

from agent.keeping import fold
from agent.store.ports import CoreSettings
from protocol.leaf import State
from protocol.messages import SegmentItem, UnknownResource
from protocol.notes import Gap
from protocol.segment import parse
from tests.agent.kit import AGENT, DAY_US, GATE, Hub, Site
from tests.agent.test_headers_of_ended_streams import Picky, refuse, seal_each


def _flip(raw: bytes, at: int = -70) -> bytes:
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


async def spoil(site: Site, which: str, *values: object, at: int = -70) -> None:
    """Flip one bit of what `which` selects in the outbox, as a bad sector would."""

    def work(connection) -> None:
        row, data = connection.execute(
            f"SELECT id, data FROM outbox WHERE state = 0 AND {which}", values
        ).fetchone()
        connection.execute("UPDATE outbox SET data = ? WHERE id = ?", (_flip(data, at), row))

    await site.core.main.database.write("spoil", work)


async def spoil_chain(site: Site, stream: bytes) -> None:
    """Spoil the second place of segment 1's header."""
    await site.core.main.database.write(
        "spoil",
        lambda c: c.execute(
            "UPDATE chain SET header = substr(header, 2) WHERE stream = ? AND seq = 1", (stream,)
        ),
    )


async def wait_with_a_header(site: Site) -> bytes:
    """Segment 1 of three was refused, and its header-only item waits; the stream's id."""
    await site.give(1)
    await site.drain()
    await site.give(2)
    await site.give(3)
    await seal_each(site)
    await refuse(site, frozenset({1}))
    return site.core.bounds["gate"].stream.id


@pytest.mark.parametrize("at", [3, -70], ids=["prelude", "header"])
async def test_a_damaged_header_is_taken_from_its_chain(tmp_path, at):
    site = Site(tmp_path, hub=Picky())
    async with site.running():
        await wait_with_a_header(site)
        await spoil(site, "kind = 'header'", at=at)
        await site.drain()
    assert [one.state for one in site.hub.segments()] == [State.BODY, State.HEADER, State.BODY]
    assert site.hub.numbers() == [1, 3]
    assert "item-damaged" not in site.alarms


async def test_a_header_that_is_whole_nowhere_ends_its_stream_and_nothing_else(tmp_path):
    site = Site(tmp_path, hub=Picky())
    async with site.running():
        ended = await wait_with_a_header(site)
        await spoil(site, "kind = 'header'", at=3)
        await spoil_chain(site, ended)
        await site.give(7, resource="bays")
        await site.drain()
    assert site.hub.numbers() == [1, 3, 7]
    assert "item-damaged" in site.alarms
    (gap,) = (note for note in site.hub.notes() if isinstance(note, Gap))
    assert (gap.stream, gap.first, gap.last) == (ended, 1, 1)


async def test_a_damaged_registration_goes_as_it_stands_with_its_resource(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        await site.give(1)
        await site.seal()
        await spoil(site, "kind = 'registration'", at=40)
        await site.drain()
    assert site.hub.numbers() == [1]
    assert len(site.hub.of_kind("registration")) == 1
    assert "item-damaged" not in site.alarms


async def test_a_damaged_wrap_is_made_again(tmp_path):
    """Without it nobody could read the epoch, and no alarm would bring the key back."""
    site = Site(tmp_path)
    async with site.running():
        await site.give(1)
        await site.seal()
        await spoil(site, "kind = 'wrap'")
        await site.drain()
    assert site.hub.numbers() == [1]
    assert site.alarms.count("item-damaged") == 1


async def test_a_damaged_note_stops_nothing(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        await site.give(1)
        await site.drain()
        await site.give(2)
        await site.seal()
        await site.core.main.database.write(
            "spoil",
            lambda c: c.execute(
                "INSERT INTO outbox(kind, state, object, data)"
                " SELECT 'gap', 0, randomblob(32), data FROM outbox WHERE kind = 'registration'"
            ),
        )
        await site.drain()
        assert (await site.core.spool.stats()).objects == 0
    assert site.hub.numbers() == [1, 2]
    assert site.alarms == ["item-damaged"]


async def test_a_whole_header_whose_link_was_folded_meanwhile_still_goes(tmp_path):
    """A hub that was restored lacks old segments; they are queued as headers, the link is cut."""
    site = Site(tmp_path)
    async with site.running():
        for number in range(4):
            await site.give(number)
            await site.drain()
        site.clock.advance(3 * 86_400)
        site.core.spool.backed_up_to = 4
        await site.core.keep_house()
        site.hub.restore(ledger_size=1)
        await site.give(4)
        await site.seal()
        await site.exchange()  # Missing: the headers are queued, and then the line is cut
        queued = await site.core.main.database.read(
            lambda c: c.execute("SELECT count(*) FROM outbox WHERE kind='header'").fetchone()[0]
        )
        assert queued
        site.clock.advance(6 * 86_400)
        before_us = site.clock.wall_us - 7 * DAY_US + 1
        await site.core.main.database.write(
            "evict",
            lambda c: fold(c, before_us=before_us, backed_up_to=100, pressed=False),
        )
        await site.drain()
    assert [n for n in site.hub.notes() if isinstance(n, Gap)] == []
    assert len({one.segment.header.stream for one in site.hub.segments()}) == 1
    assert State.HEADER in {one.state for one in site.hub.segments()}


async def test_a_damaged_reason_does_not_end_the_agent(tmp_path):
    site = Site(tmp_path, hub=Picky())
    async with site.running():
        ended = await wait_with_a_header(site)
        await site.core.main.database.write(
            "spoil",
            lambda c: c.execute(
                "UPDATE outbox SET object = CAST(x'ff' || substr(object, 2) AS BLOB),"
                " data = CAST(substr(data, 1, 3) || x'00' || substr(data, 5) AS BLOB) WHERE kind = 'header'"
            ),
        )
        await spoil_chain(site, ended)
        await site.drain()
    assert site.hub.numbers() == [1, 3]


class Strict(Hub):
    """Knows a segment's resource only by its entry, as the real hub does (hub/judge.py)."""

    def _judge(self, item, accepted):
        if isinstance(item, SegmentItem):
            header = parse(item.raw).verify(AGENT.public).header
            if header.entry not in self.objects:
                return UnknownResource()
        return super()._judge(item, accepted)


async def test_a_damaged_registration_that_is_no_longer_in_force_does_not_stop_its_resource(
    tmp_path,
):
    site = Site(tmp_path, hub=Strict())
    async with site.running():
        await site.give(1)
        await site.seal()  # the hub is away
    settings = CoreSettings(resources=(replace(GATE, place="another"),))
    again = site.like(core=None, sync=None, settings=settings)
    async with again.running():
        await again.give(2)
        await again.seal()

        await spoil(again, "kind = 'registration' ORDER BY id LIMIT 1", at=40)
        for _ in range(200):
            await again.exchange()
            again.clock.advance(600)
        assert again.hub.numbers() == [1, 2]
