"""A damaged log and another description of the resource, found at the same start."""

import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

from agent.store.ports import CoreSettings
from agent.store.recovery import Damage, _remember
from protocol.notes import Gap
from tests.agent.kit import GATE, Site


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
