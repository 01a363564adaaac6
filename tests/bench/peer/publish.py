"""The publisher of both sides: checks of the load at QoS 1, made beforehand, as one process.

    python -m tests.bench.peer.publish PORT TOPIC RECORDS SIZE RATE SKIP

`SIZE` records a message (1: an object; more: an array of objects), `RATE` records a second (0: as fast
as the broker acknowledges), after leaving out the first `SKIP` records of the load. Prints `ready`,
waits for a line, publishes, prints {"began", "ended"} of wall time: ended when all is acknowledged.
"""

import asyncio
import json
import sys
import time
from typing import Any

from tests.bench.load import Load
from tests.bench.peer import wire

#: Messages published and not acknowledged, at most.
WINDOW = 256


def said(record: Any) -> dict[str, Any]:
    """One record as the device says it: what the peer takes with the least work. `number` is its id."""
    return {"ts": record.event_time_us // 1000, "values": record.values}


def payloads(records: int, size: int, skip: int) -> list[bytes]:
    """The messages."""
    made = [said(one) for one in Load("checks").take(skip + records)[skip:]]
    if size == 1:
        return [_dumps(one) for one in made]
    return [_dumps(made[at : at + size]) for at in range(0, records, size)]


def numbers(records: int, skip: int) -> list[int]:
    """The identities of the same records."""
    return [int(one.values["number"]) for one in Load("checks").take(skip + records)[skip:]]  # type: ignore[arg-type]


def _dumps(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


class Publisher(asyncio.Protocol):
    """Keeps at most WINDOW messages under way."""

    def __init__(self, packets: list[bytes], per_second: float) -> None:
        self._packets, self._per_second = packets, per_second
        self._parser, self._transport = wire.Parser(), None
        self.sent = self.acked = 0
        self.began = self.ended = 0.0
        self.connected, self.done = asyncio.Event(), asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(wire.connect("bench-publisher"))

    def data_received(self, data: bytes) -> None:
        for found in self._parser.feed(data):
            if found.kind == wire.CONNACK:
                self.connected.set()
            self.acked += found.kind == wire.PUBACK
        if self.acked == len(self._packets):
            self.ended = time.time()
            self.done.set()
        elif not self._per_second and self.began:
            self._send(len(self._packets))

    def _send(self, until: int) -> None:
        until = min(until, self.acked + WINDOW, len(self._packets))
        if until > self.sent:
            self._transport.write(b"".join(self._packets[self.sent : until]))
            self.sent = until

    async def run(self) -> None:
        self.began = time.time()
        self._send(len(self._packets) if not self._per_second else 1)
        while self._per_second and not self.done.is_set():
            await asyncio.sleep(0.01)
            self._send(int((time.time() - self.began) * self._per_second))
        await self.done.wait()


async def main() -> None:
    port, topic, records, size, rate, skip = sys.argv[1:]
    made = payloads(int(records), int(size), int(skip))
    packets = [wire.publish(topic, one, n % 65_535 + 1) for n, one in enumerate(made)]
    loop = asyncio.get_running_loop()
    make = lambda: Publisher(packets, float(rate) / int(size))  # noqa: E731
    _, publisher = await loop.create_connection(make, "127.0.0.1", int(port))
    await publisher.connected.wait()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await publisher.run()
    print(json.dumps({"began": publisher.began, "ended": publisher.ended}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
