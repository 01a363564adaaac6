"""The vault: key-protected data (重点保护级), which never leaves by itself.

It is a lane of its own: file, queue, budget, random source, health. Its segments are sealed as
all others are and their epoch keys wrapped to the owner *inside* the vault; nothing of it is
registered, counted or sent. A person at the gateway can copy it out for its owner, sealed as it is:

    file = "SMVAULT1" ‖ msgpack [kind, bytes] …        kinds: schema, wrap, segment

A gateway that burns takes its vault with it; that is the price of this grade.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgpack
import msgspec

from agent.files import sync_folder
from agent.schema import BodyState
from protocol.errors import Code, DecodeError

MAGIC: Final = b"SMVAULT1"
KINDS: Final = ("schema", "wrap", "segment")
ITEM_BYTES_MAX: Final = 8 << 20


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export wrote."""

    resources: int
    segments: int
    records: int
    waiting: int  # records that are journalled and not sealed yet: not in the file


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


def _copy(source: sqlite3.Connection, target: Path) -> Exported:
    encode = msgspec.msgpack.Encoder().encode
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with os.fdopen(os.open(target, flags, 0o600), "wb") as file:
        file.write(MAGIC)
        for kind, data in _objects(source):
            file.write(encode([kind, data]))
        after, segments, records = 0, 0, 0
        while (row := _segment(source, after)) is not None:
            after, count, data = row
            file.write(encode(["segment", data]))
            segments, records = segments + 1, records + count
        file.flush()
        os.fsync(file.fileno())
    sync_folder(target.absolute().parent)
    (resources,) = source.execute("SELECT count(*) FROM resource").fetchone()
    (waiting,) = source.execute("SELECT coalesce(sum(n), 0) FROM journal").fetchone()
    return Exported(resources, segments, records, waiting)


def _objects(source: sqlite3.Connection) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = source.execute(
        "SELECT kind, data FROM outbox WHERE kind IN ('schema', 'wrap') ORDER BY id"
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
