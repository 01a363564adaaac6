"""Payload bytes of one uplink -> named values; pure, driven by a profile's table.

Nothing is guessed: an item that is cut off, unknown or impossible is reported with its offset and
its siblings are kept (R46, R47). Raises nothing for any bytes.
"""

from decimal import Decimal
from functools import cache
from typing import Final, NamedTuple

import msgspec

from devices.lorawan.profile import ChannelTable, Item, Kind, MessageTable, Profile, Target, width
from protocol.records import Value

#: Longest application payload of LoRaWAN, in bytes; more is not an uplink.
PAYLOAD_BYTES_MAX: Final = 255


class CodecFault(msgspec.Struct, frozen=True, gc=False):
    """What was not understood, from which byte on."""

    reason: str  # message key under `reject.`
    offset: int
    item: str = ""  # the item, or the bytes in hex
    to: str = ""  # the target whose record loses a value


class Named(NamedTuple):
    """One decoded value."""

    to: Target
    line: str
    name: str
    value: Value


class Decoded(msgspec.Struct, frozen=True, kw_only=True):
    """What one payload says."""

    kind: Kind | None = None  # None: not a message that the profile knows
    values: list[Named] = []
    faults: list[CodecFault] = []
    history: list[tuple[int, list[Named]]] = []  # (device's seconds, values)

    def of(self, to: str) -> dict[str, Value]:
        """The values of one target by name; counters by `line/name`."""
        return {
            f"{one.line}/{one.name}" if one.line else one.name: one.value
            for one in self.values
            if one.to == to
        }


def decode(profile: Profile, port: int, data: bytes) -> Decoded:
    """Decode one payload by its profile."""
    if len(data) > PAYLOAD_BYTES_MAX:
        return Decoded(faults=[CodecFault("too-large", 0, f"{len(data)} bytes")])
    if profile.message:
        return _frame(profile, port, data)
    if port not in profile.ports:
        return Decoded(faults=[CodecFault("unknown-port", 0, str(port))])
    return _channels(profile, data)


def _frame(profile: Profile, port: int, data: bytes) -> Decoded:
    candidates = [one for one in profile.message if port in one.ports]
    if not candidates:
        return Decoded(faults=[CodecFault("unknown-port", 0, str(port))])
    for one in candidates:
        if len(data) == one.length and _matches(one, data):
            values: list[Named] = []
            faults: list[CodecFault] = []
            for item in one.items:
                _take(item, data, 0, values, faults)
            return Decoded(kind=one.kind, values=values, faults=faults)
    shorter = any(len(data) < one.length for one in candidates)
    reason = "truncated" if shorter else "unknown-message"
    return Decoded(faults=[CodecFault(reason, len(data) if shorter else 0, data.hex())])


def _matches(one: MessageTable, data: bytes) -> bool:
    return all(data[int(at)] in allowed for at, allowed in one.match.items())


def _channels(profile: Profile, data: bytes) -> Decoded:
    table = {(one.id, one.type): one for one in profile.channel}
    values: list[Named] = []
    faults: list[CodecFault] = []
    history: list[tuple[int, list[Named]]] = []
    kind: Kind | None = None
    at = 0
    while at < len(data):
        head = data[at : at + 2]
        one = table.get((head[0], head[1])) if len(head) == 2 else None
        length = None if one is None else _length(one, data, at + 2)
        if one is None or length is None:
            reason = "truncated" if one is not None or len(head) < 2 else "unknown-item"
            faults.append(CodecFault(reason, at, data[at : at + 16].hex()))
            break
        into = values
        if one.history:
            into = []
            history.append((int.from_bytes(data[at + 2 : at + 6], "little"), into))
        _channel(one, data[at + 2 : at + 2 + length], at + 2, into, faults)
        if kind is None or one.kind == "state":
            kind = one.kind or kind
        at += 2 + length
    if kind is None and (values or history):
        kind = "heartbeat"
    return Decoded(kind=kind, values=values, faults=faults, history=history)


def _length(one: ChannelTable, data: bytes, at: int) -> int | None:
    """The length of a channel's value; None if the payload ends before it does."""
    length = one.length
    if one.length_at is not None:
        if at + one.length_at >= len(data):
            return None
        length = one.length_by.get(str(data[at + one.length_at]), len(data) + 1)
    return length if at + length <= len(data) else None


def _channel(
    one: ChannelTable, value: bytes, offset: int, values: list[Named], faults: list[CodecFault]
) -> None:
    for item in one.items:
        # A channel of two lengths has items that only the longer one holds.
        if not one.length_by or item.at + width(item) <= len(value):
            _take(item, value, offset, values, faults)


def _take(
    item: Item, data: bytes, offset: int, values: list[Named], faults: list[CodecFault]
) -> None:
    raw = data[item.at : item.at + width(item)]
    if item.type == "version":
        values.append(Named(item.to, item.line, item.name, ".".join(str(one) for one in raw)))
        return
    if item.type == "version_hex":
        values.append(Named(item.to, item.line, item.name, ".".join(f"{one:x}" for one in raw)))
        return
    order: Final = "little" if item.type.endswith("le") else "big"
    number = int.from_bytes(raw, order, signed=item.type[0] == "i")
    if item.bits is not None:
        number = (number >> item.bits[0]) & ((1 << item.bits[1]) - 1)
    value = _meaning(item, number)
    if value is None and number not in item.missing:
        faults.append(CodecFault("out-of-range", offset + item.at, item.name, item.to))
    values.append(Named(item.to, item.line, item.name, value))


def _meaning(item: Item, number: int) -> Value:
    """The value of a raw number; None if it is a sentinel or impossible."""
    if number in item.missing:
        return None
    if item.codes is not None:
        return item.codes.get(str(number))
    value: int | float = number
    if item.scale is not None:
        value = float(number * _decimal(item.scale))
    if item.range is not None and not item.range[0] <= value <= item.range[1]:
        return None
    return value


@cache
def _decimal(text: str) -> Decimal:
    return Decimal(text)
