"""Enrolment: how a gateway is let in, and how it knows that it talks to the right hub.

The agent holds a token that names the hub; it sends an `enrolment` signed by its own key and by
the token's. The hub's `enrolled` is believed only if its key is the one that the token named, it
answers exactly this request, and the ledger leaf about this request stands in a checkpoint that
the hub's log signed.
"""

from collections.abc import Callable
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

from protocol import limits
from protocol.checkpoint import log_origin, verify_note
from protocol.envelope import (
    Envelope,
    SigningKey,
    decode_payload,
    expect_kind,
    make,
    only_key,
    parse,
    verify,
)
from protocol.errors import Code, RefusedError, TooLargeError, VerifyError
from protocol.ids import (
    ObjectId,
    PrincipalId,
    Use,
    WireHash,
    WireNonce,
    WireObject,
    WirePrincipal,
    WirePublicKey,
    WireU8,
    WireU32,
    WireU63,
    key_id,
    principal_id,
)
from protocol.inbox import InboxNumber
from protocol.leaf import EventLeaf, parse_leaf
from protocol.merkle import leaf_hash, verify_inclusion
from protocol.times import ClockReading
from protocol.token import Token

AgentState: TypeAlias = Literal["active", "waiting"]
Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=limits.NAME_CHARS_MAX)]
_Suites: TypeAlias = Annotated[tuple[WireU8, ...], Meta(min_length=1, max_length=8)]


