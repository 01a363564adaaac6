"""ChirpStack v4 JSON events -> uplinks and joins; pure.

The events are protobuf in JSON: a field with its default is left out, so an absent `fCnt` is frame
0 and an absent `confirmed` is false (R45); 64-bit numbers may be texts. Only the fields named here
are read: names of tenants, applications and devices stay outside.
"""

import base64
import binascii
import re
from typing import Annotated, Final

import msgspec

from protocol.errors import Code, DecodeError
from protocol.times import parse_rfc3339

#: Largest event: an uplink heard by forty gateways is 20 KB.
EVENT_BYTES_MAX: Final = 262_144
_EUI: Final = re.compile(r"[0-9a-fA-F]{16}")
_ADDRESS: Final = re.compile(r"[0-9a-fA-F]{8}")

Count = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF_FFFF)]


class _DeviceInfo(msgspec.Struct, frozen=True):
    devEui: str = ""  # noqa: N815 — names of the wire


class _Reception(msgspec.Struct, frozen=True):
    gatewayId: str = ""  # noqa: N815
    rssi: float = 0
    snr: float = 0


class _Event(msgspec.Struct, frozen=True):
    """What the events `up` and `join` share; everything has protobuf's default."""

    deviceInfo: _DeviceInfo  # noqa: N815
    time: str | None = None
    devAddr: str = ""  # noqa: N815
    dr: Annotated[int, msgspec.Meta(ge=0, le=15)] = 0
    fCnt: Count = 0  # noqa: N815
    fPort: Annotated[int, msgspec.Meta(ge=0, le=255)] = 0  # noqa: N815
    confirmed: bool = False
    data: str = ""
    rxInfo: list[_Reception] = []  # noqa: N815


class Reception(msgspec.Struct, frozen=True, kw_only=True):
    """The best of the gateways that heard an uplink."""

    gateway: str
    rssi: int  # dBm
    snr: float  # dB


class Uplink(msgspec.Struct, frozen=True, kw_only=True):
    """One frame of one sensor, as the network server handed it on."""

    dev_eui: str  # 16 hex digits, lower case
    dev_addr: str  # 8 hex digits; "" where the server does not say
    f_cnt: int  # frame counter: 32 bit, or 16 bit and wrapping, as the server has it
    port: int
    data: bytes
    time_us: int | None  # network server's time, µs UTC
    data_rate: int = 0
    confirmed: bool = False
    reception: Reception | None = None


class Join(msgspec.Struct, frozen=True, kw_only=True):
    """A sensor began a new session: frame counters start again."""

    dev_eui: str
    dev_addr: str
    time_us: int | None


def kind_of(topic: str) -> str:
    """`…/event/up` -> "up": the event of a topic; "" if it does not end like one."""
    levels = topic.rsplit("/", 2)
    return levels[2] if len(levels) == 3 and levels[1] == "event" else ""


def open_event(kind: str, payload: bytes) -> Uplink | Join:
    """Read the event `up` or `join`. Raises DecodeError for anything that is not one."""
    if len(payload) > EVENT_BYTES_MAX:
        raise DecodeError(Code.TOO_LARGE, field="event", value=len(payload))
    try:
        event = msgspec.json.decode(payload, type=_Event, strict=False)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise DecodeError(Code.MALFORMED, field="event", expected=str(error)[:120]) from error
    dev_eui = event.deviceInfo.devEui
    if not _EUI.fullmatch(dev_eui):
        raise DecodeError(Code.MALFORMED, field="devEui", value=dev_eui, expected="16 hex digits")
    if event.devAddr and not _ADDRESS.fullmatch(event.devAddr):
        raise DecodeError(Code.MALFORMED, field="devAddr", value=event.devAddr, expected="8 digits")
    time_us = None if event.time is None else parse_rfc3339(event.time)
    if time_us is not None and not 0 < time_us < 1 << 62:
        raise DecodeError(Code.OUT_OF_BOUNDS, field="time", value=event.time)
    if kind == "join":
        return Join(dev_eui=dev_eui.lower(), dev_addr=event.devAddr.lower(), time_us=time_us)
    return Uplink(
        dev_eui=dev_eui.lower(),
        dev_addr=event.devAddr.lower(),
        f_cnt=event.fCnt,
        port=event.fPort,
        data=_bytes(event.data),
        time_us=time_us,
        data_rate=event.dr,
        confirmed=event.confirmed,
        reception=_best(event.rxInfo),
    )


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DecodeError(Code.MALFORMED, field="data", expected="base64") from error


def _best(heard: list[_Reception]) -> Reception | None:
    plausible = [one for one in heard if -200 <= one.rssi <= 50 and -50 <= one.snr <= 50]
    if not plausible:
        return None
    best = max(plausible, key=lambda one: (one.rssi, one.snr))
    gateway = best.gatewayId if best.gatewayId.isalnum() and len(best.gatewayId) <= 32 else ""
    return Reception(gateway=gateway, rssi=round(best.rssi), snr=float(best.snr))
