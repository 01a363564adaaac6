"""The link between agent and hub: a TCP proxy that can be cut, or swallow what it is given."""

import asyncio
from contextlib import suppress
from typing import Self

_CHUNK = 64 * 1024


class Link:
    """Forwards connections to one port of this machine, while it is whole.

    Cut: established connections are reset and new ones refused. Half-open: established connections
    stay and new ones are taken, and nothing that is sent ever arrives; whoever waits must time out.
    """

    def __init__(self, target_port: int) -> None:
        self._target = target_port
        self._server: asyncio.Server | None = None
        self._pairs: set[asyncio.Task[None]] = set()
        self._swallowing = False
        self.used = asyncio.Event()  # somebody sent while it was half-open
        self.port = 0
        self.forwarded = 0  # bytes, both directions
        self.swallowed = 0  # bytes that vanished while half-open

    async def open(self) -> None:
        """Listen on a free port."""
        await self._listen(0)

    async def close(self) -> None:
        """Reset what is established and listen no more."""
        await self._close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def cut(self) -> None:
        """Reset every connection and refuse new ones until `restore`."""
        await self._close()

    async def half_open(self) -> None:
        """Keep connections and swallow everything until `restore`."""
        self.used.clear()
        self._swallowing = True

    async def restore(self) -> None:
        """Be whole again; connections that were half-open are reset."""
        if self._swallowing:
            self._swallowing = False
            await self._drop()
        if self._server is None:
            await self._listen(self.port)

    async def _listen(self, port: int) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._drop()

    async def _drop(self) -> None:
        pairs = list(self._pairs)
        for pair in pairs:
            pair.cancel()
        await asyncio.gather(*pairs, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._pairs.add(task)
        try:
            with suppress(OSError, asyncio.CancelledError):
                await self._pair(reader, writer)
        finally:
            self._pairs.discard(task)
            writer.transport.abort()

    async def _pair(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while self._swallowing and (data := await reader.read(_CHUNK)):
            self._swallow(data)
        if self._swallowing:
            return
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, there_writer))
                both.create_task(self._pump(there_reader, writer))
        except* OSError:
            pass  # either end went away; so does the other
        finally:
            there_writer.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(_CHUNK):
            if self._swallowing:
                self._swallow(data)
                continue
            self.forwarded += len(data)
            sink.write(data)
            await sink.drain()
        if sink.can_write_eof():
            sink.write_eof()

    def _swallow(self, data: bytes) -> None:
        self.swallowed += len(data)
        self.used.set()
