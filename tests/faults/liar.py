"""A hub that lies: in front of the real one, it answers some batches itself and never passes them on.

What it answers is what an attacker or a broken cache could: an answer that the hub once gave to
another request, or bytes that are no answer at all. Everything else it passes on.
"""

import asyncio
import random
from contextlib import suppress

from devices.simulators.broker import free_port

TYPE = "application/vnd.shanmen+msgpack"


class Liar:
    """Listens on a port of its own; `lies` counts the batches that never reached the hub."""

    def __init__(self, hub_port: int, seed: int, *, share: float = 0.5) -> None:
        self.port = free_port()
        self.lies = 0
        self._hub_port = hub_port
        self._rng = random.Random(seed)
        self._share = share
        self._kept = b"\x81\xa1x\x01"
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", self.port)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hub_writer: asyncio.StreamWriter | None = None
        try:
            hub_reader, hub_writer = await asyncio.open_connection("127.0.0.1", self._hub_port)
            while True:
                head, body = await request_of(reader)
                is_sync = head.startswith(b"POST /v1/sync")
                if is_sync and self._rng.random() < self._share:
                    self.lies += 1
                    writer.write(answer_of(self._kept))
                    continue
                hub_writer.write(head + body)
                if is_sync:
                    head, body = await request_of(hub_reader)
                    if head.startswith(b"HTTP/1.1 200"):
                        self._kept = body
                    writer.write(head + body)
                else:
                    await self._rest(hub_reader, writer)
                    return
        except (OSError, asyncio.IncompleteReadError, ValueError):
            pass
        finally:
            for one in (writer, hub_writer):
                if one is not None:
                    one.close()

    async def _rest(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """An answer of unknown length (a long poll): passed on until somebody hangs up."""
        with suppress(OSError):
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()


async def request_of(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Head and body of one message with a length."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    return head, await reader.readexactly(length)


def answer_of(body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {TYPE}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
