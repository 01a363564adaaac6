"""The inbox: what a hub tells an agent that asks. Absolute values, applied once and in order.

The hub may set only what the agent's configuration allows: how often segments close, how much may
be sent. Nothing in an inbox makes an agent delete, open or re-grade anything.
"""

from typing import Annotated, TypeAlias

from msgspec import Meta, Struct

from protocol import limits
from protocol.envelope import Envelope, KeyLookup, SigningKey, make, open_as
from protocol.errors import Code, VerifyError
from protocol.ids import PrincipalId, WireNonce, WirePrincipal, WireResource, WireU32, WireU63
from protocol.times import WireTime

_Resources: TypeAlias = Annotated[tuple[WireResource, ...], Meta(max_length=256)]


class Live(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="live"):
    """Somebody watches: segments of these resources close after 2 s, until a time."""

    resources: _Resources  # none: all of the agent's
    until: WireTime  # µs UTC by the hub's clock; a time that has passed ends live mode


class Budget(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="budget"):
    """How much the agent may send: the smaller of this and its own configuration holds."""

    batch_bytes: Annotated[int, Meta(ge=64 * 1024, le=limits.SYNC_BYTES_MAX)]
    bytes_per_s: WireU32  # 0: no limit of the hub's


class SegmentAge(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="segment-age"):
    """After how many seconds a segment of these resources closes."""

    resources: _Resources  # none: all of the agent's
    seconds: Annotated[int, Meta(ge=1, le=limits.SEGMENT_AGE_S_MAX)]


Message: TypeAlias = Live | Budget | SegmentAge


class InboxNumber(Struct, frozen=True, order=True, array_like=True, forbid_unknown_fields=True):
    """A message's place: [generation, n]; a restored hub counts anew in a higher generation."""

    generation: WireU32
    n: WireU63


class InboxMessage(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Payload of kind `inbox`."""

    agent: WirePrincipal  # to whom
    number: InboxNumber
    expires: WireTime  # µs UTC: not applied later
    message: Message
    nonce: WireNonce

    @property
    def generation(self) -> int:
        """Generation of the hub's ledger in which the number counts."""
        return self.number.generation

    @property
    def n(self) -> int:
        """The number within its generation, from 1."""
        return self.number.n


def make_inbox(message: InboxMessage, hub: SigningKey) -> Envelope:
    """Sign a message as the hub."""
    return make("inbox", message, hub)


def open_inbox(
    envelope: Envelope,
    keys: KeyLookup,
    *,
    agent: PrincipalId,
    applied: tuple[int, int],
    now_us: int,
) -> InboxMessage:
    """Verify a message that is for this agent, in time, and newer than the last applied.

    applied: (generation, n) of the last one. Raises VerifyError WRONG_AGENT, REPLAYED, EXPIRED or
    of the signature; DecodeError.
    """
    opened = open_as(envelope, "inbox", InboxMessage, keys)
    if opened.agent != agent:
        raise VerifyError(Code.WRONG_AGENT, field="agent", value=opened.agent)
    if (opened.generation, opened.n) <= applied:
        raise VerifyError(Code.REPLAYED, field="number", value=opened.n)
    if opened.expires < now_us:
        raise VerifyError(Code.EXPIRED, field="expires", value=opened.expires)
    return opened
