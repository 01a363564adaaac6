"""Rows of `chain`, `body` and `unsynced`: what a segment is in the file."""

import hashlib
import sqlite3
from typing import Final

from agent.store.schema import BodyState
from protocol.envelope import only_key, verify
from protocol.envelope import parse as parse_envelope
from protocol.errors import ShanmenError
from protocol.limits import PRELUDE_BYTES, SIGNATURE_BYTES
from protocol.segment import Segment, parse

DIGEST_BYTES: Final = 16
SAME_BASE_US: Final = 500_000  # bases are rounded down to it: `building._CLOCK_STEP_US`


def digest_of(raw: bytes) -> bytes:
    """A short hash that tells a damaged body from a whole one before it is sent."""
    return hashlib.blake2b(raw, digest_size=DIGEST_BYTES).digest()


def is_head(raw: object, segment: object) -> bool:
    """Whether these are prelude, header and signature of the segment with this id.

    None: nobody knows it any more, its link was folded.
    """
    if not isinstance(raw, bytes):
        return False
    try:
        found = parse(raw, body=False).id
    except ShanmenError:
        return False
    return segment is None or found == segment


def is_object(raw: object, object_id: object, public: bytes) -> bool:
    """Whether this is the envelope of the object with this id, as this gateway signed it."""
    if not isinstance(raw, bytes):
        return False
    try:
        envelope = parse_envelope(raw)
        verify(envelope, only_key(public))
    except ShanmenError:
        return False
    return envelope.object_id == object_id


def insert_segment(
    connection: sqlite3.Connection, segment: Segment, *, state: BodyState, at_us: int
) -> None:
    """Write chain and body of a segment that was just sealed."""
    header = segment.header
    signed = segment.raw[: PRELUDE_BYTES + segment.prelude.header_bytes]
    connection.execute(
        "INSERT INTO chain(stream, seq, id, header, signature, leaf, at)"
        " VALUES(?, ?, ?, ?, ?, NULL, ?)",
        (header.stream, header.seq, segment.id, signed, segment.signature, at_us),
    )
    row = connection.execute(
        "INSERT INTO body(stream, seq, state, size, n, digest, at) VALUES(?, ?, ?, ?, ?, ?, ?)",
        (
            header.stream, header.seq, int(state), len(segment.raw), header.count,
            digest_of(segment.raw), at_us,
        ),
    ).lastrowid  # fmt: skip
    connection.execute("INSERT INTO content(id, data) VALUES(?, ?)", (row, segment.raw))


def remember_unsynced(
    connection: sqlite3.Connection, stream: bytes, boot: bytes, base_us: int, seq: int
) -> None:
    """Note that a segment's times come from a clock nobody had set: a correction will say more.

    A range ends where the base changes, so that no segment is corrected twice. A base that comes
    back has another row, by a microsecond beside: far below what a base is exact to.
    """
    row = connection.execute(
        "SELECT base_us, to_seq FROM unsynced WHERE stream = ? AND boot = ?"
        " ORDER BY to_seq DESC LIMIT 1",
        (stream, boot),
    ).fetchone()
    if row is not None and row[1] == seq - 1 and base_us <= row[0] < base_us + SAME_BASE_US:
        connection.execute(
            "UPDATE unsynced SET to_seq = ? WHERE stream = ? AND boot = ? AND base_us = ?",
            (seq, stream, boot, row[0]),
        )
        return
    (taken,) = connection.execute(
        "SELECT max(base_us) FROM unsynced WHERE stream = ? AND boot = ?"
        " AND base_us >= ? AND base_us < ?",
        (stream, boot, base_us, base_us + SAME_BASE_US),
    ).fetchone()
    key_us = base_us if taken is None else min(taken + 1, base_us + SAME_BASE_US - 1)
    connection.execute(
        "INSERT INTO unsynced(stream, boot, base_us, from_seq, to_seq) VALUES(?, ?, ?, ?, ?)"
        " ON CONFLICT(stream, boot, base_us) DO UPDATE SET to_seq = excluded.to_seq",
        (stream, boot, key_us, seq, seq),
    )


def head_bytes(connection: sqlite3.Connection, stream: bytes, seq: int) -> bytes | None:
    """Prelude, header and signature of a segment, as a header-only item sends it."""
    row = connection.execute(
        "SELECT header, signature FROM chain WHERE stream = ? AND seq = ?", (stream, seq)
    ).fetchone()
    if row is None or len(row[1]) != SIGNATURE_BYTES:
        return None
    return bytes(row[0]) + bytes(row[1])
