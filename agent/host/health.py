"""What the agent knows about itself: counters, the state of each device, and lack of progress.

A device that is lost logs once when it goes and once when it returns; between, it only counts.
Everything here is read by `status`; nothing here decides anything.
"""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from devices.driver import DeviceState
from protocol.program.messages import plain

_LOG: Final = logging.getLogger(__name__)

#: More names than any site has; a broker with wildcard topics must not fill the memory.
DEVICES_MAX: Final = 4_096


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that needs a person; the text is `alarm.<key>` of the catalogues."""

    since_us: int  # wall time
    fields: Mapping[str, str]


@dataclass(slots=True)
class DeviceHealth:
    """One device as its driver last reported it."""

    state: DeviceState | None = None  # None until the driver says anything
    detail: str = ""  # why, one printable line
    since_us: int = 0  # wall time of the last change
    last_seen_us: int | None = None  # wall time of its last message
    is_quiet: bool = False  # went with its driver, which was logged: it returns without a line
    counters: Counter[str] = field(default_factory=Counter)


class Health:
    """Implements `devices.driver.HealthSink` and gathers what `status` shows."""

    def __init__(self, now_us: Callable[[], int]) -> None:
        self._now_us = now_us
        self.devices: dict[str, DeviceHealth] = {}
        self.counters: Counter[str] = Counter()
        self.alarms: dict[str, Alarm] = {}

    def seen(self, device: str, at_us: int) -> None:
        """`device` was heard at `at_us`; ends every state but ONLINE."""
        entry = self._device(device)
        entry.last_seen_us = at_us
        entry.counters["messages"] += 1
        if entry.state is not DeviceState.ONLINE:
            self.changed(device, DeviceState.ONLINE)

    def changed(self, device: str, state: DeviceState, detail: str = "") -> None:
        """A device's state is now `state`; logs only if it was another."""
        entry = self._device(device)
        entry.detail = detail
        if entry.state is state:
            return
        before, entry.state, entry.since_us = entry.state, state, self._now_us()
        good = state is DeviceState.ONLINE
        if entry.is_quiet:
            entry.is_quiet = False
            if good:
                return
        _LOG.log(
            logging.INFO if good else logging.WARNING,
            "device changed",
            extra={
                "device": device,
                "state": state.value,
                "was": before.value if before else "unknown",
                "detail": detail,
            },
        )

    def lost(self, devices: Sequence[str], detail: str) -> None:
        """A driver lost its source, and all its devices with it; the driver's own line says so."""
        for device in devices:
            entry = self._device(device)
            if entry.state in {None, DeviceState.ONLINE, DeviceState.SILENT}:
                entry.state, entry.since_us = DeviceState.ABSENT, self._now_us()
                entry.detail, entry.is_quiet = detail, True

    def count(self, device: str, counter: str, by: int = 1) -> None:
        """Add to one of a device's counters."""
        self._device(device).counters[counter] += by

    def raise_alarm(self, key: str, **fields: object) -> None:
        """Something needs a person; logged once until it is cleared."""
        if key not in self.alarms:
            self.alarms[key] = Alarm(self._now_us(), {n: plain(v) for n, v in fields.items()})
            _LOG.error("alarm", extra={"alarm": key, **fields})

    def clear_alarm(self, key: str) -> None:
        """The reason for an alarm is gone."""
        if self.alarms.pop(key, None) is not None:
            _LOG.warning("alarm ended", extra={"alarm": key})

    def _device(self, name: str) -> DeviceHealth:
        entry = self.devices.get(name)
        if entry is None:
            if len(self.devices) >= DEVICES_MAX:
                name = "…"
                entry = self.devices.get(name)
            if entry is None:
                entry = self.devices[name] = DeviceHealth(since_us=self._now_us())
        return entry


@dataclass(slots=True)
class Progress:
    """Marks of real progress, in monotonic ns; who makes progress writes, the watchdog reads."""

    boot_ns: Callable[[], int]
    uplink_turn_ns: int = 0  # an exchange ended, well or badly, or there was nothing to send
    receipt_ns: int = 0  # a receipt was committed, or nothing waited for one
    uplink_waits: bool = False  # the uplink rests: nothing to send, or in its back-off

    def turn(self, *, waits: bool, rest_s: float = 0.0) -> None:
        """The uplink went round once; it `waits` until woken, at most for `rest_s` if that is set.

        A rest that the hub asked for is no lack of progress, so it counts from its end.
        """
        self.uplink_turn_ns = self.boot_ns() + int(rest_s * 1e9)
        self.uplink_waits = waits

    def receipt(self) -> None:
        """A receipt was committed, or nothing is left that waits for one."""
        self.receipt_ns = self.boot_ns()

    def since_turn_s(self) -> float:
        """Seconds since the uplink's last sign of life."""
        return (self.boot_ns() - self.uplink_turn_ns) / 1e9

    def since_receipt_s(self) -> float:
        """Seconds since the last receipt while something waited."""
        return (self.boot_ns() - self.receipt_ns) / 1e9
