"""A refusal as a signed `answer`, for agents that ask for one with `Accept`.

An agent whose clock is wrong believes the hub's time only when the hub signed it; with the JSON of
`errors` it asks `/v1/time` instead. Which request is answered stands in the digest that it sent.
"""

import base64
import binascii
import re
import secrets
from collections.abc import Mapping
from typing import Final

from hub.api.exchange import MSGPACK, Reply
from protocol.envelope import SigningKey, make
from protocol.messages import Answer

_DIGEST: Final = re.compile(r"^sha-256=:([A-Za-z0-9+/]{43}=):$")
_RETRY_S_MAX: Final = 7 * 86_400


def is_wanted(headers: Mapping[str, str]) -> bool:
    """Tell whether the caller reads signed answers."""
    return MSGPACK in headers.get("Accept", "")


def signed(reply: Reply, key: str, headers: Mapping[str, str], *, hub: SigningKey,
           now_us: int) -> Reply:  # fmt: skip
    """Return the refusal signed; `reply` is the same one as JSON. key: of the code."""
    found = _DIGEST.match(headers.get("Content-Digest", ""))
    try:
        request = base64.b64decode(found[1]) if found else bytes(32)
    except binascii.Error:
        request = bytes(32)
    retry_s = int(reply.headers.get("Retry-After", "0"))
    answer = Answer(
        request=request,
        generation=0,  # an error says nothing of the ledger
        time=now_us,
        error=key,
        retry_after_s=min(retry_s, _RETRY_S_MAX),
        nonce=secrets.token_bytes(16),
    )
    return Reply(
        status=reply.status,
        body=make("answer", answer, hub).raw,
        media=MSGPACK,
        headers=reply.headers,
    )
