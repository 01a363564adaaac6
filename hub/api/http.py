"""Between aiohttp and the gate: a request becomes `Incoming`, a `Reply` goes out.

aiohttp's low-level server is used, because routes, limits and errors are ours: one table, one way.
"""

import ipaddress
from collections.abc import AsyncIterator
from typing import Final

from aiohttp import web
from multidict import CIMultiDictProxy

from hub.api.exchange import Reply
from hub.api.middleware import Gate

_CHUNK: Final = 256 * 1024


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
        self.loopback = _is_loopback(self.address) and not (
            {"Forwarded", "X-Forwarded-For", "Via"} & set(request.headers)
        )

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes; nothing when it ends, early or not."""
        try:
            while piece := await self._content.read(_CHUNK):
                yield piece
        except (web.RequestPayloadError, ConnectionError):
            return


def _is_loopback(address: str) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return bool((mapped or found).is_loopback)


async def answer(gate: Gate, request: web.BaseRequest) -> web.StreamResponse:
    """Let one request through the gate and write its reply."""
    reply = await gate.serve(HttpIncoming(request))
    if reply.stream is not None:
        return await _stream(request, reply)
    response = web.Response(status=reply.status, body=reply.body)
    _head(response, reply)
    if not request.content.is_eof():
        response.force_close()  # what is left of a refused body is nobody's next request
    return response


async def _stream(request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
    assert reply.stream is not None
    response = web.StreamResponse(status=reply.status)
    _head(response, reply)
    try:
        await response.prepare(request)
        await response.write(reply.body)
        async for piece in reply.stream:
            await response.write(piece)
        await response.write_eof()
    except ConnectionResetError:
        pass  # whoever polled is gone, and needs no answer
    finally:
        await reply.stream.aclose()
    return response


def _head(response: web.StreamResponse, reply: Reply) -> None:
    response.headers.update(reply.headers)
    response.headers["Content-Type"] = reply.media
    response.headers["Server"] = "shanmen-hub"
