"""Segments (数据段): a run of records of one resource, sealed, signed and linked (原生加密).

    segment = prelude ‖ header ‖ signature ‖ body       body = its parts, one after another
    part    = AEAD(segment key, nonce, aad, plain), or plain itself where the grade is open

The order of reading is the law: lengths, then the signature over the bytes that arrived, then the
header, then part hashes, then keys. So `parse` gives an `Unverified`, which has no header; only
its `verify` gives a `Segment`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from protocol import tags, wire
from protocol.columns import FIXED, Budget, decode_part, encode_part
from protocol.envelope import SigningKey
from protocol.errors import Code, DecodeError, TooLargeError, VerifyError
from protocol.grades import Grade, rules
from protocol.header import (
    VERSION,
    Continues,
    Header,
    Part,
    Prelude,
    decode_header,
    read_prelude,
)
from protocol.ids import (
    ObjectId,
    PrincipalId,
    ResourceId,
    SegmentId,
    StreamId,
    Use,
    key_id,
)
from protocol.keys import EpochKey
from protocol.limits import BODY_BYTES_MAX, HEADER_BYTES_MAX, PRELUDE_BYTES
from protocol.packs import Pack
from protocol.part import Binding
from protocol.records import Columns, Value
from protocol.suites import suite as suite_of
from protocol.times import ClockMark

__all__ = [
    "Continues",
    "Header",
    "Layout",
    "Part",
    "Prelude",
    "Segment",
    "Unverified",
    "check_body",
    "header_only",
    "layout_of",
    "open_part",
    "open_segment",
    "parse",
    "part_bytes",
    "read_prelude",
    "seal",
]

_PERSONAL = "personal"


@dataclass(frozen=True, slots=True)
class Layout:
    """Which fields travel in which column group, and which groups hide their length."""

    groups: tuple[tuple[str, ...], ...]  # by group number; group 0 also has the fixed columns
    padded: frozenset[int] = frozenset()  # padded to the Padmé length


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment whose signature was verified, or that was just sealed."""

    prelude: Prelude
    header: Header
    header_bytes: bytes
    signature: bytes
    body: memoryview | None  # None: header only
    id: SegmentId
    raw: bytes  # everything as it arrived

    @property
    def head(self) -> bytes:
        """Prelude, header and signature."""
        return self.raw[: self.prelude.head_bytes]


@dataclass(frozen=True, slots=True)
class Unverified:
    """A segment with good lengths, of which nothing is believed yet."""

    prelude: Prelude
    raw: bytes
    has_body: bool

    @property
    def id(self) -> SegmentId:
        """H(tag ‖ prelude ‖ header): its id if the signature is good."""
        signed = memoryview(self.raw)[: PRELUDE_BYTES + self.prelude.header_bytes]
        return SegmentId(suite_of(self.prelude.suite).hash(tags.HEADER, signed))

    def verify(self, public: bytes) -> Segment:
        """Verify with the signer's public key, then decode the header.

        Raises VerifyError WRONG_SIGNER, SIGNATURE_INVALID; DecodeError for a broken header.
        """
        prelude = self.prelude
        if key_id(public, use=Use.SIGNING, suite=prelude.suite) != prelude.signer:
            raise VerifyError(Code.WRONG_SIGNER, field="signer", value=prelude.signer)
        end = PRELUDE_BYTES + prelude.header_bytes
        signature = self.raw[end : prelude.head_bytes]
        signed = tags.SEGMENT + self.raw[:end]
        suite_of(prelude.suite).verify(public, signed, signature)
        header_bytes = self.raw[PRELUDE_BYTES:end]
        return Segment(
            prelude=prelude,
            header=decode_header(header_bytes, prelude),
            header_bytes=header_bytes,
            signature=signature,
            body=memoryview(self.raw)[prelude.head_bytes :] if self.has_body else None,
            id=self.id,
            raw=self.raw,
        )


