"""The agent's file: schema, pragmas, states. `user_version` is additive: release N - 1 opens N's.

Additive: new tables, new indexes that are not unique, new columns that may be NULL or have a
default. So statements name the columns that they write and read, and a file of the release after
this one keeps its own number when this one works on it. What is newer still is refused.

Tables are created in this order in an empty file, so that their root pages are known to salvage.
"""

import sqlite3
from enum import IntEnum
from pathlib import Path
from typing import Final

from agent.store import wal
from protocol.errors import Code, FatalError

VERSION: Final = 1
READS_UP_TO: Final = VERSION + 1
PAGE_BYTES: Final = 4096
WAL_LIMIT_BYTES: Final = 4 << 20
AUTOCHECKPOINT_PAGES: Final = 1000
APPLICATION_ID: Final = 0x534D5350  # "SMSP"


class BodyState(IntEnum):
    """Where a segment's body stands on its way. From 2 on: 0 and 1 would change the row's size."""

    DUE = 2  # to be sent
    HELD = 3  # waits until the owner is confirmed
    GRACE = 4  # receipted; kept until the hub's backup has it
    BAD = 5  # refused for good, or damaged: the chain goes on without it, the bytes stay
    KEPT = 6  # in the vault: never leaves


class StreamState(IntEnum):
    """Whether a stream may still grow."""

    LIVE = 0
    WAITING = 1  # after damage: heads are compared with the hub before anything is sealed
    ENDED = 2  # followed by another stream


class OutboxState(IntEnum):
    """Where an object of the agent's own stands on its way."""

    DUE = 0
    SENT = 1  # receipted; kept until the hub's backup has it
    HELD = 2  # waits until the owner is confirmed
    REFUSED = 3  # the hub said no for good; kept for the technician


TABLES: Final[tuple[str, ...]] = (
    "CREATE TABLE meta(k TEXT PRIMARY KEY, v BLOB) WITHOUT ROWID",
    (
        "CREATE TABLE run(id BLOB PRIMARY KEY, boot BLOB, started_at INT, journal_key BLOB,"
        " clock_offset INT, clock_error INT)"
    ),
    # row numbers go on where the stream before ended; the counters are totals of this stream
    (
        "CREATE TABLE stream(id BLOB PRIMARY KEY, resource BLOB, next_seq INT, head BLOB,"
        " next_row INT, acked_seq INT, state INT, sealed INT, continues BLOB, resume BLOB,"
        " records INT, duplicates INT, maybe_repeat INT, quarantined INT, accepted INT, lost INT,"
        " due_n INT, due_bytes INT, grace_n INT, grace_bytes INT)"
    ),
    # AUTOINCREMENT costs a page a commit, but salvage also finds rows of freed pages: an id that
    # came again would put a sealed row before one that waits
    (
        "CREATE TABLE journal(id INTEGER PRIMARY KEY AUTOINCREMENT, stream BLOB, run BLOB,"
        " first_row INT, n INT, boot_ns INT, wall_us INT, clock INT, body BLOB)"
    ),
    (
        "CREATE TABLE watermark(driver TEXT, source BLOB, value BLOB,"
        " PRIMARY KEY(driver, source)) WITHOUT ROWID"
    ),
    "CREATE TABLE seen(id INTEGER PRIMARY KEY, at INT, keys BLOB)",  # why a row a commit: seen.py
    (
        "CREATE TABLE epoch_key(commitment BLOB PRIMARY KEY, resource BLOB, epoch INT, grp INT,"
        " wrapped BLOB, from_us INT, to_us INT, wrap_sent INT, open INT, stream BLOB, last_seq INT,"
        " used_at INT)"
    ),
    (
        "CREATE TABLE chain(stream BLOB, seq INT, id BLOB, header BLOB, signature BLOB, leaf INT,"
        " at INT, PRIMARY KEY(stream, seq)) WITHOUT ROWID"
    ),
    (
        "CREATE TABLE body(id INTEGER PRIMARY KEY, stream BLOB, seq INT, state INT, size INT,"
        " n INT, digest BLOB, at INT, UNIQUE(stream, seq))"
    ),
    # the bytes stand apart: a receipt for 700 bodies dirties 14 pages and not 700
    "CREATE TABLE content(id INTEGER PRIMARY KEY, data BLOB)",
    (
        "CREATE TABLE outbox(id INTEGER PRIMARY KEY, kind TEXT, state INT, object BLOB, leaf INT,"
        " body INT, stream BLOB, seq INT, data BLOB)"
    ),
    (
        "CREATE TABLE quarantine(id INTEGER PRIMARY KEY, driver TEXT, reason TEXT, at INT, n INT,"
        " body BLOB)"
    ),
    # beyond edge-storage.md §3: registrations in force, and what an unsynchronised clock stamped
    (
        "CREATE TABLE resource(id BLOB PRIMARY KEY, local TEXT, version INT, entry BLOB, hash BLOB,"
        " grade INT, epoch INT, decision INT, data BLOB)"
    ),
    (
        "CREATE TABLE unsynced(stream BLOB, boot BLOB, base_us INT, from_seq INT, to_seq INT,"
        " PRIMARY KEY(stream, boot, base_us)) WITHOUT ROWID"
    ),
    (
        "CREATE TABLE receipt_day(stream BLOB, day INT, from_seq INT, to_seq INT, from_leaf INT,"
        " to_leaf INT, PRIMARY KEY(stream, day)) WITHOUT ROWID"
    ),
    "CREATE INDEX body_due ON body(id) WHERE state = 2",
    "CREATE INDEX body_grace ON body(id) WHERE state = 4",
    "CREATE INDEX outbox_due ON outbox(id) WHERE state = 0",
)


