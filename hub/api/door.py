"""The listening side: who may connect, for how long in silence, and how a broken request is told.

One class of aiohttp's low-level server and one of its protocol: a cap of connections in all and per
address before a byte is parsed, and a machine-readable 400 for what is not HTTP. An idle or silent
connection is closed by aiohttp's keep-alive timer, which starts when the connection is made.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

log = logging.getLogger(__name__)

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\n"
    b"Retry-After: 5\r\nConnection: close\r\nContent-Length: 40\r\n\r\n"
    b'{"error":{"key":"too-many-connections"}}'
)
_BROKEN = '{"error":{"key":"http-broken"}}'


class Visitor(RequestHandler):
    """One connection."""

    __slots__ = ("_address", "_counted", "_door")

    def __init__(self, door: "Door", **kwargs: Any) -> None:
        super().__init__(door, **kwargs)
        self._door = door
        self._address = ""
        self._counted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a place, or be told that there is none and be closed."""
        peer = transport.get_extra_info("peername")
        self._address = str(peer[0]) if isinstance(peer, tuple) else ""
        if not self._door.enter(self._address):
            assert isinstance(transport, asyncio.Transport)
            transport.write(_BUSY)
            transport.close()
            return
        self._counted = True
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Ignore what a refused visitor sends while its connection closes."""
        if self._counted:
            super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Give the place back."""
        if self._counted:
            self._counted = False
            self._door.leave(self._address)
            super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002  # aiohttp's signature
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  # aiohttp's signature
    ) -> web.StreamResponse:
        """Answer what could not be parsed as HTTP; nothing of it is repeated or logged as text."""
        self._door.broken += 1
        if status >= 500 and exc is not None:  # never by input: the outermost wrapper is inside
            log.error("request failed outside the middleware", exc_info=exc)
        response = web.Response(status=status, text=_BROKEN, content_type="application/json")
        response.force_close()
        return response


class Door(web.Server):
    """Makes a `Visitor` for each connection and counts them."""

    def __init__(self, handler: Handler, *, total: int, per_address: int, **kwargs: Any) -> None:
        super().__init__(handler, **kwargs)
        self._total = total
        self._per_address = per_address
        self._inside: Counter[str] = Counter()
        self.open = 0  #: connections open now
        self.refused = 0  #: connections refused since the start
        self.broken = 0  #: requests that were not HTTP since the start

    def __call__(self) -> RequestHandler:
        """Return the protocol of a new connection."""
        return Visitor(self, loop=self._loop, **self._kwargs)

    def enter(self, address: str) -> bool:
        """Take a place for a connection from `address`; False if there is none."""
        if self.open >= self._total or self._inside[address] >= self._per_address:
            self.refused += 1
            return False
        self.open += 1
        self._inside[address] += 1
        return True

    def leave(self, address: str) -> None:
        """Give a place back."""
        self.open -= 1
        self._inside[address] -= 1
        if self._inside[address] <= 0:
            del self._inside[address]
