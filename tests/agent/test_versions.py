"""A spool in the middle of its life under another release: older, one newer, newer still."""

import hashlib
import re
import shutil
import sqlite3
from contextlib import closing

import pytest

from agent.host.faults import Exit
from agent.host.messages import Messages
from agent.service import _storage_fault
from agent.store import schema
from agent.store.recovery import mark_of
from protocol.errors import Code, FatalError
from tests.agent.kit import Site
from tests.agent.spools import frozen, thaw
from tests.agent.spools.make import KEY, MARK, NUMBERS
from tests.shared import ROOT

NEXT, TOO_NEW = schema.VERSION + 1, schema.VERSION + 2
VERSIONS = range(1, schema.VERSION + 1)


def version_in(path):
    with closing(sqlite3.connect(path)) as connection:
        return schema.version_of(connection)


def migrate(path, version, *, crash=False):
    """What a later release may do to a file: tables, columns, indexes more, and the number."""
    connection = sqlite3.connect(path, isolation_level=None)
    tables = [row[0] for row in connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    )]  # fmt: skip
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN")
    for table in tables:
        connection.execute(f"ALTER TABLE {table} ADD COLUMN later BLOB")
        connection.execute(f"ALTER TABLE {table} ADD COLUMN flag INT NOT NULL DEFAULT 7")
    connection.execute("CREATE TABLE novelty(id INTEGER PRIMARY KEY, data BLOB)")
    connection.execute("INSERT INTO novelty VALUES(1, x'beef')")
    connection.execute("CREATE INDEX novelty_later ON journal(later)")
    connection.execute("UPDATE body SET later = x'cafe'")
    connection.execute(f"PRAGMA user_version = {version}")
    connection.execute("COMMIT")
    if crash:  # the log stays: the number stands in it alone
        shutil.copytree(path.parent, path.parent.with_name("crashed"))
        connection.close()
        shutil.rmtree(path.parent)
        path.parent.with_name("crashed").rename(path.parent)
    else:
        connection.close()


async def deliver(site, *, more=()):
    """Open, be asked again what was given, go on, drain."""
    async with site.running():
        assert site.core.pipeline.watermark("poll", "cursor") == MARK
        await site.give(1001, identity=KEY)  # its device was not answered: it is in the file
        for number in more:
            await site.give(number)
        await site.drain()
        assert site.core.main.bounds["bays"].counters.accepted > 0
    assert site.hub.numbers() == sorted([*NUMBERS, *more])  # opened with the owner's key, verified


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path / "agent").like()
    made.clock.advance(86_400)
    return made


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_file_of_a_released_version_is_delivered(site, version):
    thaw(version, site.folder / "spool.db")
    assert version_in(site.folder / "spool.db") == version
    await deliver(site, more=range(5001, 5011))
    assert site.core.damage.reasons == []
    assert version_in(site.folder / "spool.db") == schema.VERSION


def test_every_version_is_frozen():
    assert all(frozen(version).exists() for version in VERSIONS)


async def test_the_file_of_the_next_release_is_worked_on_and_keeps_what_is_its_own(site):
    path = site.folder / "spool.db"
    thaw(schema.VERSION, path)
    migrate(path, NEXT)
    await deliver(site, more=range(5001, 5011))
    assert site.core.damage.reasons == []
    with closing(sqlite3.connect(path)) as connection:
        assert schema.version_of(connection) == NEXT
        assert connection.execute("SELECT data FROM novelty").fetchall() == [(b"\xbe\xef",)]
        flags = connection.execute("SELECT DISTINCT later, flag FROM body ORDER BY 1").fetchall()
        assert flags == [(None, 7), (b"\xca\xfe", 7)]


async def test_the_file_of_the_next_release_is_rebuilt_whole_when_it_is_damaged(site):
    path = site.folder / "spool.db"
    thaw(schema.VERSION, path)
    migrate(path, NEXT)
    mark_of(path).touch()
    await deliver(site)
    assert site.core.damage.is_rebuilt
    assert version_in(path) == schema.VERSION  # the next release brings it forward again


@pytest.mark.parametrize("crash", [False, True])
async def test_a_newer_file_is_refused_with_both_versions_named_and_nothing_changed(site, crash):
    path = site.folder / "spool.db"
    thaw(schema.VERSION, path)
    migrate(path, TOO_NEW, crash=crash)
    before = digests(site.folder)
    assert ("spool.db-wal" in before) == crash
    with pytest.raises(FatalError) as refused:
        async with site.running():
            pass
    assert refused.value.code is Code.VERSION_UNSUPPORTED
    assert digests(site.folder) == before
    fault = _storage_fault(refused.value, site.folder)
    assert fault.exit is Exit.DISK
    for language in ("en", "zh"):
        said, _remedy = fault.lines(Messages(language))
        assert str(path) in said
        assert {str(TOO_NEW), str(NEXT)} <= set(re.findall(r"\d+", said.replace(str(path), "")))


def digests(folder):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.name != "spool.db-shm"
    }


def test_no_statement_depends_on_the_number_of_columns():
    """One that did would fail on the file of the next release, perhaps on a rare path."""
    for path in sorted((ROOT / "agent").glob("*.py")):
        text = path.read_text("utf-8")
        assert not re.search(r"INTO \w+ VALUES", text), path.name
        assert not re.search(r"SELECT \* ", text), path.name