class Enrolment(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Payload of kind `enrolment`, signed by [agent key, token key]; ≤ 4 KiB with its envelope."""

    token_id: Annotated[bytes, Meta(min_length=8, max_length=8)]
    hub: WirePrincipal  # as the token named it
    signing_key: WirePublicKey  # the agent's
    sealing_key: WirePublicKey
    suites: _Suites  # that the agent can use, best first
    owner: WirePrincipal | None  # pinned at the gateway, or nil
    name: Name  # of the gateway, for people
    software: Name  # "shanmen-agent 0.1.0"
    clock: ClockReading
    nonce: WireNonce


class HubKeys(Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """The hub's public keys: [signing, sealing]."""

    signing: WirePublicKey
    sealing: WirePublicKey


class Enrolled(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Payload of kind `enrolled`: the hub's answer, with the proof that it is on record."""

    request: WireObject  # object id of the enrolment
    hub: WirePrincipal
    hub_keys: HubKeys
    log_key: Annotated[str, Meta(max_length=limits.TEXT_CHARS_MAX)]  # verifier key of the ledger
    generation: WireU32  # of the ledger
    agent: WirePrincipal
    site: Name
    region: Annotated[str, Meta(max_length=limits.NAME_CHARS_MAX)]  # GB/T 2260
    state: AgentState  # waiting: an admin must approve
    owner: WirePrincipal | None  # the pin repeated, else what the hub knows of the site
    suites: _Suites  # that hub and agent both have
    checkpoint: Annotated[str, Meta(max_length=limits.NOTE_BYTES_MAX)]
    leaf: Annotated[bytes, Meta(max_length=limits.LEAF_BYTES_MAX)]
    index: WireU63
    path: Annotated[tuple[WireHash, ...], Meta(max_length=limits.PATH_HASHES_MAX)]
    inbox: InboxNumber  # the first message has a higher number
    nonce: WireNonce


def make_enrolment(
    token: Token,
    *,
    signing: SigningKey,
    sealing_public: bytes,
    owner: PrincipalId | None,
    name: str,
    software: str,
    clock: ClockReading,
    nonce: bytes,
    suites: tuple[int, ...] = (1,),
) -> Envelope:
    """Ask to be let in. nonce: 16 random bytes. Kept and sent again until it is answered."""
    payload = Enrolment(
        token_id=token.token_id,
        hub=token.hub,
        signing_key=signing.public,
        sealing_key=sealing_public,
        suites=suites,
        owner=owner,
        name=name,
        software=software,
        clock=clock,
        nonce=nonce,
    )
    return make("enrolment", payload, signing, token.signing_key())


def open_enrolment(
    raw: bytes, *, token_key: Callable[[bytes], bytes | None], hub: PrincipalId
) -> tuple[Enrolment, Envelope]:
    """Read and verify a stranger's request: for this hub, signed by its key and by a token's.

    token_key: gives the public key of a token id, or None; nothing else was looked up before.
    Raises TooLargeError, DecodeError; VerifyError WRONG_HUB, WRONG_SIGNER, SIGNATURE_INVALID;
    RefusedError TOKEN_UNKNOWN. Whether the token is used or expired is the hub's transaction.
    """
    if len(raw) > limits.ENROLMENT_BYTES_MAX:
        raise TooLargeError(Code.TOO_LARGE, field="enrolment", value=len(raw))
    envelope = parse(raw)
    expect_kind(envelope, "enrolment")
    payload = decode_payload(envelope, Enrolment)
    if payload.hub != hub:
        raise VerifyError(Code.WRONG_HUB, field="hub", value=payload.hub)
    token_public = token_key(payload.token_id)
    if token_public is None:
        raise RefusedError(Code.TOKEN_UNKNOWN, field="token_id", value=payload.token_id)
    # The order is part of the format: the agent's signature first.
    publics = {
        key_id(public, use=Use.SIGNING, suite=envelope.suite): public
        for public in (payload.signing_key, token_public)
    }
    if tuple(publics) != tuple(signature.key_id for signature in envelope.signatures):
        raise VerifyError(Code.WRONG_SIGNER, field="signatures", expected="agent key, token key")
    verify(envelope, publics.get)
    return payload, envelope


def make_enrolled(payload: Enrolled, hub: SigningKey) -> Envelope:
    """Answer an enrolment as the hub, after its leaf is committed."""
    return make("enrolled", payload, hub)


def open_enrolled(
    raw: bytes,
    *,
    hub: PrincipalId,
    request: ObjectId,
    agent: PrincipalId,
    record_hash: bytes | None = None,
) -> Enrolled:
    """Verify the hub's answer to this agent's request; store it only then, and use it after that.

    hub: from the token. request: object id of the enrolment that was sent (it covers the agent's
    own keys). record_hash: of the whole enrolment, where the agent still has it.
    Raises VerifyError: WRONG_HUB (another hub's key), ANSWER_FOR_OTHER_REQUEST, WRONG_AGENT,
    SIGNATURE_INVALID, PROOF_INVALID, CHECKPOINT_INVALID; DecodeError.
    """
    envelope = parse(raw)
    expect_kind(envelope, "enrolled")
    answer = decode_payload(envelope, Enrolled)
    # The key stands in the answer itself; only the id from the token makes it the hub's.
    if principal_id(answer.hub_keys.signing, suite=envelope.suite) != hub:
        raise VerifyError(Code.WRONG_HUB, field="hub_keys", value=answer.hub_keys.signing)
    verify(envelope, only_key(answer.hub_keys.signing, suite=envelope.suite))
    if answer.hub != hub:
        raise VerifyError(Code.WRONG_HUB, field="hub", value=answer.hub)
    if answer.request != request:
        raise VerifyError(Code.ANSWER_FOR_OTHER_REQUEST, field="request", value=answer.request)
    if answer.agent != agent:
        raise VerifyError(Code.WRONG_AGENT, field="agent", value=answer.agent)
    if answer.inbox.generation != answer.generation:
        raise VerifyError(Code.BINDING_MISMATCH, field="inbox", value=answer.inbox.generation)
    _verify_leaf(answer, request, record_hash)
    return answer


def _verify_leaf(answer: Enrolled, request: ObjectId, record_hash: bytes | None) -> None:
    """Check that the ledger holds this very enrolment."""
    origin = log_origin(answer.hub, answer.generation)
    checkpoint = verify_note(answer.checkpoint, answer.log_key, origin=origin)
    leaf = parse_leaf(answer.leaf)
    if not isinstance(leaf, EventLeaf) or leaf.kind != "enrolment":
        raise VerifyError(Code.PROOF_INVALID, field="leaf", expected="an enrolment's leaf")
    if leaf.object_id != request:
        raise VerifyError(Code.PROOF_INVALID, field="leaf", value=leaf.object_id)
    if record_hash is not None and leaf.record_hash != record_hash:
        raise VerifyError(Code.HASH_MISMATCH, field="leaf", value=leaf.record_hash)
    if not answer.index < checkpoint.size:
        raise VerifyError(Code.PROOF_INVALID, field="index", value=answer.index)
    verify_inclusion(
        leaf_hash(answer.leaf), answer.index, checkpoint.size, answer.path, checkpoint.root
    )
