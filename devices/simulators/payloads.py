"""Uplink payloads of the two bay sensors that the simulated car park has, byte for byte.

Written from the makers' payload tables (Bosch parking lot sensor TPS110; Dingtek DO201), not from
our decoders: an error there must not be repeated here.
"""

import struct
from dataclasses import dataclass

#: Bosch: the kind of message is the LoRaWAN port.
BOSCH_STATUS_PORT = 1
BOSCH_HEARTBEAT_PORT = 2
BOSCH_STARTUP_PORT = 3
#: Dingtek: one port; byte 3 is the kind.
DINGTEK_PORT = 3


def bosch_status(*, occupied: bool) -> bytes:
    """The state changed: one byte."""
    return bytes([occupied])


def bosch_heartbeat(*, occupied: bool, temperature_c: int) -> bytes:
    """Nothing changed for a day: the state and the sensor's temperature (int8, °C)."""
    return struct.pack(">Bb", occupied, temperature_c)


def bosch_startup(*, occupied: bool) -> bytes:
    """After power-up: 12 bytes of debug codes, firmware 0.29.2, reset cause power-on, the state."""
    return bytes(12) + bytes([0, 29, 2, 2, occupied])


@dataclass(frozen=True, slots=True)
class DingtekReport:
    """What a DO201 measures. Units as on the wire."""

    occupied: bool
    level_mm: int  # u16: distance to what is above
    centivolt: int  # u16: battery, 0.01 V
    magnet: tuple[int, int, int]  # i16 each
    temperature_c: int  # i8
    humidity_pct: int  # u8
    frame: int  # u16, wraps


def dingtek_report(report: DingtekReport) -> bytes:
    """A telemetry upload, 23 bytes."""
    return (
        b"\x80\x00\x31\x02\x17"
        + struct.pack(
            ">HBBHhhhbBH",
            report.level_mm,
            report.occupied << 4,
            0,
            report.centivolt,
            *report.magnet,
            report.temperature_c,
            report.humidity_pct,
            report.frame & 0xFFFF,
        )
        + b"\x00\x81"
    )


def dingtek_parameters() -> bytes:
    """A parameter upload, 16 bytes on the same port: says nothing about the bay."""
    return bytes.fromhex("80003103100101181e3c003c14000081")
