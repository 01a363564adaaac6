"""Principals (主体): organisation, user, application, agent, hub — whoever has keys.

A principal object is signed by the key that it names, and binds a sealing key to it: an agent
wraps only to a sealing key that it verified under its pin, so a hub cannot slip in one of its own.
"""

from typing import Literal, TypeAlias

from msgspec import Struct

from protocol.envelope import (
    Envelope,
    SigningKey,
    decode_payload,
    expect_kind,
    make,
    only_key,
    verify,
)
from protocol.errors import Code, DecodeError, VerifyError
from protocol.ids import (
    KeyId,
    PrincipalId,
    WireKeyId,
    WireNonce,
    WireObject,
    WirePrincipal,
    WirePublicKey,
    WireU32,
    principal_id,
)

PrincipalKind: TypeAlias = Literal["agent", "owner", "user", "application", "hub"]


class Principal(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Payload of kind `principal`: who, with which keys."""

    principal: WirePrincipal  # id of the first signing key; survives rotation
    kind: PrincipalKind
    signing_key: WirePublicKey
    sealing_key: WirePublicKey
    recovery_key: WireKeyId | None  # id of an offline signing key that overrides rotations
    version: WireU32  # 1
    previous: WireObject | None  # object id of version − 1
    nonce: WireNonce


def make_principal(
    signing: SigningKey,
    sealing_public: bytes,
    *,
    kind: PrincipalKind,
    nonce: bytes,
    recovery_key: KeyId | None = None,
) -> Envelope:
    """Make version 1 of a principal, signed by its own key. nonce: 16 random bytes."""
    payload = Principal(
        principal=signing.principal,
        kind=kind,
        signing_key=signing.public,
        sealing_key=sealing_public,
        recovery_key=recovery_key,
        version=1,
        previous=None,
        nonce=nonce,
    )
    return make("principal", payload, signing)


def open_principal(envelope: Envelope, pin: PrincipalId) -> Principal:
    """Verify a principal under its pin: id, key and signature must be one.

    pin: the id that the reader already trusts (a fingerprint given by a person, or, for a hub that
    merely stores it, the envelope's own signer). Raises VerifyError, DecodeError.
    """
    expect_kind(envelope, "principal")
    payload = decode_payload(envelope, Principal)
    if principal_id(payload.signing_key, suite=envelope.suite) != pin:
        raise VerifyError(Code.WRONG_SIGNER, field="signing_key", value=payload.signing_key)
    verify(envelope, only_key(payload.signing_key, suite=envelope.suite))
    if payload.principal != pin:
        raise VerifyError(Code.BINDING_MISMATCH, field="principal", value=payload.principal)
    if payload.version != 1 or payload.previous is not None:
        raise DecodeError(
            Code.UNKNOWN_VERSION, field="version", value=payload.version, expected="version 1"
        )
    return payload
