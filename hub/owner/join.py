"""How an owner and a hub get to know each other: `shanmen principal add`.

The token comes from a person and names the hub. Its keys are believed only in an envelope that the
key with that very id signed; the owner's principal is signed by the owner's own key.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hub.owner.client import Client
from hub.owner.keyfile import read_object
from hub.owner.state import Known, Memory
from protocol import limits
from protocol.envelope import decode_payload, expect_kind, only_key, parse, verify
from protocol.errors import Code, DecodeError, VerifyError
from protocol.ids import PrincipalId, WireNonce, WirePublicKey, WireU63, principal_id
from protocol.token import parse_token


@dataclass(frozen=True, slots=True)
class Joined:
    """What the hub said, and what was verified of it."""

    hub: PrincipalId
    known_before: bool  # the hub's word
    sites: list[str]  # the hub's word: sites that name this owner


class _Time(msgspec.Struct, frozen=True, kw_only=True):
    """Payload of kind `time`, as far as an owner needs it."""

    time: WireU63  # µs UTC
    nonce: WireNonce
    hub_key: WirePublicKey
    log_key: WirePublicKey


class _Accepted(msgspec.Struct, frozen=True, kw_only=True):
    object: str
    known: bool = False
    sites: list[str] = []


async def add_principal(key: Path, *, url: str, token: str, ca: str) -> Joined:
    """Hand the owner's principal to the hub and pin the hub. Needs no passphrase.

    Running it again with a used token is harmless. Raises DecodeError for a mistyped token,
    RefusedError with the hub's reason, VerifyError for another hub, UnavailableError, ConfigError.
    """
    invited = parse_token(token)
    raw = read_object(key)
    async with Client(url, invited.hub, invited.signing_key(), ca=ca) as client:
        hub_key, log_key = await _keys(client, invited.hub)
        said = await client.post("/v1/objects", raw)
        memory = Memory(key)
        before = memory.get(invited.hub)
        fresh = Known(
            hub=invited.hub,
            url=client.url,
            ca=ca,
            signing_key=hub_key,
            log_key=log_key,
            generation=0,
        )
        if before is not None:  # what was seen of its ledger is kept
            fresh = msgspec.structs.replace(before, url=client.url, ca=ca)
        memory.put(fresh)
    try:
        accepted = msgspec.json.decode(said, type=_Accepted)
    except msgspec.MsgspecError as error:
        raise DecodeError(Code.MALFORMED, field="answer", expected="JSON") from error
    if accepted.object != parse(raw).object_id.hex():
        raise VerifyError(Code.ANSWER_FOR_OTHER_REQUEST, field="object", value=accepted.object)
    return Joined(invited.hub, accepted.known, accepted.sites)


async def _keys(client: Client, hub: PrincipalId) -> tuple[bytes, bytes]:
    """The hub's signing and log keys, signed by the key whose id the token named."""
    nonce = secrets.token_bytes(limits.NONCE_BYTES)
    raw = await client.get(
        "/v1/time", {"nonce": nonce.hex()}, limit=limits.OBJECT_BYTES_MAX, signed=False
    )
    envelope = parse(raw)
    expect_kind(envelope, "time")
    told = decode_payload(envelope, _Time)
    if principal_id(told.hub_key, suite=envelope.suite) != hub:
        raise VerifyError(Code.WRONG_HUB, field="hub", value=told.hub_key)
    verify(envelope, only_key(told.hub_key, suite=envelope.suite))
    if told.nonce != nonce:
        raise VerifyError(Code.REPLAYED, field="nonce", value=told.nonce)
    return told.hub_key, told.log_key
