"""The device of the torture: produces, sends until acknowledged, and keeps books.

It runs in the harness and outlives every kill. What it was told `ok` for is marked in the trace, so
that a power cut knows what had been promised by then.
"""

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

WINDOW = 64


@dataclass
class Books:
    """What was produced and what was acknowledged, by key."""

    produced: dict[str, dict[str, object]] = field(default_factory=dict)
    acked: set[str] = field(default_factory=set)


class Device:
    """Sends a mix of the three classes while it runs; `drain` waits until everything is taken."""

    def __init__(
        self,
        port: int,
        on_ack: Callable[[str], None] = lambda _key: None,
        *,
        mix: str = "AAADE",
        first: int = 1,
    ) -> None:
        """mix: the kinds that it sends in turn. first: number of its first message of each kind."""
        self.port = port
        self.mix = mix
        self.books = Books()
        self.producing = True
        self.pause_s = 0.002
        self._on_ack = on_ack
        self.on_made: Callable[[dict[str, object]], None] = lambda _message: None
        self.next_at: list[
            int
        ] = []  # event times, µs, of the next checks: an odd day, a wrong clock
        self.junk = 0  # so many records that no pack takes are sent next
        self._next = dict.fromkeys("ADEJ", first)
        self._open: dict[str, dict[str, object]] = {}
        self._changed = asyncio.Event()

    def tell(
        self, *, on_ack: Callable[[str], None], on_made: Callable[[dict[str, object]], None]
    ) -> None:
        """Who is told of acknowledgements and of new messages."""
        self._on_ack, self.on_made = on_ack, on_made

    @classmethod
    def resumed(
        cls, port: int, produced: dict[str, dict[str, object]], acked: set[str]
    ) -> "Device":
        """The same device later: it still holds what it was not told `ok` for."""
        device = cls(port)
        device.books = Books(produced, acked)
        device._open = {key: m for key, m in produced.items() if key not in acked}
        for kind in device._next:
            device._next[kind] = 1 + max((int(k[1:]) for k in produced if k[0] == kind), default=0)
        return device

    async def run(self) -> None:
        """Connect, send, be acknowledged; again after every loss of the connection."""
        while True:
            with suppress(OSError, asyncio.IncompleteReadError, ValueError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                try:
                    await self._talk(reader, writer)
                finally:
                    writer.close()
            await asyncio.sleep(0.02)

    async def drained(self) -> None:
        """Wait until nothing is unacknowledged. The caller bounds the wait."""
        while self._open:
            self._changed.clear()
            await self._changed.wait()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readline()
        if not first.startswith(b"from "):
            return
        for message in self._asked(int(first.split()[1])):
            writer.write(json.dumps(message).encode() + b"\n")
            await writer.drain()
        sender = asyncio.create_task(self._send(writer))
        try:
            while line := await reader.readline():
                self._take(line.decode().split()[1])
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    def _asked(self, row: int) -> list[dict[str, object]]:
        """What is said after connecting: all that is open, the table from a row on, the total.

        A table (class E) and a counter (class D) can be read again, whatever was acknowledged: that
        is what their promise rests on when a gateway goes back to an image.
        """
        told = [
            message
            for key, message in self.books.produced.items()
            if key in self._open or (key[0] == "E" and int(key[1:]) >= row)
        ]
        totals = [message for key, message in self.books.produced.items() if key[0] == "D"]
        return [*told, *totals[-1:]]

    def _take(self, key: str) -> None:
        if self._open.pop(key, None) is not None:
            self.books.acked.add(key)
            self._on_ack(key)
            self._changed.set()

    async def _send(self, writer: asyncio.StreamWriter) -> None:
        turn = 0
        while True:
            await asyncio.sleep(self.pause_s)
            if not self.producing or len(self._open) >= WINDOW:
                continue
            if self.junk:
                self.junk -= 1
                message = self._make("J")
            else:
                message = self._make(self.mix[turn % len(self.mix)])
            turn += 1
            writer.write(json.dumps(message).encode() + b"\n")
            await writer.drain()

    def _make(self, kind: str) -> dict[str, object]:
        n = self._next[kind]
        self._next[kind] = n + 1
        key = f"{kind}{n}"
        message: dict[str, object] = {"key": key, "at": time.time_ns() // 1000}
        if kind == "A":
            message |= {"gate": f"E{n % 3}", "nth": 1 + n % 5}
            if self.next_at:
                message["at"] = self.next_at.pop()
        elif kind == "J":
            message |= {"pad": 60_000}
        elif kind == "D":
            message |= {"total": n * 3}
        else:
            message |= {"n": n}
        self.books.produced[key] = message
        self._open[key] = message
        self.on_made(message)
        return message
