"""A stand-in for ThingsBoard: an MQTT server that stores telemetry durably before it acknowledges.

    python -m tests.bench.peer.stand_in PORT FOLDER

It is less than ThingsBoard, so that it costs the peer as little as can be: no rule chain, no database,
no broker in between. What arrives in one read of the socket is appended and synced at once
(`telemetry`: four bytes of length and the payload, message by message), counted, then acknowledged.
`counts` is rewritten after each sync: see `Counts`.
"""

import asyncio
import json
import os
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench.peer import wire

TELEMETRY = "v1/gateway/telemetry"  # of devices; what the gateway says of itself is only taken
RPC, RPC_ANSWER = "v1/devices/me/rpc/request/", "v1/devices/me/rpc/response/"
ATTRIBUTES, ATTRIBUTES_ANSWER = (
    "v1/devices/me/attributes/request/",
    "v1/devices/me/attributes/response/",
)
GATEWAY_ATTRIBUTES = "v1/gateway/attributes/request"
GATEWAY_ATTRIBUTES_ANSWER = "v1/gateway/attributes/response"
COUNTS = struct.Struct("<4Qd")
#: What ThingsBoard answers to `getSessionLimits`: its own default of the payload, no rate limits.
_NO_LIMITS = {"messages": "", "telemetryMessages": "", "telemetryDataPoints": ""}
LIMITS = {
    "maxPayloadSize": 65_536,
    "maxInflightMessages": 10_000,
    "rateLimits": _NO_LIMITS,
    "gatewayRateLimits": _NO_LIMITS,
}


class Counts(NamedTuple):
    """What the stand-in has seen so far."""

    records: int = 0
    received: int = 0  # bytes of TCP payload
    sent: int = 0
    subscriptions: int = 0
    synced_at: float = 0.0  # wall time of the last sync of telemetry


def read_counts(folder: Path) -> Counts:
    """The counts of a running stand-in."""
    try:
        return Counts(*COUNTS.unpack((folder / "counts").read_bytes()))
    except (OSError, struct.error):
        return Counts()


def read_telemetry(folder: Path) -> Iterator[dict[str, Any]]:
    """The stored records one by one: {"ts": ms, "values": {…}}."""
    raw, at = (folder / "telemetry").read_bytes(), 0
    while at < len(raw):
        size = int.from_bytes(raw[at : at + 4], "big")
        for records in json.loads(raw[at + 4 : at + 4 + size]).values():
            yield from records
        at += 4 + size


def count_records(payload: bytes) -> int:
    """Records of a telemetry payload without parsing it: the receiver's CPU is measured."""
    return payload.count(b'"ts"')


class Store:
    """The file of all telemetry, and the counts."""

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / "telemetry", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._counts = os.open(folder / "counts", os.O_RDWR | os.O_CREAT)
        self.records = self.received = self.sent = self.subscriptions = 0
        self.synced_at = 0.0

    def keep(self, payloads: list[bytes]) -> None:
        """Append and sync; what this returns from is durable."""
        parts = [part for one in payloads for part in (len(one).to_bytes(4, "big"), one)]
        os.write(self._file, b"".join(parts))
        os.fdatasync(self._file)
        self.synced_at = time.time()
        self.records += sum(map(count_records, payloads))

    def note(self) -> None:
        counted = (self.records, self.received, self.sent, self.subscriptions, self.synced_at)
        os.pwrite(self._counts, COUNTS.pack(*counted), 0)


class Session(asyncio.Protocol):
    """One connection of the gateway."""

    def __init__(self, store: Store) -> None:
        self._store, self._parser, self._version = store, wire.Parser(), 4
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        store, out, payloads = self._store, [], []
        store.received += len(data)
        for found in self._parser.feed(data):
            if found.kind == wire.PUBLISH:
                said = wire.publication(found, self._version)
                if said.topic == TELEMETRY:
                    payloads.append(said.payload)
                if said.mid:
                    out.append(wire.acknowledgement(said.mid))
                out += self._answers(said)
            else:
                out += self._control(found)
        if payloads:
            store.keep(payloads)
        assert self._transport is not None
        answer = b"".join(out)
        store.sent += len(answer)
        self._transport.write(answer)
        store.note()

    def _control(self, found: wire.Packet) -> list[bytes]:
        if found.kind == wire.CONNECT:
            self._version = wire.version_of(found.body)
            properties = b"\x00" if self._version == wire.FIVE else b""
            return [wire.packet(wire.CONNACK, b"\x00\x00" + properties)]
        if found.kind in {wire.SUBSCRIBE, wire.UNSUBSCRIBE}:
            self._store.subscriptions += 1
            return [wire.answer_subscription(found, self._version)]
        if found.kind == wire.PINGREQ:
            return [wire.packet(wire.PINGRESP)]
        return []

    def _answers(self, said: wire.Publication) -> list[bytes]:
        topic, answer = "", {}
        if said.topic.startswith(RPC):
            topic, answer = RPC_ANSWER + said.topic.removeprefix(RPC), LIMITS
        elif said.topic.startswith(ATTRIBUTES):
            topic = ATTRIBUTES_ANSWER + said.topic.removeprefix(ATTRIBUTES)
        elif said.topic == GATEWAY_ATTRIBUTES:
            asked = json.loads(said.payload)
            topic = GATEWAY_ATTRIBUTES_ANSWER
            answer = {"id": asked.get("id"), "device": asked.get("device"), "values": {}}
        if not topic:
            return []
        return [wire.publish(topic, json.dumps(answer).encode(), version=self._version)]


async def serve(port: int, folder: Path) -> None:
    """Serve until the process is ended."""
    store = Store(folder)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Session(store), "127.0.0.1", port)
    store.note()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), Path(sys.argv[2])))
