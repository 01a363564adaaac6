"""A request's body: bounded by its declared length, and by how slowly it may come.

A sender must keep `floor` bytes per second after a head start, and may not be silent for longer
than `silence_s`; a thousand sluggish connections would otherwise hold the hub's memory for ever.
"""

import asyncio
from dataclasses import dataclass

from hub.api.exchange import Incoming
from hub.config import HubConfig
from protocol.errors import Code, DecodeError, TooLargeError, UnavailableError


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How slowly a body may come."""

    floor: int  #: bytes per second
    grace_s: float  #: head start before the floor is judged
    silence_s: float  #: longest wait for the next bytes


def pace_of(config: HubConfig) -> Pace:
    """Return the pace that the settings ask for."""
    limits = config.limits
    return Pace(
        floor=limits.body_floor,
        grace_s=limits.body_grace_seconds,
        silence_s=limits.item_seconds,
    )


def declared_length(incoming: Incoming, maximum: int) -> int:
    """Return the length that the header declares, before a byte of the body is read.

    Raises DecodeError for a content coding, a body without a length, or one where none belongs;
    TooLargeError above `maximum`.
    """
    headers = incoming.headers
    if "Content-Encoding" in headers:
        raise DecodeError(Code.CONTENT_CODING, field="content-encoding", expected="no coding")
    if "Transfer-Encoding" in headers:
        raise DecodeError(Code.MALFORMED, field="transfer-encoding", expected="a content-length")
    values = headers.getall("Content-Length", [])
    if not values:
        if maximum and incoming.method == "POST":
            raise DecodeError(Code.MISSING_FIELD, field="content-length", expected="a length")
        return 0
    if len(values) != 1 or not values[0].isascii() or not values[0].isdigit():
        raise DecodeError(Code.MALFORMED, field="content-length", expected="one number")
    if len(values[0]) > 12 or int(values[0]) > maximum:
        raise TooLargeError(
            Code.TOO_LARGE, field="content-length", expected=f"at most {maximum} bytes"
        )
    return int(values[0])


async def read_body(incoming: Incoming, length: int, pace: Pace) -> bytes:
    """Read exactly `length` bytes. Raises UnavailableError (too slow), DecodeError (cut short)."""
    if not length:
        return b""
    loop = asyncio.get_running_loop()
    start = loop.time()
    pieces: list[bytes] = []
    received = 0
    chunks = incoming.chunks()
    while received < length:
        allowed = start + pace.grace_s + received / pace.floor - loop.time()
        wait_s = min(pace.silence_s, allowed)
        try:
            async with asyncio.timeout(max(wait_s, 0)):
                piece = await anext(chunks, b"")
        except TimeoutError as error:
            raise UnavailableError(
                Code.TOO_SLOW, field="body", expected=f"{pace.floor} bytes a second"
            ) from error
        if not piece:
            raise DecodeError(Code.MALFORMED, field="body", expected=f"{length} bytes")
        received += len(piece)
        pieces.append(piece)
    if received > length:
        raise DecodeError(Code.MALFORMED, field="body", expected=f"{length} bytes")
    return b"".join(pieces) if len(pieces) > 1 else pieces[0]
