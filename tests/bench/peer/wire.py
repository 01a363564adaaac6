"""As much of MQTT 3.1.1 and 5 as the bench's publisher and the stand-in speak; pure.

A library in the publisher would cost more CPU than what is measured, on the same cores.
"""

from collections.abc import Iterator
from typing import NamedTuple

CONNECT, CONNACK, PUBLISH, PUBACK = 1, 2, 3, 4
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK = 8, 9, 10, 11
PINGREQ, PINGRESP, DISCONNECT = 12, 13, 14
FIVE = 5


class Packet(NamedTuple):
    """One packet: type, its four flags, what follows the length."""

    kind: int
    flags: int
    body: bytes


class Publication(NamedTuple):
    """What a PUBLISH says; mid is 0 at QoS 0."""

    topic: str
    mid: int
    payload: bytes


class Parser:
    """Bytes of one direction of a connection -> packets."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> list[Packet]:
        self._data += data
        found, at = [], 0
        while (ends := _end(self._data, at)) is not None:
            begin, end = ends
            first = self._data[at]
            found.append(Packet(first >> 4, first & 15, self._data[begin:end]))
            at = end
        self._data = self._data[at:]
        return found


def _end(data: bytes, at: int) -> tuple[int, int] | None:
    """Where the body of the packet at a place begins and ends; None while it is not all there."""
    if len(data) < at + 2:
        return None
    length = _number(data, at + 1)
    if length is None:
        return None
    size, begin = length
    return (begin, begin + size) if len(data) >= begin + size else None


def _number(data: bytes, at: int) -> tuple[int, int] | None:
    """A variable byte integer and the place after it; None if it is cut."""
    value, shift = 0, 0
    while at < len(data):
        value |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:
            return value, at
    return None


def _after_properties(body: bytes, at: int, version: int) -> int:
    if version != FIVE:
        return at
    found = _number(body, at)
    return len(body) if found is None else sum(found)


def packet(kind: int, body: bytes = b"", flags: int = 0) -> bytes:
    """A whole packet."""
    length, rest = bytearray(), len(body)
    while True:
        rest, digit = rest >> 7, rest & 127
        length.append(digit | (128 if rest else 0))
        if not rest:
            return bytes((kind << 4 | flags,)) + length + body


def _text(text: str) -> bytes:
    raw = text.encode()
    return len(raw).to_bytes(2, "big") + raw


def connect(client_id: str) -> bytes:
    """CONNECT of MQTT 3.1.1 with a clean session and no keep-alive."""
    return packet(CONNECT, b"\x00\x04MQTT\x04\x02\x00\x00" + _text(client_id))


def version_of(body: bytes) -> int:
    """The protocol version that a CONNECT asks for."""
    return body[2 + int.from_bytes(body[:2], "big")]


def publish(topic: str, payload: bytes, mid: int = 0, version: int = 4) -> bytes:
    """PUBLISH at QoS 1, or 0 without a mid."""
    head = _text(topic) + (mid.to_bytes(2, "big") if mid else b"")
    head += b"\x00" if version == FIVE else b""
    return packet(PUBLISH, head + payload, 2 if mid else 0)


def publication(found: Packet, version: int) -> Publication:
    """What a PUBLISH says."""
    body = found.body
    at = 2 + int.from_bytes(body[:2], "big")
    topic, mid = body[2:at].decode(), 0
    if found.flags & 6:
        mid, at = int.from_bytes(body[at : at + 2], "big"), at + 2
    return Publication(topic, mid, body[_after_properties(body, at, version) :])


def acknowledgement(mid: int) -> bytes:
    """PUBACK, the same in both versions."""
    return packet(PUBACK, mid.to_bytes(2, "big"))


def filters(found: Packet, version: int) -> Iterator[str]:
    """The topic filters of a SUBSCRIBE or UNSUBSCRIBE."""
    body, at = found.body, _after_properties(found.body, 2, version)
    while at < len(body):
        size = int.from_bytes(body[at : at + 2], "big")
        yield body[at + 2 : at + 2 + size].decode()
        at += 2 + size + (found.kind == SUBSCRIBE)  # its options


def answer_subscription(found: Packet, version: int) -> bytes:
    """SUBACK that grants QoS 1 to everything, or UNSUBACK."""
    wanted = len(list(filters(found, version)))
    properties = b"\x00" if version == FIVE else b""
    if found.kind == SUBSCRIBE:
        return packet(SUBACK, found.body[:2] + properties + b"\x01" * wanted)
    codes = b"\x00" * wanted if version == FIVE else b""
    return packet(UNSUBACK, found.body[:2] + properties + codes)
