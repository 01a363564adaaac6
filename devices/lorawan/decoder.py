"""One network server's event -> one reading; pure: no IO, no clock, state is explicit.

Holds the sensors' sessions and the counters' totals; `rows` says what an uplink means.
"""

from collections.abc import Callable, Iterable

from devices.counting import CounterState, Step, step
from devices.driver import RAW_BYTES_MAX, Promise, Reading, Rejected, Rows, Watermark, printable
from devices.lorawan.codec import CodecFault, Named, decode
from devices.lorawan.envelope import Join, Uplink, kind_of, open_event
from devices.lorawan.rows import UplinkRows
from devices.lorawan.session import Session, joined, place
from devices.lorawan.source import LorawanSource
from devices.mqtt.decoder import Message
from devices.times import Judged, Trust, judge
from protocol.errors import DecodeError
from protocol.records import Record, Value
from protocol.times import Quality

_READ = ("up", "join")
#: Events of the network server that are not ours to keep.
_IGNORED = frozenset({"status", "ack", "txack", "log", "location", "integration"})
#: The network server is a clock of the site: believed like a good device.
_TRUST = Trust()


class LorawanDecoder:
    """Decodes the events of all LoRaWAN entries of one connection; holds the sensors' sessions."""

    def __init__(
        self,
        sources: Iterable[LorawanSource],
        *,
        watermark: Callable[[str], bytes | None],
        count: Callable[..., None],
    ) -> None:
        self._watermark = watermark
        self._count = count
        self._by_eui = {eui: one for one in sources for eui in one.sensors}
        self._sessions: dict[str, Session | None] = {}
        self._counters: dict[str, CounterState | None] = {}

    def decode(self, message: Message, gateway_us: int) -> Reading:
        """The reading of one event; its `ack` is the shell's to add. Never raises."""
        kind = kind_of(message.topic)
        if message.retained or kind in _IGNORED:
            return Reading(promise=Promise.A)
        if kind not in _READ:
            return self._refused("", "unknown-event", message, kind)
        try:
            event = open_event(kind, message.payload)
        except DecodeError as error:
            return self._refused("", "not-an-uplink", message, f"{error.code.key} {error.field}")
        source = self._by_eui.get(event.dev_eui)
        if source is None:
            return self._refused(event.dev_eui, "unknown-device", message, event.dev_eui)
        if isinstance(event, Join):
            return self._join(event)
        return self._uplink(source, event, message, gateway_us)

    def stale(self, now_us: int) -> list[Reading]:
        """Bays whose sensors are silent for too long become `unknown`; a reading a resource.

        Whatever file a resource is in, its records and where its sensors stand are one commit.
        """
        found: dict[str, tuple[list[Record], list[Watermark]]] = {}
        for eui, source in self._by_eui.items():
            session = self._session(eui)
            if (
                source.pack != "parking.bay"
                or session is None
                or session.state not in {"free", "occupied"}
                or not 0 < session.last_us < now_us - source.stale_us
            ):
                continue
            values: dict[str, Value] = {**source.constants, **source.sensors[eui]}
            record = Record(
                event_time_us=now_us,
                device=eui,
                values=values | {"state": "unknown"},
                quality=int(Quality.ESTIMATED | Quality.CLOCK_GATEWAY),
            )
            records, watermarks = found.setdefault(source.resource, ([], []))
            records.append(record)
            watermarks.append(self._remember(eui, session, state="unknown"))
        return [
            Reading(
                rows=[Rows(resource=resource, records=records)],
                watermarks=watermarks,
                promise=Promise.A,
            )
            for resource, (records, watermarks) in found.items()
        ]

    def _join(self, event: Join) -> Reading:
        session = joined(self._session(event.dev_eui), event)
        if session is None:
            return Reading(promise=Promise.A)
        self._count(event.dev_eui, "joins")
        return Reading(watermarks=[self._remember(event.dev_eui, session)], promise=Promise.A)

    def _uplink(
        self, source: LorawanSource, uplink: Uplink, message: Message, gateway_us: int
    ) -> Reading:
        eui = uplink.dev_eui
        placed = place(self._session(eui), uplink)
        time = judge(uplink.time_us, gateway_us, _TRUST)
        quality = time.quality
        if placed.lost:
            quality |= Quality.GAP_BEFORE
            self._count(eui, "frames_lost", placed.lost)
        if not placed.is_new:
            self._count(eui, "repeat")
        decoded = decode(source.codec, uplink.port, uplink.data)
        found = UplinkRows(source, uplink, placed, decoded, time, gateway_us, quality)
        state = found.bay() if source.pack == "parking.bay" else placed.session.state
        watermarks = [self._remember(eui, placed.session, state=state)]
        if source.pack == "visitor.passage":
            self._lines(found, watermarks)
        found.health()
        found.link()
        return Reading(
            rows=found.rows,
            identity=placed.identity,
            watermarks=watermarks,
            rejected=[self._fault(eui, fault, message, uplink) for fault in decoded.faults],
            promise=Promise.A,
        )

    def _lines(self, found: UplinkRows, watermarks: list[Watermark]) -> None:
        """Totals of each line of a people counter -> increments (R10-R13)."""
        for line, totals in _by_line(found.decoded.values).items():
            values, marks, fresh = found.line(line), found.quality, "occupancy" in totals
            for name, raw in totals.items():
                if name == "occupancy":
                    values[name] = raw
                    continue
                counted = self._count_total(found, f"{line}/{name}", raw, watermarks)
                if counted is None:
                    continue
                fresh = True
                direction = _direction(name, invert=found.source.invert)
                values[f"{direction}_count"] = counted.increment
                values[f"{direction}_total_raw"] = raw
                marks |= counted.quality
            if fresh:
                found.add(found.source.resource, values, marks)
        for seconds, old in found.decoded.history:
            self._old_totals(found, seconds, old)

    def _count_total(
        self, found: UplinkRows, key: str, raw: Value, watermarks: list[Watermark]
    ) -> Step | None:
        """Count one total; None if it was counted before or is not there."""
        if not isinstance(raw, int):
            return None
        source = found.source
        name = f"counter/{source.id}/{found.uplink.dev_eui}/{key}"
        if name not in self._counters:
            stored = self._watermark(name)
            self._counters[name] = None if stored is None else self._counter(stored)
        done = step(
            source.counter,
            self._counters[name],
            raw,
            found.time.event_us,
            zone=source.zone,
            gateway_us=found.gateway_us,
        )
        if done.repeat:
            return None
        self._counters[name] = done.state
        watermarks.append(Watermark(source=name, value=done.state.dump()))
        return done

    def _old_totals(self, found: UplinkRows, seconds: int, old: list[Named]) -> None:
        """A measurement that the sensor kept: its totals, no increments; those are counted live."""
        at_us = seconds * 1_000_000
        if not 0 < at_us <= found.time.event_us:
            self._count(found.uplink.dev_eui, "history_time_wrong")
            return
        for line, totals in _by_line(old).items():
            values = found.line(line)
            for name, raw in totals.items():
                values[f"{_direction(name, invert=found.source.invert)}_total_raw"] = raw
            kept = Judged(at_us, None, Quality.LATE)
            found.add(found.source.resource, values, Quality.LATE, kept)

    def _session(self, eui: str) -> Session | None:
        if eui not in self._sessions:
            stored = self._watermark(f"lorawan/{eui}")
            try:
                self._sessions[eui] = None if stored is None else Session.load(stored)
            except DecodeError:
                self._count(eui, "watermark_unreadable")
                self._sessions[eui] = None
        return self._sessions[eui]

    def _counter(self, stored: bytes) -> CounterState | None:
        try:
            return CounterState.load(stored)
        except DecodeError:
            return None

    def _remember(self, eui: str, session: Session, *, state: str | None = None) -> Watermark:
        if state is not None and state != session.state:
            session = session.with_state(state)
        self._sessions[eui] = session
        return Watermark(source=f"lorawan/{eui}", value=session.dump())

    def _fault(self, eui: str, fault: CodecFault, message: Message, uplink: Uplink) -> Rejected:
        detail = f"port {uplink.port}, byte {fault.offset}: {fault.item}"
        raw = message.payload[:RAW_BYTES_MAX]
        return Rejected(device=eui, reason=fault.reason, raw=raw, detail=printable(detail))

    def _refused(self, device: str, reason: str, message: Message, detail: str) -> Reading:
        name = device or printable(message.topic, 64)
        self._count(name if device in self._by_eui else "lorawan", "rejected")
        raw = message.payload[:RAW_BYTES_MAX]
        rejected = Rejected(device=name, reason=reason, raw=raw, detail=printable(detail))
        return Reading(rejected=[rejected], promise=Promise.A)


def _by_line(values: list[Named]) -> dict[str, dict[str, Value]]:
    lines: dict[str, dict[str, Value]] = {}
    for one in values:
        if one.to == "count":
            lines.setdefault(one.line, {})[one.name] = one.value
    return lines


def _direction(name: str, *, invert: bool) -> str:
    is_in = name.startswith("in") != invert
    return "in" if is_in else "out"
