"""Identities: who and what, as 16 or 32 bytes; printed so that a person can read them out.

A principal's id (agent, owner, user, application, hub) is the id of its first signing key and
survives rotation. A resource id survives a change of owner or gateway.
"""

import base64
import binascii
import hashlib
import unicodedata
from enum import IntEnum
from typing import Annotated, NewType

from msgspec import Meta

from protocol import tags
from protocol.errors import Code, DecodeError
from protocol.suites import suite as suite_of

PrincipalId = NewType("PrincipalId", bytes)  # 16: 主体, an organisation, user, agent, hub
ResourceId = NewType("ResourceId", bytes)  # 16: 数据资源
StreamId = NewType("StreamId", bytes)  # 16 random: one run of sequence numbers
KeyId = NewType("KeyId", bytes)  # 16: a public key and its use
RunId = NewType("RunId", bytes)  # 8 random: one start of an agent's process
ObjectId = NewType("ObjectId", bytes)  # 32: a signed object
SegmentId = NewType("SegmentId", bytes)  # 32: 数据段

_LEN8 = Meta(min_length=8, max_length=8)
_LEN16 = Meta(min_length=16, max_length=16)
_LEN32 = Meta(min_length=32, max_length=32)

# The same ids as fields of a payload: decoding refuses another length.
WirePrincipal = Annotated[PrincipalId, _LEN16]
WireResource = Annotated[ResourceId, _LEN16]
WireStream = Annotated[StreamId, _LEN16]
WireKeyId = Annotated[KeyId, _LEN16]
WireRun = Annotated[RunId, _LEN8]
WireObject = Annotated[ObjectId, _LEN32]
WireSegment = Annotated[SegmentId, _LEN32]
WireHash = Annotated[bytes, _LEN32]
WirePublicKey = Annotated[bytes, _LEN32]
WireNonce = Annotated[bytes, _LEN16]
WireU8 = Annotated[int, Meta(ge=0, le=2**8 - 1)]
WireU32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]
WireU63 = Annotated[int, Meta(ge=0, le=2**63 - 1)]  # as far as SQL integers reach

_ID_CHARS = 26
_SHOWN_CHARS = 28


class Use(IntEnum):
    """What a key is for; part of its id, so that one key can never serve both."""

    SIGNING = 1
    SEALING = 2


def _check_chars(id16: bytes) -> str:
    digest = hashlib.sha256(tags.CHECK + id16).digest()
    return base64.b32encode(digest[:2]).decode().lower()[:2]  # the first 10 bits


def show(id16: bytes) -> str:
    """Give a 16-byte id for people: base32 and two check characters, in groups of four.

    Seven groups, lower case, joined by "-". Raises DecodeError if it is not 16 bytes.
    """
    if len(id16) != 16:
        raise DecodeError(Code.MALFORMED, field="id", value=id16, expected="16 bytes")
    text = base64.b32encode(id16).decode().lower()[:_ID_CHARS] + _check_chars(id16)
    return "-".join(text[at : at + 4] for at in range(0, _SHOWN_CHARS, 4))


def parse(text: str) -> bytes:
    """Read a shown id, with or without dashes and blanks, in any case.

    Raises DecodeError: MALFORMED if it is no id, CHECKSUM if it was mistyped.
    """
    plain = text.replace("-", "").replace(" ", "").strip().lower()
    if len(plain) != _SHOWN_CHARS or not plain.isascii():
        # Something longer may be a token that was pasted in the wrong place: a secret.
        given = text if len(plain) <= _SHOWN_CHARS else len(plain)
        raise DecodeError(Code.MALFORMED, field="id", value=given, expected="28 base32 characters")
    try:
        id16 = base64.b32decode(plain[:_ID_CHARS].upper() + "======")
    except binascii.Error as error:
        raise DecodeError(
            Code.MALFORMED, field="id", value=text, expected="base32: a-z and 2-7"
        ) from error
    if base64.b32encode(id16).decode().lower()[:_ID_CHARS] + _check_chars(id16) != plain:
        raise DecodeError(Code.CHECKSUM, field="id", value=text, expected="right check characters")
    return id16


def key_id(public: bytes, *, use: Use, suite: int = 1) -> KeyId:
    """Give the id of a public key: the same key for another use or suite has another id."""
    return KeyId(suite_of(suite).hash(tags.KEY, bytes((suite, use)), public)[:16])


def principal_id(signing_public: bytes, *, suite: int = 1) -> PrincipalId:
    """Give the id of the principal whose first signing key this is (主体)."""
    return PrincipalId(key_id(signing_public, use=Use.SIGNING, suite=suite))


def resource_id(agent: PrincipalId, local_name: str, *, suite: int = 1) -> ResourceId:
    """Give the id of a gateway's resource by its name in the configuration (数据资源).

    The name is normalised to NFC, so that two keyboards give one id.
    """
    name = unicodedata.normalize("NFC", local_name).encode()
    return ResourceId(suite_of(suite).hash(tags.RESOURCE, agent, name)[:16])
