"""One function, one transaction, one hop; and what a failed COMMIT means."""

import asyncio
import os
import sqlite3

import pytest

from agent.seal import spool
from agent.store import database as module
from agent.store.database import Database
from agent.store.disk import DiskLevel
from protocol.errors import Code, FatalError, UnavailableError

BUDGET = 64 << 20
WAL_MAX = 16 << 20


class Faulty(sqlite3.Connection):
    """Fails COMMIT as told: without doing it, or after doing it."""

    plan: list[str] = []

    def execute(self, sql, *args):
        if sql == "COMMIT" and Faulty.plan:
            how = Faulty.plan.pop(0)
            if how == "done":
                super().execute(sql, *args)
            if how != "ok":
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode = 10
                raise error
        return super().execute(sql, *args)


@pytest.fixture
def faulty(monkeypatch):
    Faulty.plan = []
    monkeypatch.setattr(
        module,
        "_connect",
        lambda path: sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, factory=Faulty
        ),
    )
    monkeypatch.setattr(module, "SETTLE_WAIT_S", (0.001, 0.002))
    return Faulty


def put(value: int):
    return lambda c: c.execute("INSERT INTO meta VALUES(?, ?)", (f"k{value}", value)).rowcount


async def keys(database: Database) -> list[str]:
    rows = await database.read(
        lambda c: c.execute("SELECT k FROM meta WHERE k LIKE 'k%' ORDER BY k").fetchall()
    )
    return [row[0] for row in rows]


async def test_pragmas_are_those_of_the_design(tmp_path):
    database = await Database.open(tmp_path / "a.db", budget_bytes=BUDGET)

    def look(connection):
        return {
            name: connection.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys", "temp_store", "cache_size")
        }

    assert await database.read(look) == {
        "journal_mode": "wal",
        "synchronous": 2,
        "foreign_keys": 1,
        "temp_store": 2,
        "cache_size": -2000,
    }
    await database.close()


async def test_a_function_that_raises_rolls_back(tmp_path):
    database = await Database.open(tmp_path / "a.db", budget_bytes=BUDGET)

    def half(connection):
        put(1)(connection)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await database.write("keep", half)
    await database.write("keep", put(2))
    assert await keys(database) == ["k2"]
    await database.close()


async def test_cancelled_caller_leaves_no_open_transaction(tmp_path):
    """The transaction goes on; memory moves with it, not with the caller."""
    import threading

    database = await Database.open(tmp_path / "a.db", budget_bytes=BUDGET)
    begun, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    moved = asyncio.Event()

    def slow(connection):
        loop.call_soon_threadsafe(begun.set)
        assert go_on.wait(5)
        return put(1)(connection)

    task = asyncio.create_task(database.write("keep", slow, then=lambda _: moved.set()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    async with asyncio.timeout(5):
        await moved.wait()
        await database.write("keep", put(2))
    assert await keys(database) == ["k1", "k2"]
    await database.close()


@pytest.mark.parametrize("plan", [["lost"], ["done"], ["lost", "lost", "done"], ["done", "lost"]])
async def test_failed_commit_is_decided_by_the_commit_number(tmp_path, faulty, plan):
    database = await Database.open(tmp_path / "a.db", budget_bytes=BUDGET)
    levels = []
    database.level_changed = levels.append
    faulty.plan = list(plan)
    moved = []
    async with asyncio.timeout(5):
        for value in (1, 2, 3):
            await database.write("keep", put(value), then=moved.append)
    assert faulty.plan == []
    assert moved == [1, 1, 1]  # each moved memory exactly once
    assert await keys(database) == ["k1", "k2", "k3"]
    assert database.level is DiskLevel.NORMAL
    if "lost" in plan:
        assert DiskLevel.UNKNOWN in levels
    await database.close()


async def test_writers_behind_an_unknown_commit_wait_for_it(tmp_path, faulty):
    database = await Database.open(tmp_path / "a.db", budget_bytes=BUDGET)
    faulty.plan = ["lost", "lost", "done"]
    async with asyncio.timeout(5):
        await asyncio.gather(*(database.write("keep", put(n)) for n in range(5)))
    assert await keys(database) == [f"k{n}" for n in range(5)]
    await database.close()


async def test_full_file_raises_and_leaves_by_itself(tmp_path):
    database = await Database.open(tmp_path / "a.db", budget_bytes=2 << 20)

    def blob(connection):
        connection.execute("INSERT INTO content(data) VALUES(zeroblob(100000))")

    async def fill():
        for _ in range(200):
            await database.write("keep", blob)

    with pytest.raises(UnavailableError) as caught:
        await fill()
    assert caught.value.code is Code.DISK_FULL
    assert database.level is DiskLevel.FULL
    assert not database.room.is_set()
    # In this state there is still room for what receipts need.
    await database.write("receipt", put(1))
    await database.write("evict", lambda c: c.execute("DELETE FROM content"))
    assert database.level is DiskLevel.NORMAL
    assert database.room.is_set()
    assert (tmp_path / "a.db.reserve").stat().st_size > 0
    await database.close()


async def test_a_foreign_file_is_damage_not_a_crash(tmp_path):
    (tmp_path / "a.db").write_bytes(b"this is no database" * 1000)
    with pytest.raises(FatalError) as caught:
        await Database.open(tmp_path / "a.db", budget_bytes=BUDGET)
    assert caught.value.code is Code.STORAGE_DAMAGED


async def test_reserve_and_limit_fit_the_budget(tmp_path):
    database = await Database.open(tmp_path / "a.db", budget_bytes=BUDGET)
    reserve = (tmp_path / "a.db.reserve").stat().st_size
    (pages,) = await database.read(lambda c: c.execute("PRAGMA max_page_count").fetchone())
    assert reserve >= 2 * (4 << 20) + (8 << 20)
    assert pages * 4096 + (4 << 20) + reserve <= BUDGET
    await database.close()


async def test_the_log_stays_small_under_writes_and_looks(tmp_path):
    """edge-storage.md §6, long reader: no look holds its snapshot beyond its own call."""
    database = await Database.open(tmp_path / "a.db", budget_bytes=BUDGET)
    log = tmp_path / "a.db-wal"
    written = most = 0
    try:
        while written < 4 * WAL_MAX:
            blob = os.urandom(400_000)
            await asyncio.gather(
                database.write("put", lambda c, blob=blob: spool.put(c, "blob", blob)),
                database.read(lambda c: c.execute("SELECT count(*) FROM journal").fetchall()),
                database.read(lambda c: spool.get(c, "blob")),
            )
            written += len(blob)
            most = max(most, log.stat().st_size)
    finally:
        await database.close()
    assert most <= WAL_MAX
