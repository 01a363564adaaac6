"""Packets that are too large are cut down before they are read into memory. Pure.

paho reads a packet whole, whatever its length says (up to 256 MB), and MQTT 3.1.1 cannot tell a
broker a bound; one publisher could take all memory of the gateway. Leaving the connection is no
answer: the broker would deliver the same message again, for ever. So a PUBLISH above the bound goes
on with its topic and packet id, and without what it carried: it can be rejected and acknowledged.
"""

import secrets
from typing import Final

_PUBLISH: Final = 3
_QOS_MASK: Final = 0x06
_LENGTH_BYTES_MAX: Final = 4
_MARK_BYTES: Final = 16
_IMPOSSIBLE: Final = b"\xf0\xff\xff\xff\xff\xff"  # a length of five bytes ends the connection


class Sieve:
    """Bytes of a broker in, the bytes that the MQTT library is given out; of one connection."""

    def __init__(self, *, bytes_max: int, is_five: bool) -> None:
        self._bytes_max = bytes_max  # of a packet with its header
        self._is_five = is_five
        # Stands in for a payload that was left out: no publisher can know it.
        self._mark = secrets.token_bytes(_MARK_BYTES)
        self._held = b""  # the head of a packet, not yet judged
        self._left = 0  # bytes of a packet that go through
        self._skip = 0  # bytes of a packet that do not
        self._cut = b""  # the packet that goes on when they are through

    @property
    def is_skipping(self) -> bool:
        """Whether what comes next is left out."""
        return self._skip > 0

    def strain(self, data: bytes) -> bytes:
        """What goes on of `data`; may be nothing.

        What is no packet, or too large and no message, goes on as one that ends the connection:
        after all that came before it.
        """
        if self._left >= len(data):
            self._left -= len(data)
            return data
        data, self._held = self._held + data, b""
        kept: list[bytes] = []
        at = 0
        while at < len(data):
            if self._skip:
                step = min(self._skip, len(data) - at)
                self._skip -= step
                if not self._skip:
                    kept.append(self._cut)
            elif self._left:
                step = min(self._left, len(data) - at)
                self._left -= step
                kept.append(data[at : at + step])
            else:
                try:
                    head, step = self._head(data, at)
                except ValueError:
                    kept.append(_IMPOSSIBLE)
                    break
                if not step:
                    self._held = data[at:]
                    break
                kept.append(head)
            at += step
        return b"".join(kept)

    def left_out(self, payload: bytes) -> int:
        """How many bytes were left out of the message with this payload; 0 for what is whole."""
        if not payload.startswith(self._mark):
            return 0
        return int.from_bytes(payload[_MARK_BYTES:], "big")

    def _head(self, data: bytes, at: int) -> tuple[bytes, int]:
        """What goes on of the head at `at`, and its length; 0 if it is not all there yet.

        Raises ValueError for what is no packet, or too large and no message.
        """
        body, length = _fixed(data, at)
        if not body:
            return b"", 0
        if body - at + length <= self._bytes_max:
            self._left = length
            return data[at:body], body - at
        if data[at] >> 4 != _PUBLISH:
            raise ValueError("packet too large")
        if len(data) < body + 2:
            return b"", 0
        topic_end = body + 2 + int.from_bytes(data[body : body + 2], "big")
        end = topic_end + (2 if data[at] & _QOS_MASK else 0)
        if end - body > length:
            raise ValueError("topic longer than its packet")
        if len(data) < end:
            return b"", 0
        if end - body == length:  # nothing but its topic, which has a bound of its own
            return data[at:end], end - at
        self._skip = length - (end - body)
        properties = b"\0" if self._is_five else b""  # none
        rest = data[body:end] + properties + self._mark + self._skip.to_bytes(4, "big")
        self._cut = data[at : at + 1] + _varint(len(rest)) + rest
        return b"", end - at


def _fixed(data: bytes, at: int) -> tuple[int, int]:
    """Where the body of the packet at `at` begins, and its length; 0, 0 if not all is there.

    Raises ValueError for a length of more than four bytes.
    """
    length = 0
    for i in range(_LENGTH_BYTES_MAX):
        where = at + 1 + i
        if where >= len(data):
            return 0, 0
        length |= (data[where] & 0x7F) << 7 * i
        if data[where] < 0x80:
            return where + 1, length
    raise ValueError("no packet length")


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