def layout_of(pack: Pack, *, pad_all: bool = False) -> Layout:
    """The layout of a domain pack: one group a key; personal groups are padded."""
    groups = tuple(
        tuple(field.name for field in pack.group_fields(group)) for group in range(len(pack.groups))
    )
    padded = {
        number
        for number, name in enumerate(pack.groups)
        if pad_all
        or name == _PERSONAL
        or any(field.personal != "none" for field in pack.group_fields(number))
    }
    return Layout(groups, frozenset(padded))


def seal(
    cols: Columns,
    *,
    layout: Layout,
    signer: SigningKey,
    agent: PrincipalId,
    resource: ResourceId,
    stream: StreamId,
    seq: int,
    prev: SegmentId,
    entry: ObjectId,
    epoch: int,
    grade: Grade,
    clock: ClockMark,
    rows: Sequence[tuple[bytes, int, int]],
    keys: Mapping[int, EpochKey] | None = None,
    nonces: Sequence[bytes] = (),
    decision: int = 0,
    resume: bytes | None = None,
    continues: Continues | None = None,
    level: int = 3,
) -> Segment:
    """Compress, encrypt, sign: one segment of 1..RECORDS_PER_SEGMENT_MAX records.

    keys, nonces: the epoch key of each group, and one fresh random nonce for each, in order; none
    for open grades. rows: (run, first, last) of the journal rows in it. Raises DecodeError for a
    field outside the layout or a missing key, TooLargeError if body or header exceed their bounds.
    """
    outside = cols.fields.keys() - {name for names in layout.groups for name in names}
    if outside:
        raise DecodeError(Code.UNKNOWN_FIELD, field=min(outside), expected="a field of the layout")
    suite = signer.suite
    bind = Binding(suite, agent, resource, stream, seq, epoch, grade, entry)
    parts: list[Part] = []
    body: list[bytes] = []
    for group, names in enumerate(layout.groups):
        plain = encode_part(cols, names, fixed=group == 0, level=level, pad=group in layout.padded)
        part, stored = bind.close(group, plain, keys, nonces)
        parts.append(part)
        body.append(stored)
    header = Header(
        agent=agent,
        resource=resource,
        stream=stream,
        seq=seq,
        prev=prev,
        entry=entry,
        epoch=epoch,
        grade=grade,
        decision=decision,
        count=cols.count,
        first_at=min(cols.event_time),
        last_at=max(cols.event_time),
        clock=clock,
        parts=tuple(parts),
        rows=tuple(rows),  # type: ignore[arg-type]  # run ids are bytes of 8: decoding checks
        resume=resume,
        continues=continues,
    )
    return _signed(header, body, signer)


def _signed(header: Header, body: Sequence[bytes], signer: SigningKey) -> Segment:
    header_bytes = wire.encode(header)
    size = sum(map(len, body))
    if size > BODY_BYTES_MAX or len(header_bytes) > HEADER_BYTES_MAX:
        raise TooLargeError(
            Code.TOO_LARGE, field="body", value=size, expected=f"≤ {BODY_BYTES_MAX} bytes"
        )
    prelude = Prelude(VERSION, signer.suite, len(header_bytes), size, signer.key_id)
    signed = prelude.pack() + header_bytes
    decode_header(header_bytes, prelude)  # what no reader would take is never sealed
    signature = signer.sign(tags.SEGMENT + signed)
    raw = b"".join((signed, signature, *body))
    return Segment(
        prelude=prelude,
        header=header,
        header_bytes=header_bytes,
        signature=signature,
        body=memoryview(raw)[prelude.head_bytes :],
        id=SegmentId(suite_of(signer.suite).hash(tags.HEADER, signed)),
        raw=raw,
    )


def parse(raw: bytes, *, body: bool = True) -> Unverified:
    """Read prelude and lengths of a segment (body=False: of its head alone). Raises DecodeError.

    The length must be exactly what the prelude says: nothing may follow.
    """
    prelude = read_prelude(raw)
    expected = prelude.head_bytes + (prelude.body_bytes if body else 0)
    if len(raw) > expected:
        raise DecodeError(Code.TRAILING_BYTES, field="segment", value=len(raw) - expected)
    if len(raw) < expected:
        raise DecodeError(
            Code.MALFORMED, field="segment", value=len(raw), expected=f"{expected} bytes"
        )
    return Unverified(prelude, bytes(raw), body)


