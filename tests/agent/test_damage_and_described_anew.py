"""A damaged log and another description of the resource, found at the same start."""

import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

from agent.store.ports import CoreSettings
from agent.store.recovery import Damage, _remember
from protocol.errors import Code
from protocol.grades import Grade
from protocol.messages import HeaderItem, Refused, SegmentItem
from protocol.notes import Gap
from protocol.segment import parse
from tests.agent.kit import AGENT, GATE, Hub, Site
from tests.agent.test_headers_of_ended_streams import seal_each


@pytest.mark.parametrize("place", ["", "another"], ids=["same", "described anew"])
async def test_a_commit_that_a_damaged_log_lost_is_declared(tmp_path, place):
    site = Site(tmp_path)
    async with site.running():
        await site.give(0)
        await site.drain()
        for number in (1, 2, 3):
            await site.give(number)  # a journal row each
    path = tmp_path / "spool.db"
    with closing(sqlite3.connect(path)) as connection:  # as a dropped frame of the log leaves it
        (row,) = connection.execute(
            "SELECT id FROM journal ORDER BY id LIMIT 1 OFFSET 1"
        ).fetchone()
        connection.execute("DELETE FROM journal WHERE id = ?", (row,))
        connection.commit()
    _remember(path, Damage(), "log damaged in 1 of 9 frames")
    settings = CoreSettings(resources=(replace(GATE, place=place),))
    again = site.like(core=None, sync=None, settings=settings, alarms=[])
    async with again.running():
        assert again.core.damage.reasons
        await again.drain()
        await again.give(4)
        await again.drain()
        again.clock.advance(100)
        await again.drain()
    assert again.hub.numbers() == [0, 1, 3, 4]
    gaps = [(one.unit, one.first, one.last) for one in again.hub.notes() if isinstance(one, Gap)]
    assert gaps == [("row", 2, 2)]


def graded(grade: Grade) -> CoreSettings:
    return CoreSettings(resources=(replace(GATE, grade=grade),))


class Unwilling(Hub):
    """Takes neither body nor header of segment 1 of one stream."""

    unwilling: bytes = b""

    def _judge(self, item, accepted):
        if isinstance(item, SegmentItem | HeaderItem):
            header = parse(item.raw, body=isinstance(item, SegmentItem)).verify(AGENT.public).header
            if (header.stream, header.seq) == (self.unwilling, 1):
                return Refused(Code.MALFORMED.key, "test")
        return super()._judge(item, accepted)


@pytest.mark.parametrize("is_damaged", [False, True], ids=["sound", "damaged"])
async def test_rows_that_came_back_from_an_ended_stream_survive_a_damaged_log(tmp_path, is_damaged):
    """Their numbers are lower than what the live stream has sealed; they are not stale."""
    (tmp_path / "a").mkdir()
    site = Site(tmp_path / "a", hub=Unwilling(), settings=graded(Grade.SHAREABLE))
    async with site.running():
        await site.give(1)
        await site.drain()
        site.hub.unwilling = site.core.bounds["gate"].stream.id
        await site.give(2)
        await site.give(3)
        await seal_each(site)
    again = site.like(core=None, sync=None, settings=graded(Grade.GENERAL_PROTECTED), alarms=[])
    async with again.running():
        await again.give(4)
        await again.seal()
        for _ in range(6):
            await again.exchange()
            if again.core.bounds["gate"].stream.rows:
                break
        assert again.core.bounds["gate"].stream.rows, "3 waits in the journal again"
        image = again.image(tmp_path / "killed")
    for file in image.glob("*.db-shm"):
        file.unlink()
    if is_damaged:
        _remember(image / "spool.db", Damage(), "log damaged in 1 of 9 frames")
    killed = again.like(folder=image, core=None, sync=None, alarms=[])
    async with killed.running():
        await killed.drain()
        await killed.give(5)
        await killed.drain()
    assert killed.hub.numbers() == [1, 3, 4, 5]
