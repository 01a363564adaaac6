"""Header-only items of a stream that ends: a note names what no header at the hub does, and once."""

import pytest

from protocol.errors import Code
from protocol.leaf import State
from protocol.messages import Later, Refused, SegmentItem
from protocol.segment import parse
from tests.agent.kit import AGENT, Hub, Site

ROWS = ((10,), (11, 12), (13,), (14, 15))  # each a segment, seqs 1 to 4
ALL, SOME = frozenset({1, 2, 3, 4}), frozenset({1, 2, 4})


class Picky(Hub):
    """Refuses bodies by seq, and takes no other meanwhile."""

    refuses: frozenset[int] = frozenset()

    def _judge(self, item, accepted):
        if not self.refuses or not isinstance(item, SegmentItem):
            return super()._judge(item, accepted)
        is_refused = parse(item.raw).verify(AGENT.public).header.seq in self.refuses
        return Refused(Code.MALFORMED.key, "test") if is_refused else Later(0)


async def refuse(site: Site, seqs: frozenset[int]) -> None:
    """Let the hub refuse these bodies: their headers are to follow."""
    site.hub.refuses = seqs
    await site.exchange()
    site.hub.refuses = frozenset()


async def seal_each(site: Site) -> None:
    """A segment a journal row."""
    bound = site.core.bounds["gate"]
    rows = list(bound.stream.rows)
    for row in rows:
        async with site.core.main.sealer.gate:
            bound.stream.rows.clear()
            bound.stream.rows.append(row)
            await site.core.main.sealer._seal(bound)


async def give_rows(site: Site) -> None:
    for numbers in ROWS:
        await site.give(*numbers)


@pytest.mark.parametrize(
    ("at_hub", "refused"),
    [(None, SOME), (State.HEADER, ALL), (State.BODY, SOME)],
    ids=["not at the hub", "header at the hub", "body at the hub"],
)
async def test_what_no_header_names_is_declared_once_with_its_neighbours(tmp_path, at_hub, refused):
    """A restored gateway cut the rows otherwise, or they are its own; the hub refused bodies."""
    (tmp_path / "a").mkdir()
    first = Site(tmp_path / "a", hub=Picky())
    async with first.running():
        await first.give(1)
        await first.drain()
        if at_hub is not None:
            await give_rows(first)
        image = first.image(tmp_path / "image")
        await first.give(50)
        await first.seal()
        if at_hub is State.HEADER:
            await refuse(first, frozenset({1}))
        await first.drain()
    assert first.hub.segments()[1].state is (at_hub or State.BODY)
    restored = first.like(folder=image, core=None, sync=None, alarms=[])
    async with restored.running():
        if at_hub is None:
            await give_rows(restored)
        ended = restored.core.bounds["gate"].stream.id
        await seal_each(restored)
        await refuse(restored, refused)
        await restored.drain()
        assert "fork" in restored.alarms
    notes = [(one.stream, one.unit, one.first, one.last, one.count) for one in first.hub.notes()]
    if at_hub is None:
        assert notes == [(ended, "seq", 1, 2, 3), (ended, "seq", 4, 4, 2)]
    else:
        assert notes == [], "a header of the hub's names them"
    expected = {None: [1, 13, 50], State.HEADER: [1], State.BODY: [1, *range(10, 16), 50]}
    assert first.hub.numbers() == expected[at_hub]


def flip_header(connection):
    """Change the last byte of the one that waits: it is of the signature."""
    ((row, data),) = connection.execute("SELECT id, data FROM outbox WHERE kind = 'header'")
    flipped = data[:-1] + bytes([data[-1] ^ 1])
    connection.execute("UPDATE outbox SET data = ? WHERE id = ?", (flipped, row))


async def test_a_header_that_is_damaged_here_is_declared_without_a_number(tmp_path):
    """The hub refuses it, and so its stream ends; how many records it stood for is not known."""
    site = Site(tmp_path, hub=Picky())
    async with site.running():
        await site.give(1)
        await site.drain()
        await give_rows(site)
        ended = site.core.bounds["gate"].stream.id
        await seal_each(site)
        await refuse(site, frozenset({2}))
        await site.core.main.database.write("test", flip_header)
        await site.drain()
    notes = [(one.stream, one.first, one.last, one.count) for one in site.hub.notes()]
    assert notes == [(ended, 2, 2, 0)]
    assert site.hub.numbers() == [1, 10, 13, 14, 15]


def flip_signatures(connection):
    for row, data in connection.execute(
        "SELECT id, data FROM outbox WHERE kind = 'header'"
    ).fetchall():
        flipped = data[:-1] + bytes([data[-1] ^ 1])
        connection.execute("UPDATE outbox SET data = ? WHERE id = ?", (flipped, row))


async def test_several_headers_refused_at_once_touch_no_other_object(tmp_path):
    """The first refusal ends the stream: the rows of the others are notes and wraps by then."""
    site = Site(tmp_path, hub=Picky())
    async with site.running():
        await site.give(1)
        await site.drain()
        await give_rows(site)
        await seal_each(site)
        await refuse(site, SOME)
        await site.core.main.database.write("test", flip_signatures)
        await site.drain()
        marked = await site.core.main.database.read(
            lambda c: c.execute("SELECT kind FROM outbox WHERE state = 3").fetchall()
        )
        assert marked == []
    assert [(note.first, note.last) for note in site.hub.notes()] == [(1, 2), (4, 4)]
    assert site.hub.numbers() == [1, 13]


async def test_rows_of_an_image_that_the_hub_has_as_a_header_only_are_given_anew(tmp_path):
    """Under their old numbers they overlap with that header, in each new stream again."""
    (tmp_path / "a").mkdir()
    site = Site(tmp_path / "a", hub=Picky())
    async with site.running():
        await site.give(1)
        await site.drain()
        await site.give(10)  # in the image's journal
        image = site.image(tmp_path / "image")
        await site.seal()
        await refuse(site, frozenset({1}))  # its body is refused: the header follows
        await site.drain()
    restored = site.like(folder=image, core=None, sync=None, alarms=[])
    async with restored.running():
        await restored.give(77)
        await restored.drain()
        assert restored.alarms.count("fork") == 1
        assert restored.hub.numbers() == [1, 10, 77]
    async with restored.running():
        await restored.give(78)
        await restored.drain()
    assert restored.hub.numbers() == [1, 10, 77, 78]
