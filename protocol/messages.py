"""The two messages of a sync: a batch of items, and the hub's signed answer to it.

A batch is the body of a signed request; an answer is the payload of a hub envelope `answer`.
Unknown keys of both are ignored, so that a newer peer may say more. Items and verdicts are arrays
with their tag first: one item, one verdict, in the same order.
"""

from typing import Annotated

from msgspec import Meta, Struct

from protocol import wire
from protocol.errors import Code
from protocol.ids import (
    WireHash,
    WireNonce,
    WirePrincipal,
    WireResource,
    WireSegment,
    WireStream,
    WireU32,
    WireU63,
)
from protocol.leaf import State
from protocol.limits import (
    BODY_BYTES_MAX,
    EVIDENCE_PAGE_MAX,
    HEADER_BYTES_MAX,
    INBOX_BYTES_MAX,
    NAME_CHARS_MAX,
    OBJECT_BYTES_MAX,
    PRELUDE_BYTES,
    REASON_CHARS_MAX,
    SIGNATURE_BYTES,
    SYNC_BYTES_MAX,
    SYNC_ITEMS_MAX,
)
from protocol.receipt import Proofs
from protocol.report import Report
from protocol.wraps import Seen

#: HTTP media type of every msgpack body.
MEDIA_TYPE = "application/vnd.shanmen+msgpack"
#: Version of batch and answer; a hub names both versions when it refuses one.
SYNC_VERSION = 1

HEAD_BYTES_MAX = PRELUDE_BYTES + HEADER_BYTES_MAX + SIGNATURE_BYTES

_Reason = Annotated[str, Meta(max_length=REASON_CHARS_MAX)]
_Head = Annotated[bytes, Meta(max_length=HEAD_BYTES_MAX)]
_Seconds = Annotated[int, Meta(ge=0, le=7 * 86_400)]


class ObjectItem(Struct, frozen=True, array_like=True, tag="object"):
    """A signed object: registration, description, wrap, gap, correction, principal."""

    raw: Annotated[bytes, Meta(max_length=OBJECT_BYTES_MAX)]  # envelope


class SegmentItem(Struct, frozen=True, array_like=True, tag="segment"):
    """A whole segment."""

    raw: Annotated[bytes, Meta(max_length=HEAD_BYTES_MAX + BODY_BYTES_MAX)]


class HeaderItem(Struct, frozen=True, array_like=True, tag="header"):
    """A segment without its body, which was refused for good or is damaged: the chain goes on."""

    raw: _Head  # prelude ‖ header ‖ signature
    reason: _Reason


class EvidenceItem(Struct, frozen=True, array_like=True, tag="evidence"):
    """Asks for the next page of fork evidence: a stream's headers after a sequence number."""

    resource: WireResource
    stream: WireStream
    after: WireU63 | None  # None: from the stream's beginning


Item = ObjectItem | SegmentItem | HeaderItem | EvidenceItem


class Batch(Struct, frozen=True, kw_only=True):
    """What an agent sends at once: one batch in flight, ≤ SYNC_BYTES_MAX, ≤ SYNC_ITEMS_MAX."""

    version: WireU32 = SYNC_VERSION
    agent: WirePrincipal
    software: Annotated[str, Meta(max_length=NAME_CHARS_MAX)]  # "shanmen-agent 0.1.0"
    items: Annotated[tuple[Item, ...], Meta(max_length=SYNC_ITEMS_MAX)]
    inbox: tuple[WireU32, WireU63]  # last applied inbox number: generation, n
    checkpoint: Seen | None  # last verified checkpoint
    report: Report | None = None  # what is left at the gateway besides this batch


class Accepted(Struct, frozen=True, array_like=True, tag="accepted"):
    """Durable, and in a leaf of this answer."""


class Duplicate(Struct, frozen=True, array_like=True, tag="duplicate"):
    """Accepted before; the answer proves the older leaf under today's checkpoint."""


class Missing(Struct, frozen=True, array_like=True, tag="missing"):
    """Segments before it have not arrived."""

    have: WireU63 | None  # last seq that the hub has of the stream; None: none


class UnknownResource(Struct, frozen=True, array_like=True, tag="unknown-resource"):
    """No registration entry for it here: send that first."""


class Refused(Struct, frozen=True, array_like=True, tag="refused"):
    """Never, as it is."""

    code: Annotated[str, Meta(max_length=64)]  # key of an errors.Code
    reason: _Reason = ""


class Later(Struct, frozen=True, array_like=True, tag="later"):
    """Not now; nothing is wrong with it."""

    seconds: _Seconds


class EvidenceHeader(Struct, frozen=True, array_like=True):
    """One of the agent's own signed headers, and where it is proven."""

    state: State
    head: _Head  # prelude ‖ header ‖ signature
    proof: Annotated[int, Meta(ge=0, le=SYNC_ITEMS_MAX)]  # position in the answer's proofs


class Evidence(Struct, frozen=True, kw_only=True):
    """What the hub accepted in place of an item, in the agent's own signatures."""

    headers: Annotated[tuple[EvidenceHeader, ...], Meta(max_length=EVIDENCE_PAGE_MAX)] = ()
    head: tuple[WireU63, WireSegment] | None = None  # of the stream that is shown: seq, id
    more: bool = False  # another page of this stream follows: ask with an EvidenceItem
    then: WireStream | None = None  # after its last page: the stream that followed, to be asked for


class Fork(Struct, frozen=True, array_like=True, tag="fork"):
    """Another segment has its sequence number, or its predecessor is not the accepted one."""

    evidence: Evidence


class Overlap(Struct, frozen=True, array_like=True, tag="overlap"):
    """Other accepted segments of the resource already have some of its rows."""

    evidence: Evidence


ItemVerdict = Accepted | Duplicate | Missing | UnknownResource | Refused | Later | Fork | Overlap


class Answer(Struct, frozen=True, kw_only=True):
    """Payload of the hub's `answer`: verdicts, proofs, and what it has to say besides."""

    request: WireHash  # SHA-256 of the request's body
    generation: WireU32  # of the hub's ledger
    items: Annotated[tuple[ItemVerdict, ...], Meta(max_length=SYNC_ITEMS_MAX)] = ()
    receipt: Proofs | None = None
    inbox: tuple[Annotated[bytes, Meta(max_length=INBOX_BYTES_MAX)], ...] = ()  # envelopes
    time: WireU63  # hub time µs
    budget: WireU63 | None = None  # bytes that the next batch may have
    backed_up_to: WireU63 = 0  # leaves below this index are in a backup
    error: Annotated[str, Meta(max_length=64)] = ""  # the whole request failed: key of a Code
    retry_after_s: _Seconds = 0
    nonce: WireNonce


def encode_batch(batch: Batch) -> bytes:
    """The body of a sync request."""
    return wire.encode(batch)


def decode_batch(body: bytes) -> Batch:
    """Read a request body whose signature and digest were verified. Raises DecodeError."""
    return wire.decode(body, Batch, limit=SYNC_BYTES_MAX)


def refused(code: Code, reason: str = "") -> Refused:
    """The verdict for a code; the reason is cut to its bound."""
    return Refused(code.key, reason[:REASON_CHARS_MAX])
