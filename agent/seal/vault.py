"""The vault: key-protected data (重点保护级), which never leaves by itself.

It is a lane of its own: file, queue, budget, random source, health. Its segments are sealed as
all others are and their epoch keys wrapped to the owner *inside* the vault; nothing of it is
registered, counted or sent. A person at the gateway can copy it out for its owner, sealed as it is:

    file = "SMVAULT1" ‖ msgpack [kind, bytes] …        kinds: schema, wrap, gap, segment

A gateway that burns takes its vault with it; that is the price of this grade.
"""

import asyncio
import hashlib
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgpack
import msgspec

from agent.store.files import sync_folder
from agent.store.recovery import open_database
from agent.store.schema import BodyState
from protocol.errors import Code, DecodeError

MAGIC: Final = b"SMVAULT1"
KINDS: Final = ("schema", "wrap", "gap", "segment")
ITEM_BYTES_MAX: Final = 8 << 20


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export wrote."""

    resources: int
    segments: int
    records: int
    waiting: int  # records that are journalled and not sealed yet: not in the file
    last_segment: int  # row id of the last one in the file
    last_note: int  # likewise, of outbox
    digest: bytes  # of the file's bytes


def export(vault: Path, target: Path) -> Exported:
    """Copy schemas, wraps and segments of a vault into one durable file (0600), sealed as they are.

    Reads beside a running agent and changes nothing. Raises OSError, FileExistsError, and
    DecodeError STORAGE_DAMAGED for a file that is no vault.
    """
    try:
        with closing(sqlite3.connect(f"{vault.absolute().as_uri()}?mode=ro", uri=True)) as source:
            return _copy(source, target)
    except sqlite3.Error as error:
        raise DecodeError(Code.STORAGE_DAMAGED, field=vault.name, expected=str(error)) from error


async def carry_out(vault: Path, target: Path, *, budget_bytes: int) -> Exported:
    """Export, then let the vault go of the segments and gap notes that the file holds.

    The caller holds the folder's lock: nobody else writes. They leave in one transaction, after the
    file is durable and was read back from the disk: a crash between exports them twice, and never
    loses them. Schemas and wraps stay, for what is sealed later. Raises as `export` does, and
    DecodeError STORAGE_DAMAGED where vault or file are not what they should be.
    """
    database, damage = await open_database(vault, budget_bytes=budget_bytes)
    try:
        if damage:  # the agent's next start declares it, and knows what else to do
            raise DecodeError(Code.STORAGE_DAMAGED, field=vault.name, value=damage.reasons)
        done = await asyncio.to_thread(export, vault, target)
        if await asyncio.to_thread(_digest_on_disk, target) != done.digest:
            raise DecodeError(Code.STORAGE_DAMAGED, field=str(target), expected="what was written")
        await database.write("evict", lambda connection: _let_go(connection, done))
    finally:
        await database.close()
    return done


def _let_go(connection: sqlite3.Connection, done: Exported) -> None:
    # Sealed bytes need not be overwritten with zeros: that would write the whole vault once more.
    connection.execute("PRAGMA secure_delete = OFF").fetchall()
    which = (done.last_segment, int(BodyState.KEPT))
    # The last link of a stream stays: the next segment names it.
    connection.execute(
        "DELETE FROM chain WHERE EXISTS (SELECT 1 FROM body b WHERE b.stream = chain.stream"
        " AND b.seq = chain.seq AND b.id <= ? AND b.state = ?)"
        " AND seq < (SELECT next_seq FROM stream s WHERE s.id = chain.stream) - 1",
        which,
    )
    connection.execute(
        "DELETE FROM content WHERE id IN (SELECT id FROM body WHERE id <= ? AND state = ?)", which
    )
    connection.execute("DELETE FROM body WHERE id <= ? AND state = ?", which)
    connection.execute("DELETE FROM outbox WHERE kind = 'gap' AND id <= ?", (done.last_note,))


def _digest_on_disk(target: Path) -> bytes:
    with target.open("rb") as file:
        # Out of the page cache, where that is possible: what counts is what the medium holds.
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return hashlib.file_digest(file, _hash).digest()


def _hash() -> "hashlib.blake2b":
    return hashlib.blake2b(digest_size=32)


def _copy(source: sqlite3.Connection, target: Path) -> Exported:
    encode = msgspec.msgpack.Encoder().encode
    digest = _hash()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with os.fdopen(os.open(target, flags, 0o600), "wb") as file:

        def put(data: bytes) -> None:
            file.write(data)
            digest.update(data)

        put(MAGIC)
        note = 0
        for row, kind, data in _objects(source):
            note = row
            put(encode([kind, data]))
        after, segments, records = 0, 0, 0
        while (found := _segment(source, after)) is not None:
            after, count, data = found
            put(encode(["segment", data]))
            segments, records = segments + 1, records + count
        file.flush()
        os.fsync(file.fileno())
    sync_folder(target.absolute().parent)
    (resources,) = source.execute("SELECT count(*) FROM resource").fetchone()
    (waiting,) = source.execute("SELECT coalesce(sum(n), 0) FROM journal").fetchone()
    return Exported(resources, segments, records, waiting, after, note, digest.digest())


def _objects(source: sqlite3.Connection) -> list[tuple[int, str, bytes]]:
    found: list[tuple[int, str, bytes]] = source.execute(
        "SELECT id, kind, data FROM outbox WHERE kind IN ('schema', 'wrap', 'gap') ORDER BY id"
    ).fetchall()
    return found


def _segment(source: sqlite3.Connection, after: int) -> tuple[int, int, bytes] | None:
    """One statement a segment: no snapshot is held while the file grows."""
    found: tuple[int, int, bytes] | None = source.execute(
        "SELECT b.id, b.n, c.data FROM body b JOIN content c ON c.id = b.id"
        " WHERE b.id > ? AND b.state = ? ORDER BY b.id LIMIT 1",
        (after, int(BodyState.KEPT)),
    ).fetchone()
    return found


def read(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The items of an exported vault. Raises DecodeError."""
    if not data.startswith(MAGIC):
        raise DecodeError(Code.MALFORMED, field="vault", expected="an exported vault")
    unpacker = msgpack.Unpacker(max_buffer_size=len(data), max_bin_len=ITEM_BYTES_MAX)
    unpacker.feed(data[len(MAGIC) :])
    for item in unpacker:
        if not isinstance(item, list) or len(item) != 2 or item[0] not in KINDS:
            raise DecodeError(Code.MALFORMED, field="vault", expected="[kind, bytes]")
        yield item[0], item[1]
