"""One flipped bit in a small value, which `quick_check` does not see: the agent starts, and says so."""

import sqlite3
from contextlib import closing

import pytest

from devices.driver import Promise
from tests.agent.kit import Site, watermark

VALUES = {
    "watermark": ("watermark", "value", "1"),
    "epoch_key": ("epoch_key", "wrapped", "1"),
    "checkpoint": ("meta", "v", "k = 'checkpoint'"),
    "hub": ("meta", "v", "k = 'hub'"),
    "backed_up_to_run": ("run", "journal_key", "1"),
    "continues": ("resource", "data", "1"),
}


@pytest.mark.parametrize("at", [0, 40], ids=["first byte", "byte 40"])
@pytest.mark.parametrize("which", VALUES)
async def test_one_flipped_bit_does_not_keep_the_agent_from_starting(tmp_path, which, at):
    site = Site(tmp_path)
    async with site.running():
        await site.give(1)
        await site.drain()
        await site.give(2, promise=Promise.D, watermarks=watermark(b"2" * 60))
    table, column, where = VALUES[which]
    with closing(sqlite3.connect(tmp_path / "spool.db")) as connection:
        (data,) = connection.execute(f"SELECT {column} FROM {table} WHERE {where}").fetchone()
        flipped = data[:at] + bytes([data[at] ^ 0x80]) + data[at + 1 :]
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE {where}", (flipped,))
        connection.commit()
        assert connection.execute("PRAGMA quick_check").fetchone() == ("ok",)
    async with site.running():
        await site.core.spool.stored_hub()  # asked by `shanmen-agent run` at its start
        await site.give(3)
        await site.drain()
    assert {1, 3} <= set(site.hub.numbers())
