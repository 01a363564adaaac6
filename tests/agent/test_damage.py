"""Whatever happened to the files: it starts, loses only what is damaged, and says so."""

import random
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.store import wal
from agent.store.disk import DiskLevel
from agent.store.ports import CoreSettings
from agent.store.schema import BodyState
from agent.store.wal import WalState
from devices.driver import Promise
from protocol.errors import FatalError, UnavailableError
from protocol.notes import Gap
from tests.agent.kit import BAYS, GATE, Dice, Site, reading

PAGE = 4096


def flip(path: Path, at: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)


def find(path: Path, needle: bytes) -> int:
    at = path.read_bytes().find(needle)
    assert at >= 0
    return at


def accounted(site: Site, given: set[int]) -> None:
    """Every record is at the owner's once, or a gap note may cover it."""
    got = site.hub.numbers()
    assert len(got) == len(set(got))
    assert set(got) <= given
    missing = given - set(got)
    gaps = [note for note in site.hub.notes() if isinstance(note, Gap)]
    if missing:
        assert gaps, f"silently lost {sorted(missing)[:5]} …"
        if all(gap.count is not None for gap in gaps):
            assert sum(gap.count or 0 for gap in gaps) >= len(missing)


async def crash_image(site: Site, tmp_path: Path, name: str = "image") -> Site:
    """The files as a kill leaves them: the log is not checkpointed."""
    image = site.image(tmp_path / name)
    (image / "spool.db-shm").unlink(missing_ok=True)
    return site.like(folder=image, core=None, sync=None, alarms=[])


async def filled(tmp_path: Path, groups: int = 20, **more) -> tuple[Site, Site, set[int]]:
    (tmp_path / "a").mkdir(exist_ok=True)
    site = Site(tmp_path / "a", **more)
    numbers: set[int] = set()
    async with site.running():
        for start in range(groups):
            batch = [10 * start + n for n in range(3)]
            numbers |= set(batch)
            await site.give(*batch)
            if start == groups // 2:
                await site.seal()
        image = await crash_image(site, tmp_path)
    return site, image, numbers


# --- WAL -------------------------------------------------------------------------------------------


async def test_wal_bit_flipped(tmp_path):
    _, image, numbers = await filled(tmp_path)
    log = image.folder / "spool.db-wal"
    size = log.stat().st_size
    draw = random.Random(7)
    for turn in range(12):
        copy = Site(image.folder.with_name(f"flip{turn}"), dice=Dice(50 + turn))
        import shutil

        shutil.copytree(image.folder, copy.folder)
        flip(copy.folder / "spool.db-wal", draw.randrange(size), draw.randrange(8))
        async with copy.running():
            assert copy.core.damage.reasons
            await copy.give(100_000 + turn)
            await copy.drain()
        accounted(copy, numbers | {100_000 + turn})
        # One bit in a log is nearly always mended; at the worst one body is lost.
        assert len(set(copy.hub.numbers()) & numbers) >= len(numbers) - 3


async def test_torn_tail_is_not_damage(tmp_path):
    _, image, numbers = await filled(tmp_path)
    log = image.folder / "spool.db-wal"
    with log.open("r+b") as file:
        file.truncate(log.stat().st_size - 700)
    async with image.running():
        assert not image.core.damage
        await image.drain()
    got = image.hub.numbers()
    assert set(got) <= numbers
    assert len(got) >= len(numbers) - 3


def small_log(folder: Path) -> tuple[bytes, bytes, list[tuple[int, bytes]]]:
    path = folder / "w.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, b BLOB)")
        draw = random.Random(3)
        for n in range(12):
            connection.execute("INSERT INTO t VALUES(?, ?)", (n, draw.randbytes(700)))
        rows = connection.execute("SELECT * FROM t").fetchall()
        return path.read_bytes(), (folder / "w.db-wal").read_bytes(), rows


_FOLDER = tempfile.TemporaryDirectory()
MAIN, LOG, ROWS = small_log(Path(_FOLDER.name))


def opened(main: bytes, log: bytes) -> tuple[wal.Walk, list[tuple[int, bytes]]]:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "w.db"
        path.write_bytes(main)
        log_path = Path(name) / "w.db-wal"
        log_path.write_bytes(log)
        found = wal.walk(log_path)
        if found.state is WalState.DAMAGED:
            rewritten = wal.repair(log_path, path)
            if rewritten is not None:
                log_path.write_bytes(rewritten)
        try:
            with closing(sqlite3.connect(path)) as connection:
                return found, connection.execute("SELECT * FROM t").fetchall()
        except sqlite3.Error:
            return found, []


