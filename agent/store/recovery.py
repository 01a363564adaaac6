"""Open the file whatever happened to it: never start silently, never need a person.

    walk the WAL ─▶ damaged? copy aside ─▶ write it again so that every good frame counts
    open         ─▶ not a database, or a broken tree? copy aside ─▶ rebuild from what reads
    after damage ─▶ new streams, gap notes with bounds, heads compared with the hub first

What was found is written beside the file before anything is changed and stays until `recover` is
committed: a file that was repaired looks sound, and its loss must not become silent by a kill.
An error in use that says "malformed" leaves a mark beside the file: the next start rebuilds.
"""

import asyncio
import errno
import logging
import os
import shutil
import sqlite3
import sys
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from agent.store import salvage, wal
from agent.store.database import Database, mark_of
from agent.store.disk import reserve_of
from agent.store.files import remove, save, sync_folder
from agent.store.schema import create, prepare, refuse_newer
from agent.store.wal import WalState
from protocol.errors import Code, FatalError

_LOG: Final = logging.getLogger(__name__)

BATCH_ROWS: Final = 200
NOTE_BYTES: Final = 8


@dataclass(slots=True)
class Damage:
    """What was found and done at an open; empty reasons: nothing was wrong."""

    reasons: list[str] = field(default_factory=list)
    aside: Path | None = None
    is_rebuilt: bool = False
    since_us: int = 0  # wall time at which the lost file began, where that is known
    mark: bytes = b""  # of this finding; `recover` keeps it, so that nothing is declared twice

    def __bool__(self) -> bool:
        return bool(self.reasons)


async def open_database(path: Path, *, budget_bytes: int) -> tuple[Database, Damage]:
    """Open a file of ours, repairing or rebuilding it first where it is damaged.

    Raises UnavailableError or OSError where the disk does not answer, FatalError
    VERSION_UNSUPPORTED for the file of a newer release; damage is not an error.
    """
    await asyncio.to_thread(refuse_newer, path)
    damage = await asyncio.to_thread(_examine, path)
    try:
        database = await Database.open(path, budget_bytes=budget_bytes)
    except FatalError as error:
        if error.code is not Code.STORAGE_DAMAGED:
            raise
        await asyncio.to_thread(_replace, path, damage, "cannot be opened")
        database = await Database.open(path, budget_bytes=budget_bytes)
    sys.audit("shanmen.point", "spool.opened")
    if damage:
        _LOG.error(
            "storage damaged",
            extra={"reasons": damage.reasons, "aside": str(damage.aside), "file": path.name},
        )
    return database, damage


def any_trace(path: Path) -> bool:
    """Whether a database is or was here, also one that was lost since."""
    return path.exists() or reserve_of(path).exists() or note_of(path).exists()


def _examine(path: Path) -> Damage:
    """Everything that is done before SQLite opens the file for good."""
    damage = _remembered(path)
    _look_for_traces(path, damage)
    _repair_log(path, damage)
    if mark_of(path).exists() or (damage and path.exists() and not _is_whole(path)):
        _replace(path, damage, "malformed")
    return damage


def note_of(path: Path) -> Path:
    """The file that says: a loss was found in this database and is not declared yet."""
    return path.with_name(path.name + ".damage")


def forget(path: Path) -> None:
    """The loss is declared, in a committed transaction: the next start need not do it again."""
    remove(note_of(path))


def _remembered(path: Path) -> Damage:
    """What an earlier start found and did not come to declare."""
    try:
        raw = note_of(path).read_bytes()
    except FileNotFoundError:
        return Damage()
    try:
        return msgspec.json.decode(raw, type=Damage, dec_hook=_path)
    except msgspec.DecodeError:
        return Damage(["note of damage unreadable"], is_rebuilt=True, mark=os.urandom(NOTE_BYTES))


def _path(kind: type, text: object) -> object:
    return kind(text)


def _remember(path: Path, damage: Damage, reason: str = "") -> None:
    """Write down what was found, durably, before anything is changed."""
    if reason:
        damage.reasons.append(reason)
        damage.mark = os.urandom(NOTE_BYTES)
    data = msgspec.json.encode(damage, enc_hook=str)
    try:
        save(note_of(path), data)
    except OSError as error:
        reserve = reserve_of(path)
        if error.errno != errno.ENOSPC or not reserve.exists():
            raise
        # Its room and not its name or time: they tell of a file that is gone.
        before = reserve.stat()
        os.truncate(reserve, 0)
        os.utime(reserve, ns=(before.st_atime_ns, before.st_mtime_ns))
        save(note_of(path), data)


def _look_for_traces(path: Path, damage: Damage) -> None:
    """An empty file where a database has been is a loss, and not a first start."""
    reserve = reserve_of(path)
    is_empty = not path.exists() or path.stat().st_size == 0
    if not is_empty or not reserve.exists():
        return
    if not damage.is_rebuilt:  # else it was seen before, and the reserve may be newer
        damage.since_us = int(reserve.stat().st_mtime * 1e6)
        damage.is_rebuilt = True
        _remember(path, damage, "file empty or gone")
    path.with_name(path.name + "-wal").unlink(missing_ok=True)


