"""What one uplink means to the resources that its sensor feeds; pure.

The bay, `device.health` (state and battery percentage: on heartbeats, start-ups, parameters and
wherever a percentage is given) and `device.link` (reception, battery voltage, raw measurements:
with every uplink). Totals of people counters are counted by the decoder, which holds their state.
"""

from dataclasses import dataclass, field

from devices.driver import Rows
from devices.lorawan.codec import Decoded
from devices.lorawan.envelope import Uplink
from devices.lorawan.session import Placed
from devices.lorawan.source import LABEL_FIELDS, LorawanSource
from devices.times import Judged
from protocol.records import Record, Value
from protocol.times import Quality

_STATES = frozenset({"free", "occupied", "unknown"})
_ABOUT_BAY = frozenset({"state", "heartbeat", "startup"})
_SIGNS_OF_LIFE = frozenset({"heartbeat", "startup", "parameters"})


@dataclass(slots=True)
class UplinkRows:
    """One uplink, understood, and the rows that come of it."""

    source: LorawanSource
    uplink: Uplink
    placed: Placed
    decoded: Decoded
    time: Judged
    gateway_us: int
    quality: Quality
    rows: list[Rows] = field(default_factory=list)

    def bay(self) -> str:
        """Record the bay's state where the message is about it; gives the state last recorded."""
        before = self.placed.session.state
        if self.decoded.kind not in _ABOUT_BAY:
            return before
        state = self._state()
        if state is None and not self._impossible("bay"):
            return before
        marks = self.quality
        if self.decoded.kind != "state" and not self.source.heartbeat_recorded:
            if state is None or state == before or not self.placed.is_new:
                return before
            if before:
                # It changed, and the message that said so never came.
                marks |= Quality.GAP_BEFORE
        if state is None:
            marks |= Quality.OUT_OF_RANGE
        self.add(self.source.resource, self.known() | {"state": state}, marks)
        return state if state is not None and self.placed.is_new else before

    def health(self) -> None:
        """A sign of life of the sensor itself, or its battery."""
        battery = self.decoded.of("health")
        if not self.source.health or not (battery or self.decoded.kind in _SIGNS_OF_LIFE):
            return
        marks = self.time.quality
        if self._impossible("health"):
            marks |= Quality.OUT_OF_RANGE
        seen: dict[str, Value] = {"state": "online", "last_seen": self.time.event_us}
        self.add(self.source.health, seen | battery, marks)

    def link(self) -> None:
        """How the uplink was received, and what only a technician wants to know."""
        if not self.source.link:
            return
        values: dict[str, Value] = {
            "data_rate": self.uplink.data_rate,
            "frame_counter": self.uplink.f_cnt,
            **self.decoded.of("link"),
        }
        if self.placed.lost:
            values["frames_lost"] = self.placed.lost
        heard = self.uplink.reception
        if heard is not None:
            values |= {"rssi": heard.rssi, "snr": heard.snr, "gateway": heard.gateway or None}
        marks = self.quality
        if self._impossible("link"):
            marks |= Quality.OUT_OF_RANGE
        self.add(self.source.link, values, marks)

    def line(self, line: str) -> dict[str, Value]:
        """What is known of one line of a people counter."""
        values = self.known()
        label = LABEL_FIELDS[self.source.pack]
        if line:
            values[label] = f"{values.get(label)!s}-{line}"
        return values

    def known(self) -> dict[str, Value]:
        """What the configuration knows of the sensor: its label, the constants."""
        return {**self.source.constants, **self.source.sensors[self.uplink.dev_eui]}

    def add(
        self, resource: str, values: dict[str, Value], quality: Quality, at: Judged | None = None
    ) -> None:
        """Add one record of the sensor."""
        time = at or self.time
        record = Record(
            event_time_us=time.event_us,
            device=self.uplink.dev_eui,
            values=values,
            quality=int(quality),
            device_time_us=time.device_us,
        )
        self.rows.append(Rows(resource=resource, records=[record]))

    def _state(self) -> str | None:
        state = self.decoded.of("bay").get("state")
        source = self.source
        if state is None and source.codec.distance is not None:
            distance = self.decoded.of("link").get(source.codec.distance)
            if isinstance(distance, int) and source.occupied_below is not None:
                return "occupied" if 0 < distance < source.occupied_below else "free"
        return state if isinstance(state, str) and state in _STATES else None

    def _impossible(self, target: str) -> bool:
        return any(fault.to == target for fault in self.decoded.faults)
