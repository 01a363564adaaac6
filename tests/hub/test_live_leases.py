"""What a tab leases while it scrolls, goes away and comes again."""

import asyncio
from pathlib import Path

import pytest

from hub import leases
from hub.console import feed
from hub.store import live_use
from protocol.grades import Grade
from tests.hub import kit
from tests.hub.shell import Shell
from tests.hub.test_live import Stream, Visitor, cheap, feed_of, messages, site  # noqa: F401

NOW_US = 1_795_000_000_000_000


async def a_tab_on_a_clock(shell: Shell, stream: "Stream") -> tuple[leases.Leases, list[int]]:
    """The hub's leases, on a clock of the test's own."""
    await stream.next("state")
    book, clock = feed_of(shell)._leases, [NOW_US]
    book._clock_us = lambda: clock[0]
    return book, clock


async def used_of(shell: Shell, *resources: int) -> dict[int, int]:
    day = (NOW_US + 8 * 3600 * 1_000_000) // 86_400_000_000
    return await shell.parts.store.read(live_use.of, day, resources)


async def test_what_was_scrolled_away_is_let_go(tmp_path: Path) -> None:
    async with site(tmp_path, *[Grade.GENERALLY_OPEN] * 2) as (shell, gateway, sources):
        li = await Visitor.arrive(shell)
        async with li.stream() as stream:
            book, clock = await a_tab_on_a_clock(shell, stream)
            await li.view(1, 2)
            for _ in range(60):  # ten minutes that only resource 1 is on the screen
                clock[0] += 10_000_000
                assert (await li.view(1)).json["live"] == [1]
            assert book.live(clock[0]) == {1}
            assert (await used_of(shell, 2)) == {2: 30}
            message = (await messages(shell, gateway.id))[-1].message
            assert message.resources == (sources[0].id,)


async def test_who_comes_back_to_what_was_let_go_does_not_pay_twice(tmp_path: Path) -> None:
    async with site(tmp_path, *[Grade.GENERALLY_OPEN] * 2) as (shell, _, _sources):
        li = await Visitor.arrive(shell)
        async with li.stream() as stream:
            book, clock = await a_tab_on_a_clock(shell, stream)
            await li.view(1)
            await li.view(2)
            assert book.live(clock[0]) == {2}
            clock[0] += 5_000_000
            assert (await li.view(1)).json["live"] == [1]
            assert (await used_of(shell, 1, 2)) == {1: 35, 2: 30}


async def test_one_tab_leases_at_most_twenty(tmp_path: Path) -> None:
    async with site(tmp_path, *[Grade.GENERALLY_OPEN] * 60) as (shell, _, _sources):
        li = await Visitor.arrive(shell)
        async with li.stream() as stream:
            book, clock = await a_tab_on_a_clock(shell, stream)
            for first in (1, 21, 41):  # scrolls down, once
                await li.view(*range(first, first + 20))
                assert book.live(clock[0]) == set(range(first, first + 20))
                clock[0] += 10_000_000
            for _ in range(3):
                await li.view(*range(41, 61))
                clock[0] += 10_000_000
            assert book.live(clock[0]) == set(range(41, 61))


async def test_what_another_tab_shows_stays_leased_until_that_is_gone(
    tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(feed, "HEARTBEAT_S", 0.1)  # when a tab that went is noticed
    async with site(tmp_path, *[Grade.GENERALLY_OPEN] * 2) as (shell, _, _sources):
        li = await Visitor.arrive(shell)
        async with li.stream() as stream:
            book, clock = await a_tab_on_a_clock(shell, stream)
            async with li.stream("cd" * 8) as other:
                await other.next("state")
                await li.view(1, tab="cd" * 8)
                await li.view(2)
                assert book.live(clock[0]) == {1, 2}
            async with asyncio.timeout(5):
                while len(book._views) > 1:
                    await asyncio.sleep(0.01)
            clock[0] += 20_000_000
            await li.view(2)
            assert book.live(clock[0]) == {2}


async def test_a_stream_that_came_again_gets_the_values(tmp_path: Path, monkeypatch) -> None:
    """The browser lost its link and connected anew; nobody has noticed the old stream's end."""
    # As many as make it sure that a stream taken by chance is the wrong one.
    monkeypatch.setattr(feed, "TABS_OF_SESSION_MAX", 1)
    async with site(tmp_path, Grade.GENERALLY_OPEN) as (shell, gateway, sources):
        await gateway.exchange(kit.item(sources[0].seal(2, value=5)))
        li = await Visitor.arrive(shell)
        for n in range(8):
            tab = f"{n:016x}"
            async with li.stream(tab) as old:
                await old.next("state")
                async with li.stream(tab) as new:
                    await new.next("state")
                    await li.view(1, tab=tab)
                    assert "1" in await new.next("values")
                    with pytest.raises(EOFError):
                        await old.next("values")
            feed_of(shell)._tabs.clear()


async def test_a_stream_of_the_same_name_in_another_session_goes_on(tmp_path: Path) -> None:
    async with site(tmp_path, Grade.GENERALLY_OPEN) as (shell, gateway, sources):
        await gateway.exchange(kit.item(sources[0].seal(2, value=5)))
        li, wang = await Visitor.arrive(shell), await Visitor.arrive(shell, "wang")
        async with li.stream() as first, wang.stream() as second:
            await first.next("state")
            await second.next("state")
            await li.view(1)
            await wang.view(1)
            assert "1" in await first.next("values")
            assert "1" in await second.next("values")


async def test_pages_that_went_do_not_keep_one_more_out(tmp_path: Path) -> None:
    """Long before a heartbeat would notice that they went."""
    async with site(tmp_path, Grade.GENERALLY_OPEN) as (shell, _, _sources):
        li = await Visitor.arrive(shell)
        for n in range(feed.TABS_OF_SESSION_MAX):
            async with li.stream(f"{n:016x}") as stream:
                await stream.next("state")
        async with asyncio.timeout(feed.HEARTBEAT_S / 2):
            while True:
                async with li.stream("ee" * 8) as one_more:
                    if one_more.status == 200:
                        break
                await asyncio.sleep(0.05)
