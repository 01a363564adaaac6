"""Notes of an agent about its own data: declared loss, and what early times mean."""

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct, field

from protocol import limits
from protocol.envelope import Envelope, KeyLookup, SigningKey, expect_kind, make, open_as
from protocol.errors import Code, VerifyError
from protocol.ids import WireNonce, WireResource, WireStream, WireU63
from protocol.times import WireTime

GapUnit: TypeAlias = Literal["seq", "row", "time"]


class Gap(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Payload of kind `gap`: loss is declared, never silent.

    first and last are inclusive and in the unit: segment numbers, row numbers, or µs UTC.
    """

    resource: WireResource
    stream: WireStream
    unit: GapUnit
    first: WireTime = field(name="from")
    last: WireTime = field(name="to")
    count: WireU63 | None  # records lost, where known
    reason: Annotated[str, Meta(min_length=1, max_length=limits.REASON_CHARS_MAX)]
    nonce: WireNonce


class Correction(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Payload of kind `correction`: event times of these segments + offset are UTC.

    Event times are never rewritten; this says once what an unsynchronised clock meant.
    """

    stream: WireStream
    first_seq: WireU63 = field(name="from")
    last_seq: WireU63 = field(name="to")
    offset_us: WireTime = field(name="offset")
    nonce: WireNonce


Note: TypeAlias = Gap | Correction


def make_gap(gap: Gap, signer: SigningKey) -> Envelope:
    """Sign a gap note as the agent. Raises VerifyError if it ends before it begins."""
    _check(gap)
    return make("gap", gap, signer)


def make_correction(correction: Correction, signer: SigningKey) -> Envelope:
    """Sign a correction as the agent. Raises VerifyError if it ends before it begins."""
    _check(correction)
    return make("correction", correction, signer)


def open_note(envelope: Envelope, keys: KeyLookup) -> Note:
    """Verify a gap note or correction under the agent's key. Raises VerifyError, DecodeError."""
    expect_kind(envelope, "gap", "correction")
    note: Note
    if envelope.kind == "gap":
        note = open_as(envelope, "gap", Gap, keys)
    else:
        note = open_as(envelope, "correction", Correction, keys)
    _check(note)
    return note


def _check(note: Note) -> None:
    first, last = (
        (note.first, note.last) if isinstance(note, Gap) else (note.first_seq, note.last_seq)
    )
    if first > last or (isinstance(note, Gap) and note.unit != "time" and first < 0):
        raise VerifyError(Code.BINDING_MISMATCH, field="from", value=first, expected=f"≤ {last}")
