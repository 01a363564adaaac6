"""A disk that is full when a fork is written: what was shown still counts, and it was no try."""

import contextlib
from collections import Counter

import pytest

from agent.store.recovery import mark_of
from agent.store.schema import StreamState
from protocol.errors import Code, UnavailableError
from tests.agent.kit import Site
from tests.agent.test_progress import Blind, answered


def fill(site: Site, name: str, times: int) -> Counter[str]:
    """Let the next transactions of this name find no room; counts those that did."""
    database = site.core.main.database
    write, refused = database.write, Counter()

    async def full(called, work, **more):
        if called == name and refused[name] < times:
            refused[name] += 1
            raise UnavailableError(Code.DISK_FULL)
        return await write(called, work, **more)

    database.write = full
    return refused


async def test_what_earlier_pages_showed_counts_at_the_next_try(tmp_path):
    """Only the last question is asked again: the pages before it do not come a second time."""
    (tmp_path / "a").mkdir()
    before, image = Site(tmp_path / "a"), tmp_path / "image"
    before.hub.page = 1
    async with before.running():
        await before.give(0)
        await before.drain()
        await before.give(1)  # waits in the image, and is at the hub: on the first page
        before.image(image)
        await before.drain()
        await before.give(2)
        await before.drain()
    (image / "spool.db-shm").unlink(missing_ok=True)
    mark_of(image / "spool.db").touch()
    site = before.like(folder=image, core=None, sync=None, alarms=[])
    async with site.running():
        stream = site.core.bounds["gate"].stream
        assert stream.waiting == 1
        refused = fill(site, "fork", 2)
        assert await answered(site)
        for _ in range(2):
            with pytest.raises(UnavailableError):
                await answered(site)
            assert (stream.state, stream.waiting) == (StreamState.WAITING, 1)
        assert await answered(site)
        assert refused == {"fork": 2}
        assert (stream.state, stream.waiting) == (StreamState.LIVE, 0)
        assert site.alarms == ["fork"]
        await site.give(3)
        await site.drain()
        assert site.alarms == ["fork"], "nothing was sent that overlaps with what the hub has"
    assert site.hub.numbers() == [0, 1, 2, 3]


async def test_a_full_disk_is_no_try_of_a_fork_without_evidence(tmp_path):
    """After a try the stream waits for the technician; what was rolled back was none."""
    site = Site(tmp_path, hub=Blind())
    async with site.running():
        await site.give(1)
        await site.seal()
        old = site.core.bounds["gate"].stream.id
        refused = fill(site, "fork", 2)
        while not refused:
            with contextlib.suppress(UnavailableError):
                await answered(site)
        assert site.core.bounds["gate"].stream.id == old
        with pytest.raises(UnavailableError):
            await answered(site)
        assert await answered(site), "nothing is held yet"
        assert site.core.bounds["gate"].stream.id != old
        assert site.alarms[-1] == "fork"
