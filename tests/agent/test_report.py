"""What a gateway says waits with it: counts of the real core, in a batch and in a poll."""

from agent.report import Reporter
from tests.agent.kit import Site


class Corrected:
    """A clock that the hub has set right by an hour."""

    def __init__(self, site: Site):
        self._site = site

    def now_us(self) -> int:
        return self._site.clock.wall_us

    def best_us(self) -> int:
        return self._site.clock.wall_us + 3_600_000_000


async def test_a_batch_tells_of_what_it_leaves_and_a_poll_of_everything(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        reporter = Reporter(site.core, Corrected(site))
        nothing = await reporter.with_poll()
        assert (nothing.records, nothing.segments, nothing.bytes, nothing.oldest) == (0, 0, 0, None)
        began_us = site.clock.wall_us
        await site.give(*range(3))
        journal = await reporter.with_poll()
        assert (journal.records, journal.segments) == (3, 0)
        assert journal.oldest == began_us + 3_600_000_000, "by the hub's clock"
        await site.seal()
        site.clock.advance(60)
        await site.give(*range(3, 5), resource="bays")
        both = await reporter.with_poll()
        assert (both.records, both.segments, both.sending) == (2, 1, 0)
        assert both.bytes > 0
        assert both.at - both.oldest >= 60_000_000
        items = await site.core.spool.next_items(1 << 20, 1000)
        left = await reporter.with_batch(items)
        assert (left.records, left.segments, left.bytes, left.sending) == (2, 0, 0, 1)
        assert left.at - left.oldest < 60_000_000, "what the batch takes along is not left"
        under_way = await reporter.with_poll()
        assert (under_way.segments, under_way.sending) == (0, 1)
        assert under_way.oldest == both.oldest
        assert await reporter.with_batch(items) is None, "at most one a second"
        reporter.batch_over()
        site.clock.advance(2)
        assert (await reporter.with_poll()).segments == 1
        await site.core.spool.apply(site.ask(items), items)
        assert (await reporter.with_poll()).segments == 0