def prepare(connection: sqlite3.Connection, *, max_pages: int) -> None:
    """Set the pragmas of one connection. The file may be empty; nothing is written but its head."""
    for pragma in (
        f"page_size = {PAGE_BYTES}",
        "journal_mode = WAL",
        "synchronous = FULL",
        f"wal_autocheckpoint = {AUTOCHECKPOINT_PAGES}",
        f"journal_size_limit = {WAL_LIMIT_BYTES}",
        "cache_size = -2000",
        "mmap_size = 0",
        "temp_store = MEMORY",
        "foreign_keys = ON",
        f"max_page_count = {max_pages}",
    ):
        connection.execute(f"PRAGMA {pragma}").fetchall()


def create(connection: sqlite3.Connection) -> None:
    """Make the tables, inside the caller's transaction."""
    for statement in TABLES:
        connection.execute(statement)
    connection.execute("INSERT INTO meta(k, v) VALUES('commit', 0)")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")


def refuse_newer(path: Path) -> None:
    """Refuse a file that is newer than the release after this one; reads only, without SQLite.

    Raises FatalError VERSION_UNSUPPORTED, naming both; then nothing of the file was changed.
    """
    version = _version_on_disk(path)
    if version > READS_UP_TO:
        raise FatalError(
            Code.VERSION_UNSUPPORTED,
            field=path.name,
            value=version,
            expected=f"at most {READS_UP_TO}",
        )


def _version_on_disk(path: Path) -> int:
    """`user_version` as the newest commit has it, 0 where page 1 is not one of ours."""
    log = path.with_name(path.name + "-wal")
    try:
        with path.open("rb") as file:
            head = file.read(PAGE_BYTES)
    except FileNotFoundError:
        return 0
    found = wal.walk(log)
    if found.state is not wal.WalState.ABSENT:
        head = wal.committed(log.read_bytes(), found).get(1, head)
    is_ours = head[68:72] == APPLICATION_ID.to_bytes(4, "big") and head[:15] == b"SQLite format 3"
    return int.from_bytes(head[60:64], "big") if is_ours else 0


def version_of(connection: sqlite3.Connection) -> int:
    """The file's schema version; 0 for an empty file."""
    row = connection.execute("PRAGMA user_version").fetchone()
    return int(row[0])
