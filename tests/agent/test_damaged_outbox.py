"""Items of the outbox whose bytes changed on the disk: none of them stops the others."""

import pytest

from protocol.leaf import State
from protocol.notes import Gap
from tests.agent.kit import Site
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


@pytest.mark.parametrize("at", [3, -70], ids=["prelude", "header"])
async def test_a_damaged_header_is_taken_from_its_chain(tmp_path, at):
    site = Site(tmp_path, hub=Picky())
    async with site.running():
        await site.give(1)
        await site.drain()
        await site.give(2)
        await site.give(3)
        await seal_each(site)
        await refuse(site, frozenset({1}))
        await spoil(site, "kind = 'header'", at=at)
        await site.drain()
    assert [one.state for one in site.hub.segments()] == [State.BODY, State.HEADER, State.BODY]
    assert site.hub.numbers() == [1, 3]
    assert "item-damaged" not in site.alarms


async def test_a_header_that_is_whole_nowhere_ends_its_stream_and_nothing_else(tmp_path):
    site = Site(tmp_path, hub=Picky())
    async with site.running():
        await site.give(1)
        await site.drain()
        await site.give(2)
        await site.give(3)
        await seal_each(site)
        ended = site.core.bounds["gate"].stream.id
        await refuse(site, frozenset({1}))
        await spoil(site, "kind = 'header'", at=3)
        await site.core.main.database.write(
            "spoil",
            lambda c: c.execute(
                "UPDATE chain SET header = substr(header, 2) WHERE stream = ? AND seq = 1", (ended,)
            ),
        )
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
