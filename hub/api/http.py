"""Between aiohttp and the gate: a request becomes `Incoming`, a `Reply` goes out.

aiohttp's low-level server is used, because routes, limits and errors are ours: one table, one way.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from aiohttp import web
from multidict import CIMultiDictProxy

from hub.api.body import Pace
from hub.api.exchange import Reply
from hub.api.middleware import Gate
from protocol.program.hosts import is_loopback

_CHUNK: Final = 256 * 1024
#: A request with one of these came through a proxy: its sender is not on this machine.
_FORWARDED: Final = ("Forwarded", "X-Forwarded-For", "X-Real-IP", "Via")


class HttpIncoming:
    """An aiohttp request as the gate sees it."""

    def __init__(self, request: web.BaseRequest) -> None:
        self._content = request.content
        self.method = request.method
        self.target = request.raw_path
        self.headers: CIMultiDictProxy[str] = request.headers
        transport = request.transport
        peer = None if transport is None else transport.get_extra_info("peername")
        self.address = str(peer[0]) if isinstance(peer, tuple) else ""
        self.loopback = is_loopback(self.address) and not (
            any(name in request.headers for name in _FORWARDED)
        )

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes; nothing when it ends, early or not."""
        try:
            while piece := await self._content.read(_CHUNK):
                yield piece
        except (web.RequestPayloadError, ConnectionError):
            return


async def answer(gate: Gate, pace: Pace, request: web.BaseRequest) -> web.StreamResponse:
    """Let one request through the gate and write its reply; a reader slower than `pace` is left."""
    reply = await gate.serve(HttpIncoming(request))
    if reply.stream is None:
        response: web.StreamResponse = web.Response(status=reply.status, body=reply.body)
    else:
        response = web.StreamResponse(status=reply.status)
    response.headers.update(reply.headers)
    response.headers["Content-Type"] = reply.media
    response.headers["Server"] = "shanmen-hub"
    if not request.content.is_eof():
        response.force_close()  # what is left of a refused body is nobody's next request
    try:
        async with asyncio.timeout(pace.silence_s + len(reply.body) / pace.floor):
            await response.prepare(request)
            if reply.stream is None:
                await response.write_eof()
        if reply.stream is not None:
            await _stream(response, reply, pace)
    except (TimeoutError, ConnectionResetError):  # too slow, or gone: nobody waits for the rest
        response.force_close()
        if request.transport is not None:
            request.transport.abort()
    finally:
        if reply.stream is not None:
            await reply.stream.aclose()
    return response


async def _stream(response: web.StreamResponse, reply: Reply, pace: Pace) -> None:
    assert reply.stream is not None
    await response.write(reply.body)
    async for piece in reply.stream:
        async with asyncio.timeout(pace.silence_s + len(piece) / pace.floor):
            await response.write(piece)
    await response.write_eof()