@settings(max_examples=120)
@given(st.integers(0, 8 * len(LOG) - 1))
def test_any_bit_of_a_log(position: int):
    log = bytearray(LOG)
    log[position // 8] ^= 1 << (position % 8)
    found, rows = opened(MAIN, bytes(log))
    assert found.state is WalState.DAMAGED
    whole = [row for row, want in zip(rows, ROWS, strict=False) if row == want]
    assert len(whole) >= len(ROWS) - 1


@settings(max_examples=60)
@given(st.integers(0, len(LOG)))
def test_any_truncation_of_a_log(size: int):
    found, rows = opened(MAIN, LOG[:size])
    assert found.state in {WalState.ABSENT, WalState.TORN, WalState.CLEAN}
    assert rows == ROWS[: len(rows)]


@settings(max_examples=50)
@given(st.binary(max_size=3 * PAGE), st.integers(0, len(LOG)))
def test_any_bytes_are_a_log(junk: bytes, at: int):
    for log in (junk, LOG[:at] + junk, LOG[:at] + junk + LOG[at + len(junk) :]):
        opened(MAIN, log)  # no exception, whatever it is


# --- the file itself -------------------------------------------------------------------------------


async def test_spool_corrupted_page(tmp_path):
    """A flipped bit in a body is seen by nobody but our hashes: header-only, and the stream goes on."""
    site = Site(tmp_path)
    async with site.running():
        for number in (1, 2, 3):
            await site.give(number, text=f"{number}" * 3000)
            await site.seal()
    (raw,) = sqlite_rows(tmp_path, "SELECT data FROM content ORDER BY id LIMIT 1 OFFSET 1")[0]
    at = find(tmp_path / "spool.db", raw[-60:])
    flip(tmp_path / "spool.db", at + 30)
    async with site.running():
        await site.drain()
        assert "body-damaged" in site.alarms
        assert site.core.pipeline.counters()["gate"].lost == 1
    assert site.hub.numbers() == [1, 3]
    assert [one.segment.header.seq for one in site.hub.segments()] == [0, 1, 2]
    (gap,) = [note for note in site.hub.notes() if isinstance(note, Gap)]
    assert (gap.unit, gap.first, gap.last, gap.count) == ("seq", 1, 1, 1)


async def test_damaged_journal_body_is_declared_with_its_bounds(tmp_path):
    site = Site(tmp_path)
    async with site.running():
        for start in (0, 10, 20):
            await site.give(start, start + 1, text="y" * 200)
    (body,) = sqlite_rows(tmp_path, "SELECT body FROM journal ORDER BY id LIMIT 1 OFFSET 1")[0]
    flip(tmp_path / "spool.db", find(tmp_path / "spool.db", body[40:90]))
    async with site.running():
        await site.drain()
        assert site.core.pipeline.counters()["gate"].lost == 2
    assert site.hub.numbers() == [0, 1, 20, 21]
    (gap,) = [note for note in site.hub.notes() if isinstance(note, Gap)]
    assert (gap.unit, gap.first, gap.last, gap.count) == ("row", 2, 3, 2)


def sqlite_rows(folder: Path, sql: str) -> list[tuple]:
    with closing(sqlite3.connect(folder / "spool.db")) as connection:
        return connection.execute(sql).fetchall()


async def test_page_one_gone(tmp_path):
    site, numbers = await closed(tmp_path)
    with (tmp_path / "spool.db").open("r+b") as file:
        file.write(bytes(PAGE))
    async with site.running():
        assert site.core.damage.is_rebuilt
        await site.give(100_000)
        await site.drain()
    accounted(site, numbers | {100_000})
    assert set(site.hub.numbers()) >= numbers  # every other page was whole
    assert (tmp_path / "spool.db.damaged" / "spool.db").exists()


async def closed(tmp_path: Path) -> tuple[Site, set[int]]:
    site = Site(tmp_path)
    async with site.running():
        for start in range(12):
            await site.give(10 * start, 10 * start + 1)
            if start in {3, 7}:
                await site.seal()
            if start == 5:
                await site.drain()
    return site, {10 * start + n for start in range(12) for n in (0, 1)}


async def test_any_page_zeroed_or_filled(tmp_path):
    import shutil

    (tmp_path / "a").mkdir()
    site, numbers = await closed(tmp_path / "a")
    pages = (tmp_path / "a" / "spool.db").stat().st_size // PAGE
    for page in range(pages):
        for fill in (b"\0", b"\xff") if page % 4 == 0 else (b"\0",):
            folder = tmp_path / f"p{page}-{fill.hex()}"
            shutil.copytree(tmp_path / "a", folder)
            with (folder / "spool.db").open("r+b") as file:
                file.seek(page * PAGE)
                file.write(fill * PAGE)
            await survives(site, folder, numbers)
            shutil.rmtree(folder)


async def survives(site: Site, folder: Path, numbers: set[int]) -> None:
    """Starts (at the latest the second time), takes records, and accounts for what is missing."""
    copy = Site(folder, hub=copy_of(site.hub), dice=Dice(hash(folder.name) & 0xFFFF))
    acknowledged = set(numbers)
    for turn in range(3):
        try:
            async with copy.running():
                await copy.give(100_000 + turn)
                acknowledged.add(100_000 + turn)
                await copy.drain()
            break
        except* (FatalError, UnavailableError) as caught:  # the service manager starts it again
            if not (folder / "spool.db.malformed").exists():
                raise AssertionError(caught.exceptions) from caught
    assert 100_000 + turn in copy.hub.numbers()
    accounted(copy, acknowledged)


def copy_of(hub):
    import copy

    from tests.agent.kit import Hub

    other = Hub()
    other.ledger = copy.deepcopy(hub.ledger)
    other.streams = {key: [copy.copy(one) for one in many] for key, many in hub.streams.items()}
    other.objects, other.raw = dict(hub.objects), dict(hub.raw)
    return other


async def test_spool_truncated(tmp_path):
    import shutil

    (tmp_path / "a").mkdir()
    site, numbers = await closed(tmp_path / "a")
    size = (tmp_path / "a" / "spool.db").stat().st_size
    for cut in (0, 100, 512, PAGE, PAGE + 512, size // 2, size - PAGE, size - 512):
        folder = tmp_path / f"cut{cut}"
        shutil.copytree(tmp_path / "a", folder)
        with (folder / "spool.db").open("r+b") as file:
            file.truncate(cut)
        await survives(site, folder, numbers)


# --- full disk -------------------------------------------------------------------------------------


async def test_disk_full_agent(tmp_path):
    """No acknowledgement in the full state; the hub comes back, and it recovers by itself."""
    import asyncio

    small = CoreSettings(resources=(GATE, BAYS), budget_bytes=3 << 20, grace_s=0)
    site = Site(tmp_path, settings=small)
    draw = random.Random(1)
    given: list[int] = []
    async with site.running():
        stuck = None
        for number in range(3000):
            many = [20 * number + n for n in range(20)]
            message = reading(*many)
            for one in message.rows[0].records:
                one.values["text"] = f"{draw.getrandbits(1600):0400x}"
            future = site.core.pipeline.submit(message, driver="mqtt")
            done, _ = await asyncio.wait([future], timeout=0.3)
            if not done:
                stuck = (future, many)
                break
            given += many
            await site.core.main.sealer.seal_due()
        assert stuck is not None, "the budget was never reached"
        assert site.core.pipeline.level >= DiskLevel.ACKS_STOP
        for _ in range(200):
            if stuck[0].done():
                break
            try:
                await site.seal()
                await site.exchange()
            except UnavailableError:
                pass
            await site.core.keep_house()
            await asyncio.sleep(0)
        async with asyncio.timeout(10):
            await stuck[0]
        await site.drain(rounds=200)
        await site.core.keep_house()
        assert site.core.pipeline.level is DiskLevel.NORMAL
    assert site.hub.numbers() == sorted(given + stuck[1])
    assert (tmp_path / "spool.db").stat().st_size <= 3 << 20


async def test_polled_sources_stop_first(tmp_path):
    import asyncio

    small = CoreSettings(resources=(GATE,), budget_bytes=3 << 20)
    site = Site(tmp_path, settings=small)
    async with site.running():
        await site.give(1)
        disk = site.core.main.database.disk
        disk.pages = max(1, int(disk.used_pages / 0.9))
        await site.give(2)
        assert site.core.pipeline.level is DiskLevel.POLLED_STOP
        polled = asyncio.ensure_future(site.core.pipeline.room(Promise.E))
        acknowledged = asyncio.ensure_future(site.core.pipeline.room(Promise.A))
        await asyncio.sleep(0.01)
        assert acknowledged.done()
        assert not polled.done()
        disk.pages *= 10
        await site.give(3)
        await asyncio.wait_for(polled, 5)


async def test_file_system_filled_by_somebody_else(tmp_path):
    """SQLITE_FULL far below our own limit: it ends when the others have made room."""
    import asyncio

    site = Site(tmp_path)
    async with site.running():
        await site.give(1)
        database = site.core.main.database

        def fill(connection):
            connection.execute("PRAGMA max_page_count = 1")
            connection.execute("INSERT INTO content(data) VALUES(zeroblob(9000000))")

        try:
            await database.write("keep", fill)
        except UnavailableError:
            pass
        assert database.level is DiskLevel.FULL
        assert not database.room.is_set()
        waits = asyncio.ensure_future(site.give(2))
        await site.core.keep_house()
        await asyncio.wait_for(waits, 10)
        assert database.level is DiskLevel.NORMAL
        await site.drain()
    assert site.hub.numbers() == [1, 2]


async def test_body_state_numbers_keep_the_row_size(tmp_path):
    assert min(BodyState) >= 2
