"""Wraps: an epoch key sealed to one recipient, so that a burnt gateway loses no data.

The box names everything that the envelope names, because an envelope can be signed again by
somebody else and a box cannot be opened by them: the recipient compares both.
"""

from typing import Annotated, Final

from msgspec import Meta, Struct

from protocol import limits
from protocol.envelope import (
    Envelope,
    KeyLookup,
    SealingKey,
    SigningKey,
    decode_payload,
    expect_kind,
    make,
)
from protocol.envelope import verify as verify_envelope
from protocol.errors import Code, VerifyError
from protocol.ids import (
    KeyId,
    PrincipalId,
    Use,
    WireHash,
    WireKeyId,
    WireNonce,
    WirePrincipal,
    WireResource,
    WireU8,
    WireU32,
    WireU63,
    key_id,
)
from protocol.keys import EpochKey
from protocol.suites import suite as suite_of
from protocol.times import WireTime

_MAGIC: Final = b"SMWK"
BOX_BYTES: Final = 90 + 48  # the sealed box of the 90 bytes below


class Seen(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The maker's last verified checkpoint: [origin, size, root]; comparing them finds a split."""

    origin: Annotated[str, Meta(max_length=limits.TEXT_CHARS_MAX)]
    size: WireU63
    root: WireHash


class Interval(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An epoch's interval of event time: [from, to) in µs UTC."""

    from_us: WireTime
    to_us: WireTime


class Wrap(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Payload of kind `wrap`: one epoch key for one recipient's sealing key."""

    resource: WireResource
    epoch: WireU32
    group: WireU8
    interval: Interval
    maker: WirePrincipal  # agent, or the owner's tool for past epochs
    recipient: WirePrincipal
    recipient_key: WireKeyId  # of its sealing key
    commitment: WireHash
    box: Annotated[bytes, Meta(min_length=BOX_BYTES, max_length=BOX_BYTES)]
    seen: Seen | None  # nil before the maker has verified any checkpoint
    nonce: WireNonce


def make_wrap(
    epoch_key: EpochKey,
    *,
    recipient: PrincipalId,
    recipient_sealing: bytes,
    maker: SigningKey,
    seen: Seen | None,
    nonce: bytes,
    box_seed: bytes,
    maker_principal: PrincipalId | None = None,
) -> Envelope:
    """Seal an epoch key to a recipient's public sealing key and sign it as its maker.

    recipient_sealing: 32 bytes from a principal object verified under its pin.
    nonce: 16 random bytes; box_seed: 32 random bytes, secret, never used again.
    Raises VerifyError WEAK_KEY.
    """
    suite = maker.suite
    made_by = maker_principal or maker.principal
    recipient_key = key_id(recipient_sealing, use=Use.SEALING, suite=suite)
    plain = _boxed(suite, epoch_key, made_by, recipient_key)
    return make(
        "wrap",
        Wrap(
            resource=epoch_key.resource,
            epoch=epoch_key.epoch,
            group=epoch_key.group,
            interval=Interval(epoch_key.from_us, epoch_key.to_us),
            maker=made_by,
            recipient=recipient,
            recipient_key=recipient_key,
            commitment=epoch_key.commitment(suite),
            box=suite_of(suite).seal_box(plain, recipient_sealing, box_seed),
            seen=seen,
            nonce=nonce,
        ),
        maker,
    )


def _boxed(suite: int, key: EpochKey, maker: PrincipalId, recipient_key: KeyId) -> bytes:
    return b"".join(
        (
            _MAGIC,
            bytes((suite,)),
            key.resource,
            key.epoch.to_bytes(4, "big"),
            bytes((key.group,)),
            maker,
            recipient_key,
            key.key,
        )
    )


def read_wrap(envelope: Envelope, maker_keys: KeyLookup) -> Wrap:
    """Verify a wrap's signature and give its payload without opening it (the hub's view).

    The signer must be the maker that the payload names. Raises VerifyError, DecodeError.
    """
    expect_kind(envelope, "wrap")
    verify_envelope(envelope, maker_keys)
    wrap = decode_payload(envelope, Wrap)
    if bytes(envelope.signer) != bytes(wrap.maker):
        # Principals have one signing key, their first, whose id is the principal's.
        raise VerifyError(Code.WRONG_SIGNER, field="maker", value=wrap.maker)
    if wrap.interval.from_us >= wrap.interval.to_us:
        raise VerifyError(Code.BINDING_MISMATCH, field="interval", expected="from < to")
    return wrap


def open_wrap(
    envelope: Envelope,
    sealing: SealingKey,
    maker_keys: KeyLookup,
    *,
    recipient: PrincipalId | None = None,
) -> EpochKey:
    """Verify a wrap, open its box and compare every field of the two.

    recipient: the principal that opens it; compared where given.
    Raises VerifyError: UNKNOWN_KEY, WRONG_SIGNER, SIGNATURE_INVALID, AUTHENTICATION_FAILED (sealed
    to another key), BINDING_MISMATCH (box and envelope disagree), COMMITMENT_MISMATCH.
    """
    wrap = read_wrap(envelope, maker_keys)
    if wrap.recipient_key != sealing.key_id:
        raise VerifyError(Code.BINDING_MISMATCH, field="recipient_key", value=wrap.recipient_key)
    if recipient is not None and wrap.recipient != recipient:
        raise VerifyError(Code.BINDING_MISMATCH, field="recipient", value=wrap.recipient)
    plain = sealing.open(wrap.box)
    key = EpochKey(
        resource=wrap.resource,
        epoch=wrap.epoch,
        group=wrap.group,
        key=plain[-32:],
        from_us=wrap.interval.from_us,
        to_us=wrap.interval.to_us,
    )
    if plain != _boxed(envelope.suite, key, wrap.maker, wrap.recipient_key):
        raise VerifyError(Code.BINDING_MISMATCH, field="box", expected="the envelope's fields")
    if key.commitment(envelope.suite) != wrap.commitment:
        raise VerifyError(Code.COMMITMENT_MISMATCH, field="commitment", value=wrap.commitment)
    return key