def _repair_log(path: Path, damage: Damage) -> None:
    log = path.with_name(path.name + "-wal")
    found = wal.walk(log)
    if found.state is not WalState.DAMAGED:
        return
    rewritten = wal.repair(log, path)
    if rewritten is None or (found.is_header_bad and _is_copied(path, log, rewritten)):
        return
    _remember(path, damage, f"log damaged in {len(found.bad) or 1} of {found.frames} frames")
    _copy_aside(path, damage)
    save(log, rewritten)
    path.with_name(path.name + "-shm").unlink(missing_ok=True)


def _is_copied(path: Path, log: Path, rewritten: bytes) -> bool:
    """Whether a log with a torn header is in the main file already: its restart was cut."""
    size = int.from_bytes(rewritten[8:12], "big")
    pages: dict[int, bytes] = {}
    for at in range(wal.HEADER_BYTES, len(rewritten), wal.FRAME_BYTES + size):
        start = at + wal.FRAME_BYTES
        pages[int.from_bytes(rewritten[at : at + 4], "big")] = rewritten[start : start + size]
    with path.open("rb") as file:
        for number, page in pages.items():
            if not number:
                return False  # no page has this number: the frame is garbage
            file.seek((number - 1) * size)
            if file.read(size) != page:
                return False
    return log.exists()


def _is_whole(path: Path) -> bool:
    """Whether the trees hold. Reads the whole file: asked only after damage was seen."""
    try:
        with closing(sqlite3.connect(path)) as connection:
            row = connection.execute("PRAGMA integrity_check(1)").fetchone()
            return bool(row) and row[0] == "ok"
    except sqlite3.Error:
        return False


def _copy_aside(path: Path, damage: Damage) -> None:
    """Keep the damaged files for whoever wants to look; the file itself only if there is room."""
    if damage.aside is not None:
        return
    aside = path.with_name(path.name + ".damaged")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(mode=0o700)
    free = shutil.disk_usage(path.parent).free
    for suffix in ("", "-wal"):
        source = path.with_name(path.name + suffix)
        if source.exists() and source.stat().st_size * 3 < free:
            shutil.copy2(source, aside / source.name)
    sync_folder(aside)
    damage.aside = aside
    _remember(path, damage)  # the next start must not copy over them what is half repaired
    sys.audit("shanmen.point", "damage.copied")


def _replace(path: Path, damage: Damage, reason: str) -> None:
    """Rebuild a file, having written down why."""
    damage.is_rebuilt = True
    _remember(path, damage, reason)
    _copy_aside(path, damage)
    _rebuild(path)
    sys.audit("shanmen.point", "damage.rebuilt")


def _rebuild(path: Path) -> None:
    """A new file with every row that can be read of the old one. Cut off, it is begun again."""
    new = path.with_name(path.name + ".rebuilt")
    template = path.with_name(path.name + ".template")
    for leftover in (new, template):
        _unlink(leftover)
    for fresh in (new, template):
        _make(fresh)
    _fold_log(path)
    _fill(new, salvage.read(path, template))
    _unlink(template)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    new.replace(path)
    mark_of(path).unlink(missing_ok=True)
    sync_folder(path.parent)


def _make(path: Path) -> None:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        prepare(connection, max_pages=2**30)
        connection.execute("BEGIN")
        create(connection)
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _unlink(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _fold_log(path: Path) -> None:
    """Put the log's pages into the main file by hand: SQLite may refuse to open it at all."""
    log = path.with_name(path.name + "-wal")
    found = wal.walk(log)
    if found.state not in {WalState.CLEAN, WalState.TORN, WalState.DAMAGED}:
        return
    with path.open("r+b") as file:
        for number, page in wal.committed(log.read_bytes(), found).items():
            file.seek((number - 1) * len(page))
            file.write(page)
        file.flush()
        os.fsync(file.fileno())
    # The file has all of it now. Durably gone before another file takes the name: SQLite would
    # play this log over that one.
    remove(log)


def _fill(path: Path, rows: Iterable[salvage.Found]) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        prepare(connection, max_pages=2**30)
        places = {
            table: len(connection.execute(f"PRAGMA table_info({table})").fetchall())
            for table in salvage.BY_SQL
        }
        connection.execute("BEGIN")
        try:
            _insert(connection, rows, places)
        except sqlite3.OperationalError as error:
            # No room for a second file: what is worth most is in, the rest is declared as lost.
            _LOG.error("rebuilt in part", extra={"reason": str(error)})
        if not connection.in_transaction:
            connection.execute("BEGIN")
        _drop_sealed(connection)
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _insert(
    connection: sqlite3.Connection, rows: Iterable[salvage.Found], places: Mapping[str, int]
) -> None:
    for count, found in enumerate(rows):
        if len(found.row) != places[found.table]:
            continue
        verb = "INSERT OR REPLACE" if found.exact else "INSERT OR IGNORE"
        marks = ", ".join("?" * places[found.table])
        connection.execute(f"{verb} INTO {found.table} VALUES({marks})", found.row)
        if count % BATCH_ROWS == BATCH_ROWS - 1:
            connection.execute("COMMIT")
            connection.execute("BEGIN")


def _drop_sealed(connection: sqlite3.Connection) -> None:
    """Rows of freed pages may be older than what was sealed: bodies without their other half go."""
    connection.execute("DELETE FROM content WHERE id NOT IN (SELECT id FROM body)")
    connection.execute("INSERT OR IGNORE INTO meta(k, v) VALUES('commit', 0)")
