"""Enrolment tokens: one use, one site, 24 hours by default; typed or pasted by a technician."""

import base64
import binascii
import re
from typing import Final, NoReturn

from protocol import tags
from protocol.envelope import SigningKey
from protocol.errors import Code, DecodeError
from protocol.ids import PrincipalId
from protocol.suites import suite as suite_of

PREFIX: Final = "SM1-"
TOKEN_ID_BYTES: Final = 8
SECRET_BYTES: Final = 16
_BODY_BYTES = TOKEN_ID_BYTES + SECRET_BYTES + 16
_CHARS = 68  # base32 of 42 bytes without padding
_BLANKS = re.compile(r"[\s-]+")


class Token:
    """A token as the technician holds it. Its repr hides the secret; only `text` has it."""

    __slots__ = ("_secret", "hub", "token_id")

    def __init__(self, token_id: bytes, secret: bytes, hub: PrincipalId) -> None:
        if (len(token_id), len(secret), len(hub)) != (TOKEN_ID_BYTES, SECRET_BYTES, 16):
            raise DecodeError(Code.MALFORMED, field="token", expected="8, 16 and 16 bytes")
        self.token_id = token_id
        self._secret = secret
        self.hub = hub  # whom the agent will believe, before it has heard from it

    @property
    def text(self) -> str:
        """The token as it is handed over, "SM1-…": a secret."""
        body = self.token_id + self._secret + self.hub
        whole = body + crc16(body).to_bytes(2, "big")
        return PREFIX + base64.b32encode(whole).decode().rstrip("=")

    def signing_key(self) -> SigningKey:
        """Give the token's key; the hub stores its public half and never the secret."""
        return SigningKey(suite_of(1).hash(tags.TOKEN, self.token_id, self._secret))

    def __repr__(self) -> str:
        return f"Token({self.token_id.hex()}, •••)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Token) and self._parts() == other._parts()

    def __hash__(self) -> int:
        return hash(self._parts())

    def __reduce__(self) -> NoReturn:
        raise TypeError("tokens are not pickled")

    def _parts(self) -> tuple[bytes, bytes, bytes]:
        return self.token_id, self._secret, self.hub


def make_token(token_id: bytes, secret: bytes, hub: PrincipalId) -> Token:
    """Make a token of 8 and 16 random bytes for one hub."""
    return Token(token_id, secret, hub)


def parse_token(text: str) -> Token:
    """Read a token, in any case, with or without blanks and dashes.

    Raises DecodeError MALFORMED or CHECKSUM; the error never holds the text, which is a secret.
    """
    plain = _BLANKS.sub("", text).upper()
    if not plain.startswith("SM1") or len(plain) != 3 + _CHARS:
        raise DecodeError(Code.MALFORMED, field="token", expected=f"{PREFIX} and {_CHARS} letters")
    try:
        whole = base64.b32decode(plain[3:] + "====")
    except (binascii.Error, ValueError):
        # No `from`: the cause would carry nothing but could one day carry the text.
        raise DecodeError(
            Code.MALFORMED, field="token", expected="letters A-Z and digits 2-7"
        ) from None
    body, crc = whole[:_BODY_BYTES], whole[_BODY_BYTES:]
    token = Token(body[:8], body[8:24], PrincipalId(body[24:]))
    if crc16(body) != int.from_bytes(crc, "big") or token.text != PREFIX + plain[3:]:
        raise DecodeError(Code.CHECKSUM, field="token", expected="the token without a typing error")
    return token


def crc16(data: bytes) -> int:
    """Give CRC-16/CCITT-FALSE: polynomial 0x1021, start 0xFFFF, nothing reflected."""
    return binascii.crc_hqx(data, 0xFFFF)
