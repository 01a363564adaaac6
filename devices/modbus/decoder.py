"""What one unit answered -> one reading; pure: no IO, no clock, state is explicit.

A poll that shows nothing new makes no record: a record is made when a counter moved, a state
changed or the heartbeat is due. The watermark of a counter is committed with the increment, so the
sum of the increments is exact whatever dies in between (promise class D).
"""

from collections.abc import Callable

from devices.counting import CounterState, state_window, step
from devices.crosscheck import cross_check
from devices.driver import RAW_BYTES_MAX, Promise, Reading, Rejected, Rows, Watermark
from devices.mapping import Fault
from devices.modbus.bays import STATES, UNSEEN
from devices.modbus.points import Image, Number
from devices.modbus.source import UnitSource
from protocol.errors import DecodeError
from protocol.records import Record, Value
from protocol.times import Quality

#: Letters of the bays that are states of their own; others are "not known yet".
_SEEN = frozenset(STATES)


class UnitDecoder:
    """Decodes the answers of one unit; holds the state of its counters and bays."""

    def __init__(
        self,
        source: UnitSource,
        *,
        watermark: Callable[[str], bytes | None],
        count: Callable[[str, str], None],
        now_us: int,
    ) -> None:
        """now_us: bays that were known when the agent stopped are believed so long from now."""
        self.source = source
        self._count = count  # (device, counter): what `status` shows
        self._counters: dict[str, CounterState | None] = {}
        for one in source.counters:
            self._counters[one.name] = self._load(watermark(self._mark(one.name)))
        known = [one.at_us for one in self._counters.values() if one is not None]
        self._since_us = min(known) if known else None  # the last record's time
        self._is_unnamed = False  # its serial number was known, and is not read now
        self._recorded_us: int | None = None
        self._shown: dict[str, Value] = {}  # states of the last record
        self._told: frozenset[tuple[str, str]] = frozenset()  # faults that were quarantined
        self._bays = self._load_bays(watermark(self._mark("bays")))
        self._bays_us = now_us  # when the bays were last read
        self._heartbeat_us: int | None = None  # of the bays

    def decode(self, image: Image, now_us: int) -> Reading:
        """The reading of one poll, perhaps empty. Never raises.

        image: every word and bit that was answered; a place that is missing was not.
        now_us: the gateway's clock; units tell no time.
        """
        if self.source.bays is not None:
            return self._decode_bays(image, now_us)
        source = self.source
        document, faults = self._document(image)
        values, more = source.mapping.values(document)
        faults += [self._placed(one) for one in more]
        quality, crossed = cross_check(source.pack, values)
        faults += crossed
        before = dict(self._counters)
        serial = self._serial(image)
        if self._lost_its_name(serial):
            marks, moved = self._leave_totals(values)
        else:
            marks, moved = self._count_totals(values, serial, now_us, faults)
        quality |= marks | Quality.CLOCK_GATEWAY
        quality |= Quality.OUT_OF_RANGE if faults else Quality(0)
        watermarks = [
            Watermark(source=self._mark(name), value=state.dump())
            for name, state in self._counters.items()
            if state is not None and (state != before[name] or moved)
        ]
        rejected = self._rejections(faults, image)
        if not (moved or bool(rejected) or self._is_news(values, now_us)):
            return Reading(promise=source.promise)
        return Reading(
            rows=self._rows(values, quality, now_us),
            watermarks=watermarks,
            rejected=rejected,
            urgent=source.urgent,
            promise=source.promise,
        )

    def stale(self, now_us: int) -> Reading | None:
        """Bays of a unit that is silent for too long become `unknown`; None if there are none."""
        bays = self.source.bays
        if bays is None or now_us - self._bays_us < self.source.stale_us:
            return None
        letters = "".join("u" if one in _SEEN else one for one in self._bays)
        if letters == self._bays:
            return None
        return self._bay_reading(letters, now_us, Quality.ESTIMATED, everything=False)

    # --- numbers ---------------------------------------------------------------------------------

    def _document(self, image: Image) -> tuple[dict[str, Value], list[Fault]]:
        """The numbers by field; what holds no number is a fault, what was not read is missing."""
        document: dict[str, Value] = {}
        faults: list[Fault] = []
        for one in self.source.numbers:
            registers = one.registers(image)
            if registers is None:
                continue
            try:
                document[one.name] = one.read(registers)
            except DecodeError:
                faults.append(Fault("not-a-number", one.name, str(one.span.start)))
        return document, faults

    def _serial(self, image: Image) -> str:
        one = self.source.serial
        registers = None if one is None else one.registers(image)
        if one is None or registers is None:
            return ""
        try:
            return str(one.read(registers))
        except DecodeError:
            return ""

    def _lost_its_name(self, serial: str) -> bool:
        """Whether nobody can say whose totals these are: the serial number was known before."""
        if self.source.serial is None or serial:
            return False
        return any(one is not None and one.unit for one in self._counters.values())

    def _leave_totals(self, values: dict[str, Value]) -> tuple[Quality, bool]:
        """Count nothing until the serial number is read again; the same unit is made up for then.

        True when it begins: a record says so at once, and then each heartbeat.
        """
        for one in self.source.counters:
            raw = values.get(one.name)
            if isinstance(raw, int) and one.raw_field is not None:
                values[one.raw_field] = raw
            values[one.name] = None
        self._count(self.source.id, "serial_unread")
        began, self._is_unnamed = not self._is_unnamed, True
        return Quality.GAP_BEFORE, began

    def _count_totals(
        self, values: dict[str, Value], serial: str, now_us: int, faults: list[Fault]
    ) -> tuple[Quality, bool]:
        """Turn totals into increments in place; True if one moved, or its state must be kept."""
        quality, moved = Quality(0), False
        self._is_unnamed = False
        for one in self.source.counters:
            raw = values.get(one.name)
            if not isinstance(raw, int):
                continue
            assert one.counter is not None
            state = self._counters[one.name]
            done = step(
                one.counter,
                state,
                raw,
                now_us,
                zone=self.source.zone,
                gateway_us=now_us,
                has_time=False,
                unit=serial,
            )
            if state is not None and serial and state.unit not in {"", serial}:
                self._count(self.source.id, "unit_changed")
            if state is not None and done.quality & Quality.OUT_OF_RANGE:
                place = self._place_of(one.name)
                faults.append(Fault("counter-jump", one.name, f"{place}: {state.raw} to {raw}"))
            moved |= bool(done.increment) or bool(done.quality)
            moved |= state is None or done.state.generation != state.generation
            quality |= done.quality
            self._counters[one.name] = done.state
            values[one.name] = done.increment
            if one.raw_field is not None:
                values[one.raw_field] = raw
        return quality, moved

    def _is_news(self, values: dict[str, Value], now_us: int) -> bool:
        source = self.source
        if self._recorded_us is None or not (source.states or source.counters):
            return True
        if not 0 <= now_us - self._recorded_us < source.heartbeat_us:
            return True
        return any(values.get(name) != self._shown.get(name) for name in source.states)

    def _rows(self, values: dict[str, Value], quality: Quality, now_us: int) -> list[Rows]:
        source = self.source
        self._recorded_us = now_us
        self._shown = {name: values.get(name) for name in source.states}
        if self._is_unnamed:
            since_us = None  # what passes now is of the window that the next increment has
        else:
            since_us, self._since_us = self._since_us, now_us
        if source.counters and source.has_window and since_us is not None:
            state_window(values, since_us, now_us)
        if all(value is None for value in values.values()):
            return []
        record = Record(event_time_us=now_us, device=source.id, values=values, quality=int(quality))
        return [Rows(resource=source.resource, records=[record])]

    def _rejections(self, faults: list[Fault], image: Image) -> list[Rejected]:
        """Each fault is quarantined when it begins; while it lasts it is counted."""
        told = frozenset((one.reason, one.field) for one in faults)
        new = [one for one in faults if (one.reason, one.field) not in self._told]
        self._told = told
        if faults:
            self._count(self.source.id, "faults")
        return [
            Rejected(
                device=self.source.id,
                reason=one.reason,
                raw=self._raw(one.field, image),
                detail=f"{one.field} at {one.path}",
            )
            for one in new
        ]

    def _raw(self, field: str, image: Image) -> bytes:
        number = self._number(field)
        registers = None if number is None else number.registers(image)
        return b"".join(one.to_bytes(2, "big") for one in registers or ())[:RAW_BYTES_MAX]

    def _number(self, field: str) -> Number | None:
        return next((one for one in self.source.numbers if one.name == field), None)

    def _place_of(self, field: str) -> str:
        number = self._number(field)
        return str(number.span.start) if number else field

    def _placed(self, fault: Fault) -> Fault:
        return Fault(fault.reason, fault.field, self._place_of(fault.field))

    def _mark(self, name: str) -> str:
        return f"modbus/{self.source.id}/{name}"

    def _load(self, stored: bytes | None) -> CounterState | None:
        try:
            return None if stored is None else CounterState.load(stored)
        except DecodeError:
            self._count(self.source.id, "watermark_unreadable")
            return None

    # --- bays ------------------------------------------------------------------------------------

    def _decode_bays(self, image: Image, now_us: int) -> Reading:
        bays = self.source.bays
        assert bays is not None
        letters, wrong = bays.states(image)
        # A bay that was not read keeps its state: its register was refused, or its code is unknown.
        letters = "".join(
            old if new == UNSEEN else new for old, new in zip(self._bays, letters, strict=True)
        )
        self._bays_us = now_us
        beat = self._heartbeat_us
        everything = beat is None or not 0 <= now_us - beat < self.source.heartbeat_us
        if everything:
            self._heartbeat_us = now_us
        fault = [Fault("unknown-code", "state", str(bays.start))] if wrong else []
        rejected = self._rejections(fault, image)
        reading = self._bay_reading(letters, now_us, Quality(0), everything=everything)
        return Reading(
            rows=reading.rows,
            watermarks=reading.watermarks,
            rejected=rejected,
            urgent=self.source.urgent and bool(reading.rows),
            promise=Promise.D,
        )

    def _bay_reading(
        self, letters: str, now_us: int, quality: Quality, *, everything: bool
    ) -> Reading:
        """Records of the bays that changed, or of all, and the states as watermark."""
        bays = self.source.bays
        assert bays is not None
        records = [
            Record(
                event_time_us=now_us,
                device=self.source.id,
                values=bays.values(at, new),
                quality=int(quality | Quality.CLOCK_GATEWAY),
            )
            for at, (old, new) in enumerate(zip(self._bays, letters, strict=True))
            if new in _SEEN and (new != old or everything)
        ]
        self._bays = letters
        if not records:
            return Reading(promise=Promise.D)
        mark = Watermark(source=self._mark("bays"), value=letters.encode())
        rows = [Rows(resource=self.source.resource, records=records)]
        return Reading(rows=rows, watermarks=[mark], promise=Promise.D)

    def _load_bays(self, stored: bytes | None) -> str:
        """The states of the last commit; a list of bays that was changed starts anew."""
        bays = self.source.bays
        unseen = UNSEEN * (0 if bays is None else len(bays.labels))
        if bays is None or stored is None:
            return unseen
        letters = stored.decode("ascii", "replace")
        return (
            letters if len(letters) == len(unseen) and set(letters) <= {*_SEEN, UNSEEN} else unseen
        )
