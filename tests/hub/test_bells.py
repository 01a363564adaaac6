"""When a gateway is away: what it begins counts, not what it leaves open."""

import asyncio
from pathlib import Path

from hub.api.inbox import POLL_S
from hub.bells import AWAY_AFTER_S, Bells
from protocol.report import Report, to_query
from tests.hub.shell import Gateway, serving


def test_a_poll_that_stands_is_no_sign_of_life() -> None:
    bells = Bells(4, 100.0)
    assert not bells.is_away(b"a", 100.0 + AWAY_AFTER_S), "a hub that just started waits"
    assert bells.is_away(b"a", 100.1 + AWAY_AFTER_S)
    bells.heard(b"a", 200.0)
    bell = bells.stand(b"a")
    assert not bells.is_away(b"a", 200.0 + AWAY_AFTER_S)
    assert bells.is_away(b"a", 200.1 + AWAY_AFTER_S), "stopped, or behind a black hole"
    bells.leave(b"a", bell)
    assert bells.is_away(b"a", 300.0)


def test_within_fifteen_seconds_whenever_it_stops() -> None:
    """A poll began at most POLL_S (and a round trip) before the stop; a page adds a second."""
    assert AWAY_AFTER_S + 1.0 <= 15.0
    assert POLL_S + 4.0 < AWAY_AFTER_S, "a gateway on a slow line must not flicker"


async def test_polls_and_batches_bring_the_report(tmp_path: Path) -> None:
    async with serving(tmp_path) as shell:
        await shell.site()
        gateway = Gateway(shell)
        await gateway.join()
        said = Report(at=5, records=1, segments=2, bytes=3, sending=0, oldest=4)
        before = await shell.signed(gateway.signing, "GET", "/v1/inbox?report=AAAA")
        assert before.status == 400
        assert shell.parts.reports.of(gateway.id) is None
        target = f"/v1/inbox?generation=0&n=0&report={to_query(said)}"
        poll = asyncio.create_task(shell.signed(gateway.signing, "GET", target))
        async with asyncio.timeout(5):
            while shell.parts.reports.of(gateway.id) is None:
                await asyncio.sleep(0.01)
        assert shell.parts.reports.of(gateway.id).report == said
        poll.cancel()
        size = (await shell.parts.store.read(_head)).size
        other = Report(at=6, records=0, segments=0, bytes=0, sending=0, oldest=None)
        body = gateway.sync.request([], inbox=(0, 0), software="kit", report=other)
        answer = await shell.signed(gateway.signing, "POST", "/v1/sync", body)
        assert answer.status == 200
        assert shell.parts.reports.of(gateway.id).report == other
        assert (await shell.parts.store.read(_head)).size == size, "no leaf"


def _head(tx):
    from hub.store import leaves

    return leaves.live(tx)
