"""`GET /v1/time`: what a gateway asks whose clock says 1970, before anything it signs counts."""

import re
import secrets
from typing import Final

import msgspec

from hub.api.exchange import Call, Reply, raw_reply
from hub.api.parts import Parts
from protocol.envelope import make
from protocol.errors import Code, DecodeError

_NONCE: Final = re.compile(r"^[0-9a-f]{32}$")


class TimeAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Payload of kind `time`."""

    time: int  #: hub time, µs UTC
    nonce: bytes  #: 16, as asked: an old answer cannot be played again
    hub_key: bytes  #: public signing key, whose id is the hub's: who knows that id can verify
    log_key: bytes  #: public key of the ledger's checkpoints, for readers that never enrolled


async def tell(parts: Parts, call: Call) -> Reply:
    """The hub's time and the caller's nonce in a hub envelope."""
    text = call.query.get("nonce", secrets.token_hex(16))
    if not _NONCE.match(text):
        raise DecodeError(Code.MALFORMED, field="nonce", expected="32 hexadecimal digits")
    payload = TimeAnswer(
        time=parts.clock_us(),
        nonce=bytes.fromhex(text),
        hub_key=parts.keys.signing.public,
        log_key=parts.keys.log.public,
    )
    return raw_reply(make("time", payload, parts.keys.signing).raw)