def header_only(segment: Segment) -> bytes:
    """Prelude, header and signature: what travels when the body is refused for good or damaged."""
    return segment.head


def part_bytes(segment: Segment, group: int) -> memoryview:
    """One part as stored. Raises DecodeError if the segment has no such part, or no body."""
    start = 0
    for part in segment.header.parts:
        if part.group == group and segment.body is not None:
            return segment.body[start : start + part.length]
        start += part.length
    raise DecodeError(Code.NOT_FOUND, field="part", value=group)


def check_body(segment: Segment) -> None:
    """Hold every part against its hash in the header. Raises VerifyError HASH_MISMATCH."""
    for part in segment.header.parts:
        _check_hash(segment, part, part_bytes(segment, part.group))


def open_part(
    segment: Segment,
    group: int,
    key: EpochKey | None,
    *,
    budget: Budget | None = None,
    stored: bytes | None = None,
) -> dict[str, list[Value]]:
    """The columns of one group; the fixed ones are in group 0.

    key: None for open grades. stored: the part, where it came without the rest of the body (the
    hub serves single parts). Raises VerifyError (hash, another key than committed to, AEAD),
    DecodeError, TooLargeError.
    """
    part = segment.header.part(group)
    if part is None:
        raise DecodeError(Code.NOT_FOUND, field="part", value=group)
    data = part_bytes(segment, group) if stored is None else stored
    _check_hash(segment, part, data)
    header = segment.header
    bind = Binding(
        segment.prelude.suite,
        header.agent,
        header.resource,
        header.stream,
        header.seq,
        header.epoch,
        header.grade,
        ObjectId(header.entry),
    )
    columns = decode_part(bind.open(part, data, key), header.count, budget)
    _check_columns(columns, group)
    return columns


def open_segment(segment: Segment, keys: Mapping[int, EpochKey] | None = None) -> Columns:
    """All records of a segment, of the groups that `keys` (by group) can open.

    keys: None for open grades. Group 0 must be among them. Raises as `open_part`.
    """
    budget = Budget()
    sealed = rules(segment.header.grade).sealed
    held: Collection[int] = keys or ()
    columns: dict[str, list[Value]] = {}
    for part in segment.header.parts:
        if sealed and part.group and part.group not in held:
            continue
        key = keys.get(part.group) if keys and sealed else None
        more = open_part(segment, part.group, key, budget=budget)
        if columns.keys() & more.keys():
            raise DecodeError(Code.DUPLICATE_KEY, field="columns", expected="a field in one group")
        columns.update(more)
    if FIXED[0] not in columns:
        raise DecodeError(Code.MISSING_FIELD, field="columns", expected="group 0")
    event, gateway, device_time, device, quality = (columns.pop(name) for name in FIXED)
    return Columns(
        count=segment.header.count,
        event_time=cast("list[int]", event),
        gateway_time=cast("list[int]", gateway),
        device_time=cast("list[int | None]", device_time),
        device=cast("list[str]", device),
        quality=cast("list[int]", quality),
        fields=columns,
    )


def _check_hash(segment: Segment, part: Part, data: bytes | memoryview) -> None:
    digest = suite_of(segment.prelude.suite).hash(tags.STORED, data)
    if len(data) != part.length or digest != part.hash:
        raise VerifyError(Code.HASH_MISMATCH, field="part", value=part.group)


#: Types of the fixed columns' values.
_FIXED_TYPES: dict[str, set[type]] = {
    "@event_time": {int},
    "@gateway_time": {int},
    "@device_time": {int, type(None)},
    "@device": {str},
    "@quality": {int},
}


def _check_columns(columns: Mapping[str, list[Value]], group: int) -> None:
    fixed = [name for name in columns if name.startswith("@")]
    if sorted(fixed) != (sorted(FIXED) if group == 0 else []):
        raise DecodeError(Code.UNKNOWN_FIELD, field="columns", value=fixed, expected="fixed: in 0")
    for name in fixed:
        if not set(map(type, columns[name])) <= _FIXED_TYPES[name]:
            raise DecodeError(Code.WRONG_TYPE, field=name)
