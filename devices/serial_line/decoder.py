"""A frame of one reader, or what is none, -> a reading and the answer that it waits for; pure.

Class A where the reader waits and `policy.dedup_key` names the message's id, B where it waits
without one, C else. State (`recent`) is explicit and travels as a watermark.
"""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

import msgspec

from devices.document import Interpreted, hide, interpret, reject
from devices.driver import Reading, Rejected, Rows, Watermark
from devices.framing import Frame, Junk
from devices.mapping import Fault, dig
from devices.serial_line.message import Document, UnreadableError
from devices.serial_line.recent import Heard, Memory, Recent
from devices.serial_line.source import SerialSource
from devices.transforms import local_day
from protocol.errors import DecodeError
from protocol.records import Record
from protocol.times import NO_MARKS, Quality

#: A frame that arrives whole and cannot be understood is refused so often, then accepted: it is in
#: quarantine, and must not keep the gate from telling what comes after it. Where the answer must
#: name a field of the message, there is none to send, and it stays refused.
REFUSALS_MAX: Final = 3
_DIGEST_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a frame comes to."""

    reading: Reading  # its `ack` is the shell's to add
    answer: bytes | None  # what its ack sends
    tag: bytes  # of the frame: equal for the same bytes


class SerialDecoder:
    """Decodes the frames of one `[[device]]` entry."""

    def __init__(
        self,
        source: SerialSource,
        *,
        key: bytes,
        watermark: Callable[[str], bytes | None],
        count: Callable[[str, str, int], None],
    ) -> None:
        self.source = source
        self._key = key
        self._count = count  # (device, counter, by): what `status` shows
        self._mark = f"recent/{source.id}"
        self._refused: tuple[bytes, int] = (b"", 0)  # the last frame, and how often
        self._before: tuple[bytes, Heard] = (b"", Heard.NEW)  # the last id, and what it was
        reply = source.reply
        self._recent = Recent(
            window_us=source.repeat_us,
            resend_us=reply.resend_us if reply else None,
            stored=self._stored(watermark(self._mark)),
        )

    def reconnected(self) -> None:
        """The line was opened anew."""
        self._recent.reconnected()

    def frame(self, frame: Frame, gateway_us: int) -> Decoded:
        """The reading of one frame. Never raises."""
        source, tag = self.source, self._digest(frame.body)
        try:
            day = local_day(gateway_us, source.time.zone)
            document, faults = source.message.read(frame.body, day)
        except UnreadableError as wrong:
            return self._unreadable(frame, tag, wrong)
        self._refused = (b"", 0)
        found = interpret(document, source.mapping, source.pack, source.time, gateway_us)
        found.faults.extend(faults)
        quality = found.quality | int(Quality.OUT_OF_RANGE if faults else NO_MARKS)
        identity = self._identity(document)
        heard = self._heard(document, tag, identity, (found.time.event_us, gateway_us))
        quality |= int(_MARKS[heard])
        rejected = [self._rejected(one, frame) for one in found.faults]
        answer = source.reply.accept(document) if source.reply else None
        if heard is Heard.REPEAT and not source.keeps_repeats:
            # One scan: its first record stands; nothing is written for the others.
            return Decoded(Reading(promise=source.promise), answer, tag)
        reading = Reading(
            rows=self._rows(found, quality),
            identity=identity,
            watermarks=self._watermarks(),
            rejected=rejected,
            urgent=source.urgent,
            promise=source.promise,
        )
        return Decoded(reading, answer, tag)

    def junk(self, junk: Junk) -> Decoded | None:
        """What a piece of junk leads to; None for mere noise, which is counted."""
        source = self.source
        if junk.reason == "noise":
            self._count(source.id, "noise_bytes", junk.size)
            return None
        self._count(source.id, "rejected", 1)
        self._count(source.id, junk.reason.replace("-", "_"), 1)
        detail = f"{junk.size} bytes" if junk.size > len(junk.raw) else ""
        rejected = reject(source.id, junk.reason, junk.raw, detail, personal_key=self._personal)
        refused = source.reply.refused if source.reply else None
        reading = Reading(rejected=[rejected], promise=source.promise)
        return Decoded(reading, refused, b"")

    def _unreadable(self, frame: Frame, tag: bytes, wrong: UnreadableError) -> Decoded:
        source = self.source
        self._count(source.id, "rejected", 1)
        last, times = self._refused
        times = times + 1 if last == tag else 1
        self._refused = (tag, times)
        answer = None
        if (reply := source.reply) is not None:
            gives_up = reply.refused is None or times > REFUSALS_MAX
            accepted = reply.accept(None) if gives_up else None
            answer = reply.refused if accepted is None else accepted
            self._count(source.id, "refused" if accepted is None else "accepted_unread", 1)
        if times > 1:
            # The same bytes again: kept once, counted each time.
            return Decoded(Reading(promise=source.promise), answer, tag)
        rejected = reject(
            source.id, wrong.reason, frame.raw, wrong.detail, personal_key=self._personal
        )
        return Decoded(Reading(rejected=[rejected], promise=source.promise), answer, tag)

    def _rows(self, found: Interpreted, quality: int) -> list[Rows]:
        source, values, time = self.source, found.values, found.time
        hide(source.mapping, values, key=self._key, event_us=time.event_us, zone=source.time.zone)
        if all(value is None for value in values.values()):
            return []
        record = Record(
            event_time_us=time.event_us,
            device=source.id,
            values=values,
            quality=quality,
            device_time_us=time.device_us,
        )
        return [Rows(resource=source.resource, records=[record])]

    def _heard(
        self, document: Document, tag: bytes, identity: bytes | None, at_us: tuple[int, int]
    ) -> Heard:
        """Whether this code, or this frame, was here before. at_us: of the event, of arrival."""
        as_frame = self._recent.frame(tag, at_us[1])
        if identity is not None and identity == self._before[0]:
            return self._before[1]  # the frame before, once more: what it was, it is
        heard = self._code(document, at_us[0])
        if identity is not None:
            if heard is Heard.REPEAT and self.source.keeps_repeats is None:
                # The gate says that it is another check: a group's ticket counts each person.
                heard = Heard.MAYBE
            self._before = (identity, heard)  # the journal knows ids for certain
        elif heard is Heard.NEW:
            heard = as_frame
        if heard is not Heard.NEW:
            self._count(self.source.id, _COUNTERS[heard], 1)
        return heard

    def _code(self, document: Document, event_us: int) -> Heard:
        code = [dig(document, steps) for steps in self.source.repeat_steps]
        if all(part is None for part in code):
            return Heard.NEW
        return self._recent.code(self._digest(msgspec.msgpack.encode(code)), event_us)

    def _identity(self, document: Document) -> bytes | None:
        source = self.source
        if not source.dedup_steps:
            return None
        parts = [dig(document, steps) for steps in source.dedup_steps]
        if any(part is None for part in parts):
            self._count(source.id, "no_id", 1)
            return None
        return msgspec.msgpack.encode([source.id, *parts])

    def _watermarks(self) -> list[Watermark]:
        memory = self._recent.memory()
        if memory is None:
            return []
        return [Watermark(source=self._mark, value=memory.dump(), is_memory=True)]

    def _stored(self, data: bytes | None) -> Memory:
        try:
            return Memory() if data is None else Memory.load(data)
        except DecodeError:
            self._count(self.source.id, "watermark_unreadable", 1)
            return Memory()

    def _rejected(self, fault: Fault, frame: Frame) -> Rejected:
        detail = f"{fault.field} at {fault.path}"
        return reject(self.source.id, fault.reason, frame.raw, detail, personal_key=self._personal)

    @property
    def _personal(self) -> bytes | None:
        return self._key if self.source.is_personal else None

    def _digest(self, data: bytes) -> bytes:
        return blake2b(data, digest_size=_DIGEST_BYTES, key=self._key).digest()


_MARKS: Final = {
    Heard.NEW: NO_MARKS,
    Heard.MAYBE: Quality.MAYBE_REPEAT,
    Heard.REPEAT: Quality.REPEAT,
}
_COUNTERS: Final = {Heard.MAYBE: "maybe_repeat", Heard.REPEAT: "repeat"}
