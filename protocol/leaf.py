"""Leaves of the ledger (存证账本): what the hub states once and can never take back.

    batch       [1, "batch", agent, [[state, id], …], hub time µs]      one accepted batch
    event       [1, kind, object id, record hash, hub time µs]          one signed object of weight
    generation  [1, "generation", previous origin, size, root, reason, µs]   leaf 0 after a restore

A leaf is at most LEAF_BYTES_MAX bytes; its kind is read before anything else of it.
"""

import re
from collections.abc import Sequence
from enum import IntEnum
from typing import Annotated, Literal

from msgspec import Meta, Struct

from protocol import wire
from protocol.errors import Code, DecodeError, TooLargeError
from protocol.ids import ObjectId, PrincipalId, WireHash, WireObject, WirePrincipal, WireU63
from protocol.limits import LEAF_BYTES_MAX, REASON_CHARS_MAX, SYNC_ITEMS_MAX

_VERSION: Literal[1] = 1
_KIND = re.compile(r"[a-z-]{1,24}", re.ASCII)


class State(IntEnum):
    """What of an item is durable."""

    BODY = 1  # a segment with its body
    HEADER = 2  # a segment's header only; its body may follow as a second entry
    OBJECT = 3  # a signed object


_Text = Annotated[str, Meta(max_length=REASON_CHARS_MAX)]


class _Leaf(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    version: Literal[1]
    kind: str


class BatchLeaf(_Leaf, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One accepted batch of an agent: its items in the order of the answer."""

    agent: WirePrincipal
    items: Annotated[
        tuple[tuple[State, WireObject], ...], Meta(min_length=1, max_length=SYNC_ITEMS_MAX)
    ]  # (state, segment id or object id)
    time_us: WireU63  # hub time


class EventLeaf(_Leaf, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One object that changes who may do what: enrolment, principal, grant, approval …"""

    object_id: WireObject
    record_hash: WireHash  # of the whole envelope, signatures included
    time_us: WireU63  # hub time


class GenerationLeaf(_Leaf, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Leaf 0 of a ledger that follows another: what is known of the one before, and why."""

    previous_origin: _Text
    size: WireU63
    root: WireHash
    reason: _Text
    time_us: WireU63  # hub time


Leaf = BatchLeaf | EventLeaf | GenerationLeaf


def batch_leaf(agent: PrincipalId, items: Sequence[tuple[State, bytes]], time_us: int) -> bytes:
    """The leaf of one accepted batch. Raises TooLargeError, DecodeError if no reader would take it.

    items: 1..SYNC_ITEMS_MAX of (state, 32-byte segment or object id).
    """
    entries = tuple((State(state), ObjectId(item)) for state, item in items)
    return _encoded(BatchLeaf(_VERSION, "batch", agent, entries, time_us))


def event_leaf(kind: str, object_id: ObjectId, record_hash: bytes, time_us: int) -> bytes:
    """The leaf of one object; `kind` is its envelope's kind (or what was done to it)."""
    return _encoded(EventLeaf(_VERSION, kind, object_id, record_hash, time_us))


def generation_leaf(
    previous_origin: str, size: int, root: bytes, reason: str, time_us: int
) -> bytes:
    """The generation statement: leaf 0 of a new ledger, and nowhere else."""
    return _encoded(
        GenerationLeaf(_VERSION, "generation", previous_origin, size, root, reason, time_us)
    )


def parse_leaf(data: bytes) -> Leaf:
    """Read a leaf strictly. Raises DecodeError, TooLargeError."""
    if len(data) > LEAF_BYTES_MAX:
        raise TooLargeError(
            Code.TOO_LARGE, field="leaf", value=len(data), expected=f"≤ {LEAF_BYTES_MAX}"
        )
    outer = wire.decode_any(data, limit=LEAF_BYTES_MAX)
    kind = outer[1] if isinstance(outer, list) and len(outer) > 1 else None
    if not isinstance(kind, str) or not _KIND.fullmatch(kind):
        raise DecodeError(Code.UNKNOWN_KIND, field="leaf", value=kind)
    if kind == "batch":
        return wire.convert(outer, BatchLeaf)
    if kind == "generation":
        return wire.convert(outer, GenerationLeaf)
    return wire.convert(outer, EventLeaf)


def _encoded(leaf: Leaf) -> bytes:
    data = wire.encode(leaf)
    parse_leaf(data)
    return data
