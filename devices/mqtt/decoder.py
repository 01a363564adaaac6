"""One JSON message of one device -> its readings; pure: no IO, no clock, state is explicit.

One reading, or one for each item of the array that `each` names: an item has an id of its own.

Class A where `policy.dedup_key` names the message's id, class D where a field is a counter's total,
class B else. Retained messages only initialise counters, they are never events (R48).
"""

from collections import deque
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import msgspec

from devices.counting import CounterState, state_window, step
from devices.document import hide, interpret, reject
from devices.driver import (
    DEVICE_CHARS_MAX,
    Promise,
    Reading,
    Rejected,
    Rows,
    Watermark,
    printable,
)
from devices.mapping import Fault, dig
from devices.mqtt.source import WHOLE, JsonSource
from devices.times import Judged
from protocol.errors import DecodeError
from protocol.records import Record, Value
from protocol.times import NO_MARKS, Quality

_BOM = b"\xef\xbb\xbf"
#: Largest JSON message of a device, in bytes: gates and counters send hundreds.
PAYLOAD_BYTES_MAX = 65_536
#: Items of an array, at most.
ITEMS_MAX = 1_000
#: Devices that one wildcard entry without a list of `devices` may have.
DEVICES_MAX = 1024


class Message(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the broker delivered."""

    topic: str
    payload: bytes
    qos: int = 1
    dup: bool = False  # the broker says that it may have delivered this before
    retained: bool = False  # the topic's last value, replayed at subscription
    left_out: int = 0  # bytes above `packet_max`: they were not taken in, `payload` is empty

    def __repr__(self) -> str:
        """Where it came from; never the body, which may hold personal data (R58)."""
        return f"Message({self.topic!r}, {len(self.payload)} bytes, dup={self.dup})"


class JsonDecoder:
    """Decodes the messages of one `[[device]]` entry; holds the state of its counters."""

    def __init__(
        self,
        source: JsonSource,
        *,
        key: bytes,
        watermark: Callable[[str], bytes | None],
        count: Callable[[str, str], None],
    ) -> None:
        self.source = source
        self._key = key
        self._watermark = watermark
        self._count = count  # (device, counter): what `status` shows
        self._counters: dict[str, CounterState | None] = {}
        self._names: set[str] = set()
        self._recent: deque[bytes] = deque(maxlen=source.repeat_memory)

    def decode(self, message: Message, gateway_us: int) -> list[Reading]:
        """The readings of one message, at least one; `ack` is the shell's to add. Never raises."""
        device = self.source.device_of(message.topic)
        if device is None or not self._has_room(device):
            name = printable(message.topic, DEVICE_CHARS_MAX)
            reason = "unknown-device" if device is None else "too-many-devices"
            return [self._refused(name, reason, message, "topic")]
        document, reason = _document(message.payload)
        if reason:
            return [self._refused(device, reason, message, "")]
        if message.retained and not self.source.counters:
            self._count(device, "retained")
            return [Reading(promise=self.source.promise)]
        if self.source.each is None:
            return [self._record(device, document, message, gateway_us)]
        return self._items(device, document, message, gateway_us)

    def _items(
        self, device: str, document: Any, message: Message, gateway_us: int
    ) -> list[Reading]:
        """A reading of each item of the array; at least one, for the acknowledgement."""
        items = dig(document, self.source.each or ())
        if not isinstance(items, list) or len(items) > ITEMS_MAX:
            reason = "too-many-items" if isinstance(items, list) else "not-an-array"
            return [self._refused(device, reason, message, "each")]
        is_repeat = self._is_repeat(message)
        readings = []
        for one in items:
            # What is refused of an item is kept without its neighbours.
            part = msgspec.structs.replace(message, payload=msgspec.json.encode(one))
            if not isinstance(one, dict | list):
                readings.append(self._refused(device, "not-an-object", part, "each"))
                continue
            item = {**one, WHOLE: document} if isinstance(one, dict) else one
            readings.append(self._record(device, item, part, gateway_us, is_repeat=is_repeat))
        return readings or [Reading(promise=self.source.promise)]

    def _has_room(self, device: str) -> bool:
        """Whether a device may have state of its own: under a wildcard anybody can invent names."""
        if device not in self._names and len(self._names) < DEVICES_MAX:
            self._names.add(device)
        return device in self._names

    def accepts(self, message: Message) -> bool:
        """Whether `only` says that this message is this entry's."""
        only = self.source.only
        if only is None:
            return True
        document, reason = _document(message.payload)
        return not reason and _plain(dig(document, only.steps)) in only.equals

    def _record(
        self,
        device: str,
        document: Any,
        message: Message,
        gateway_us: int,
        *,
        is_repeat: bool | None = None,
    ) -> Reading:
        """is_repeat: whether the message came before, None where nobody has looked yet."""
        source = self.source
        found = interpret(document, source.mapping, source.pack, source.time, gateway_us)
        values, time, quality = found.values, found.time, found.quality
        identity, repeated = self._identity(device, document, message, is_repeat=is_repeat)
        quality |= int(repeated)
        watermarks: list[Watermark] = []
        keep = True
        if source.counters:
            arrived = (message, gateway_us)
            keep, more = self._count_totals(device, values, time, arrived, watermarks)
            quality |= int(more)
        if source.personal:
            zone = source.time.zone
            hide(source.mapping, values, key=self._key, event_us=time.event_us, zone=zone)
        rows: list[Rows] = []
        if keep and any(value is not None for value in values.values()):
            record = Record(
                event_time_us=time.event_us,
                device=device,
                values=values,
                quality=quality,
                device_time_us=time.device_us,
            )
            rows.append(Rows(resource=source.resource, records=[record]))
        return Reading(
            rows=rows,
            identity=identity,
            watermarks=watermarks,
            rejected=self._rejections(device, document, message, found.faults),
            urgent=source.urgent,
            promise=source.promise,
        )

    def _identity(
        self, device: str, document: Any, message: Message, *, is_repeat: bool | None
    ) -> tuple[bytes | None, Quality]:
        source = self.source
        if source.dedup_steps:
            parts = [_plain(dig(document, steps)) for steps in source.dedup_steps]
            if all(part is not None for part in parts):
                return msgspec.msgpack.encode([source.id, device, *parts]), NO_MARKS
            self._count(device, "no_id")
        if source.promise is Promise.D:
            return None, NO_MARKS
        if self._is_repeat(message) if is_repeat is None else is_repeat:
            self._count(device, "maybe_repeat")
            return None, Quality.MAYBE_REPEAT
        return None, NO_MARKS

    def _is_repeat(self, message: Message) -> bool:
        """Whether the same bytes came before; from now on they have."""
        digest = blake2b(message.payload, digest_size=8, key=message.topic.encode()[:64]).digest()
        seen = digest in self._recent
        self._recent.append(digest)
        return message.dup or seen

    def _count_totals(
        self,
        device: str,
        values: dict[str, Value],
        time: Judged,
        arrived: tuple[Message, int],
        watermarks: list[Watermark],
    ) -> tuple[bool, Quality]:
        """Turn totals into increments in place; False if the message was counted before."""
        message, gateway_us = arrived
        quality, fresh = NO_MARKS, False
        has_time = not time.quality & Quality.CLOCK_GATEWAY
        for one in self.source.counters:
            # A total is never an increment: where it is not counted, nothing is known.
            raw, values[one.name] = values.get(one.name), None
            if not isinstance(raw, int):
                continue
            assert one.counter is not None
            name = f"counter/{self.source.id}/{device}/{one.name}"
            state = self._state(name)
            if message.retained and state is not None:
                continue
            done = step(
                one.counter,
                state,
                raw,
                time.event_us,
                zone=self.source.time.zone,
                gateway_us=gateway_us,
                redelivered=message.dup,
                has_time=has_time,
            )
            if done.repeat:
                continue
            fresh = True
            quality |= done.quality
            self._counters[name] = done.state
            watermarks.append(Watermark(source=name, value=done.state.dump()))
            values[one.name] = done.increment
            if one.raw_field is not None:
                values[one.raw_field] = raw
            self._window(values, state, time)
        if message.retained:
            self._count(device, "retained")
            return False, quality
        if not fresh:
            self._count(device, "repeat")
        return fresh, quality

    def _window(self, values: dict[str, Value], before: CounterState | None, time: Judged) -> None:
        if self.source.has_window and before is not None:
            state_window(values, before.at_us, time.event_us)

    def _state(self, name: str) -> CounterState | None:
        if name not in self._counters:
            stored = self._watermark(name)
            try:
                self._counters[name] = None if stored is None else CounterState.load(stored)
            except DecodeError:
                self._count(self.source.id, "watermark_unreadable")
                self._counters[name] = None
        return self._counters[name]

    def _rejections(
        self, device: str, document: Any, message: Message, faults: list[Fault]
    ) -> list[Rejected]:
        found = [
            self._rejected(device, fault.reason, message, f"{fault.field} at {fault.path}")
            for fault in faults
        ]
        if self.source.quarantine_unknown and isinstance(document, dict):
            known = self.source.known_keys
            unknown = [str(key) for key in document if str(key) not in known and key != WHOLE]
            if unknown:
                detail = printable(", ".join(unknown))
                found.append(self._rejected(device, "unknown-field", message, detail))
        return found

    def _refused(self, device: str, reason: str, message: Message, detail: str) -> Reading:
        self._count(device, "rejected")
        if message.retained:
            return Reading(promise=self.source.promise)
        return Reading(
            rejected=[self._rejected(device, reason, message, detail)], promise=self.source.promise
        )

    def _rejected(self, device: str, reason: str, message: Message, detail: str) -> Rejected:
        key = self._key if self.source.personal else None
        return reject(device, reason, message.payload, detail, personal_key=key)


def _document(payload: bytes) -> tuple[Any, str]:
    """The JSON document of a payload, or why there is none."""
    if len(payload) > PAYLOAD_BYTES_MAX:
        return None, "too-large"
    try:
        document = msgspec.json.decode(payload.removeprefix(_BOM))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None, "not-json"
    return (document, "") if isinstance(document, dict | list) else (None, "not-an-object")


def _plain(value: Any) -> str | int | float | bool | None:
    """A value that can be part of an identity; None for tables, lists and nothing."""
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        return hex(value)
    return value if isinstance(value, str | int | float | bool) else None
