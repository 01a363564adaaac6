"""Rows of `chain` and `body`: what a segment is in the file."""

import hashlib
import sqlite3
from typing import Final

from agent.schema import BodyState
from protocol.limits import PRELUDE_BYTES, SIGNATURE_BYTES
from protocol.segment import Segment

DIGEST_BYTES: Final = 16


def digest_of(raw: bytes) -> bytes:
    """A short hash that tells a damaged body from a whole one before it is sent."""
    return hashlib.blake2b(raw, digest_size=DIGEST_BYTES).digest()


def insert_segment(
    connection: sqlite3.Connection, segment: Segment, *, state: BodyState, at_us: int
) -> None:
    """Write chain and body of a segment that was just sealed."""
    header = segment.header
    signed = segment.raw[: PRELUDE_BYTES + segment.prelude.header_bytes]
    connection.execute(
        "INSERT INTO chain VALUES(?, ?, ?, ?, ?, NULL, ?)",
        (header.stream, header.seq, segment.id, signed, segment.signature, at_us),
    )
    row = connection.execute(
        "INSERT INTO body(stream, seq, state, size, n, digest, at) VALUES(?, ?, ?, ?, ?, ?, ?)",
        (
            header.stream, header.seq, int(state), len(segment.raw), header.count,
            digest_of(segment.raw), at_us,
        ),
    ).lastrowid  # fmt: skip
    connection.execute("INSERT INTO content VALUES(?, ?)", (row, segment.raw))


def head_bytes(connection: sqlite3.Connection, stream: bytes, seq: int) -> bytes | None:
    """Prelude, header and signature of a segment, as a header-only item sends it."""
    row = connection.execute(
        "SELECT header, signature FROM chain WHERE stream = ? AND seq = ?", (stream, seq)
    ).fetchone()
    if row is None or len(row[1]) != SIGNATURE_BYTES:
        return None
    return bytes(row[0]) + bytes(row[1])
