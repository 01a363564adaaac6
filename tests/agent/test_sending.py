"""What the spool gives out to be sent: not before the hub's `later`, and nothing that changed."""

from protocol.leaf import State
from protocol.messages import Later, SegmentItem
from protocol.notes import Gap
from tests.agent.kit import Hub, Site


class Busy(Hub):
    """Asks to send the segments of one resource later, for as long as `later` says seconds."""

    later: int | None = None

    def _judge(self, item, accepted):
        if isinstance(item, SegmentItem) and self.later is not None:
            return Later(self.later)
        return super()._judge(item, accepted)


async def test_what_the_hub_wants_later_waits_so_long_and_holds_up_nothing_else(tmp_path):
    site = Site(tmp_path, hub=Busy())
    async with site.running():
        await site.give(1)
        await site.seal()
        site.hub.later = 90
        await site.exchange()
        site.hub.later = None
        assert 90 <= site.core.spool.held_s() < 91
        await site.give(2, resource="bays")
        await site.drain()
        assert site.hub.numbers() == [2]
        site.clock.advance(89)
        assert await site.exchange() is None
        site.clock.advance(2)
        assert site.core.spool.held_s() == 0
        await site.drain()
    assert site.hub.numbers() == [1, 2]


async def test_a_body_that_changed_on_the_disk_is_not_sent_and_its_loss_is_declared(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        await site.give(1)
        await site.drain()
        await site.give(2)
        await site.seal()
        await site.give(3)
        await site.seal()
        spoilt = await site.core.main.database.write("spoil", spoil_first_due)
        await site.drain()
    assert not any(spoilt[-64:] in body for body in site.hub.wire)
    assert site.alarms == ["body-damaged"]
    assert site.hub.numbers() == [1, 3]
    assert [one.state for one in site.hub.segments()] == [State.BODY, State.HEADER, State.BODY]
    (gap,) = (note for note in site.hub.notes() if isinstance(note, Gap))
    assert (gap.reason, gap.count) == ("body damaged", 1)


def spoil_first_due(connection):
    """Flip one bit of the first body that waits, as a bad sector would; returns what it is now."""
    row, data = connection.execute(
        "SELECT b.id, c.data FROM body b JOIN content c ON c.id = b.id WHERE b.state = 2"
    ).fetchone()
    spoilt = data[:-1] + bytes([data[-1] ^ 1])
    connection.execute("UPDATE content SET data = ? WHERE id = ?", (spoilt, row))
    return spoilt
