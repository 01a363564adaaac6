"""Prelude and header of a segment: what is signed, linked and known without a key.

    prelude (28) = "SMSG" ‖ version u8 ‖ suite u8 ‖ header length u16 ‖ body length u32 ‖ key id 16
    head         = prelude ‖ header ‖ signature 64

The header is a msgpack array in the order of `Header`'s fields. It is decoded only after the
signature over the bytes that arrived was verified; here stand its types and its inner rules.
"""

from itertools import pairwise
from struct import Struct as Layout
from typing import Annotated, Literal, NamedTuple

from msgspec import Meta, Struct

from protocol import wire
from protocol.chain import NO_SEGMENT
from protocol.errors import Code, DecodeError, TooLargeError
from protocol.grades import Grade, rules
from protocol.ids import (
    KeyId,
    WireHash,
    WirePrincipal,
    WireResource,
    WireRun,
    WireSegment,
    WireStream,
    WireU32,
    WireU63,
)
from protocol.limits import (
    BODY_BYTES_MAX,
    GROUPS_MAX,
    HEADER_BYTES_MAX,
    PRELUDE_BYTES,
    REASON_CHARS_MAX,
    RECORDS_PER_SEGMENT_MAX,
    RESUME_BYTES_MAX,
    ROW_RANGES_MAX,
    SIGNATURE_BYTES,
)
from protocol.suites import suite as suite_of
from protocol.times import ClockMark, WireTime

MAGIC = b"SMSG"
VERSION = 1

_PRELUDE = Layout(">4sBBHI16s")


class Prelude(NamedTuple):
    """The first 28 bytes: enough to know how much to read and whose signature to expect."""

    version: int
    suite: int
    header_bytes: int
    body_bytes: int
    signer: KeyId

    @property
    def head_bytes(self) -> int:
        """Length of prelude, header and signature together."""
        return PRELUDE_BYTES + self.header_bytes + SIGNATURE_BYTES

    def pack(self) -> bytes:
        """The 28 bytes."""
        return _PRELUDE.pack(
            MAGIC, self.version, self.suite, self.header_bytes, self.body_bytes, self.signer
        )


class Part(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One column group's bytes in the body: ciphertext, or the plain part of an open grade."""

    group: Annotated[int, Meta(ge=0, lt=GROUPS_MAX)]
    length: Annotated[int, Meta(ge=1, le=BODY_BYTES_MAX)]  # bytes in the body
    nonce: bytes  # of the AEAD; empty for open grades
    commitment: bytes  # of the epoch key, 32; empty for open grades
    hash: WireHash  # of the part as stored


class Continues(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a new stream follows, and why (damage, fork, restore, re-grade)."""

    stream: WireStream
    seq: WireU63
    id: WireSegment
    reason: Annotated[str, Meta(max_length=REASON_CHARS_MAX)]


class Header(Struct, frozen=True, array_like=True, kw_only=True, forbid_unknown_fields=True):
    """What a segment (数据段) says of itself in clear, signed by its agent."""

    agent: WirePrincipal
    resource: WireResource
    stream: WireStream
    seq: WireU63  # from 0, without gaps
    prev: WireSegment  # id of seq - 1; 32 zero bytes at seq 0
    entry: WireHash  # object id of the registration entry in force
    epoch: WireU32
    grade: Grade
    decision: WireU32  # last applied decision of the owner; 0: none
    count: Annotated[int, Meta(ge=1, le=RECORDS_PER_SEGMENT_MAX)]
    first_at: WireTime  # smallest event time, µs UTC
    last_at: WireTime  # greatest
    clock: ClockMark
    parts: Annotated[tuple[Part, ...], Meta(min_length=1, max_length=GROUPS_MAX)]
    rows: Annotated[
        tuple[tuple[WireRun, WireU63, WireU63], ...],
        Meta(min_length=1, max_length=ROW_RANGES_MAX),
    ]
    flags: Literal[0] = 0
    resume: Annotated[bytes, Meta(max_length=RESUME_BYTES_MAX)] | None = None
    continues: Continues | None = None

    def part(self, group: int) -> Part | None:
        """The part of a group, if the segment has one."""
        return next((part for part in self.parts if part.group == group), None)


def read_prelude(raw: bytes | memoryview) -> Prelude:
    """Read the first 28 bytes and hold every length against its bound. Raises DecodeError."""
    if len(raw) < PRELUDE_BYTES:
        raise DecodeError(Code.MALFORMED, field="prelude", value=len(raw))
    magic, version, suite, header_bytes, body_bytes, signer = _PRELUDE.unpack_from(raw)
    if magic != MAGIC:
        raise DecodeError(Code.MALFORMED, field="magic", value=magic, expected="SMSG")
    if version != VERSION:
        raise DecodeError(Code.UNKNOWN_VERSION, field="version", value=version, expected="1")
    suite_of(suite)
    _bounded("header length", header_bytes, HEADER_BYTES_MAX)
    _bounded("body length", body_bytes, BODY_BYTES_MAX)
    return Prelude(version, suite, header_bytes, body_bytes, KeyId(signer))


def decode_header(data: bytes, prelude: Prelude) -> Header:
    """Decode a header whose signature has been verified. Raises DecodeError for a broken rule."""
    header = wire.decode(data, Header, limit=HEADER_BYTES_MAX)
    groups = [part.group for part in header.parts]
    if any(a >= b for a, b in pairwise(groups)):
        raise DecodeError(Code.MALFORMED, field="parts", expected="groups ascending")
    total = sum(part.length for part in header.parts)
    if total != prelude.body_bytes:
        raise DecodeError(
            Code.MALFORMED, field="parts", value=total, expected=f"{prelude.body_bytes} bytes"
        )
    sealed = rules(header.grade).sealed
    sizes = (suite_of(prelude.suite).nonce_bytes, 32) if sealed else (0, 0)
    if any((len(part.nonce), len(part.commitment)) != sizes for part in header.parts):
        raise DecodeError(Code.MALFORMED, field="parts", expected="nonce, commitment as graded")
    if header.first_at > header.last_at:
        raise DecodeError(Code.OUT_OF_BOUNDS, field="first_at", value=header.first_at)
    if any(first > last for _, first, last in header.rows):
        raise DecodeError(Code.OUT_OF_BOUNDS, field="rows", expected="first ≤ last")
    if (header.seq == 0) != (header.prev == NO_SEGMENT):
        raise DecodeError(Code.MALFORMED, field="prev", value=header.prev)
    return header


def _bounded(field: str, value: int, bound: int) -> None:
    if not 1 <= value <= bound:
        raise TooLargeError(Code.TOO_LARGE, field=field, value=value, expected=f"1..{bound}")
