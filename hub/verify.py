"""What can be said of an item by itself, before any row is read: bytes, signature, shape, parts.

The order is that of `protocol.md` §Segment: lengths, key, signature over the received bytes, strict
decoding; then (in `accept`) agent, entry, chain; and last the parts, whose hashes are computed here
already because it needs no lock. The hub never decompresses and never decrypts.
"""

from dataclasses import dataclass
from itertools import pairwise

from hub.domain.outcomes import Refused
from hub.store.agents import AgentRow
from protocol import envelope, messages, notes, registration, segment, wraps
from protocol.envelope import Envelope, only_key
from protocol.errors import Code, DecodeError, ShanmenError, VerifyError
from protocol.header import Header
from protocol.notes import Correction, Gap
from protocol.registration import Registration
from protocol.wraps import Wrap

Payload = Registration | Wrap | Gap | Correction


@dataclass(frozen=True, slots=True)
class CheckedSegment:
    """A segment (or its head alone) whose signature is this agent's."""

    id: bytes
    suite: int
    header: Header
    head: bytes  # prelude ‖ header ‖ signature, as received
    body: memoryview | None  # None for a header-only item
    flaw: Refused | None  # what is wrong with the body; told only if the chain wants it


@dataclass(frozen=True, slots=True)
class CheckedObject:
    """A signed object of this agent's that may ride in a batch."""

    id: bytes
    envelope: Envelope
    payload: Payload


Checked = CheckedSegment | CheckedObject | messages.EvidenceItem | Refused


def check(item: messages.Item, agent: AgentRow) -> Checked:
    """Judge one item by itself; whatever is wrong with it becomes a verdict, never an error."""
    try:
        match item:
            case messages.ObjectItem():
                return _object(item.raw, agent)
            case messages.SegmentItem():
                return _segment(item.raw, agent)
            case messages.HeaderItem():
                return _segment(item.raw, agent, body=False)
            case messages.EvidenceItem():
                return item
    except ShanmenError as error:
        return refused(error)


def refused(error: ShanmenError) -> Refused:
    """The verdict that an error of the protocol's stands for."""
    return Refused(error.code, str(error))


def _segment(raw: bytes, agent: AgentRow, *, body: bool = True) -> CheckedSegment:
    found = segment.parse(raw, body=body).verify(agent.signing)
    if found.header.agent != agent.id:
        raise VerifyError(Code.WRONG_AGENT, field="agent", value=found.header.agent)
    ordered = sorted(found.header.rows)
    if any(a[0] == b[0] and b[1] <= a[2] for a, b in pairwise(ordered)):
        raise DecodeError(Code.MALFORMED, field="rows", expected="each row once")
    return CheckedSegment(
        id=found.id,
        suite=found.prelude.suite,
        header=found.header,
        head=found.head,
        body=found.body,
        flaw=_flaw(found) if body else None,
    )


def _flaw(found: segment.Segment) -> Refused | None:
    try:
        segment.check_body(found)
    except ShanmenError as error:
        return refused(error)
    return None


def _object(raw: bytes, agent: AgentRow) -> CheckedObject:
    parsed = envelope.parse(raw)
    keys = only_key(agent.signing)
    payload: Payload
    match parsed.kind:
        case "registration" | "description":
            payload = registration.open_registration(parsed, agent.signing)
        case "wrap":
            payload = wraps.read_wrap(parsed, keys)
        case "gap" | "correction":
            payload = notes.open_note(parsed, keys)
        case other:
            raise VerifyError(Code.UNKNOWN_KIND, field="kind", value=other)
    return CheckedObject(id=parsed.object_id, envelope=parsed, payload=payload)
