"""What `[[bus]]` and the `[[device]]` tables of Modbus units may say."""

from typing import Annotated, Literal

import msgspec

from devices.mapping import CounterTable
from devices.modbus.registers import NumberType, Words
from protocol.program.units import Duration
from protocol.program.walk import Name, Text

Share = Annotated[float, msgspec.Meta(gt=0, le=0.5, description="share")]


class BusTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[bus]]`: one RS-485 line with all its units, configured once."""

    id: Name
    port: Text  # a name that outlives a re-plug: /dev/serial/by-id/…
    baud: Literal[1200, 2400, 4800, 9600, 19200, 38400, 57600, 115200] = 9600
    format: Annotated[str, msgspec.Meta(pattern=r"^8[NEO][12]$", description="line-format")] = "8N1"
    turnaround: Duration = Duration.parse("20ms")  # silence of the line before each request
    echo: bool = False  # the adapter hears what it sends itself
    timeout: Duration = Duration.parse(
        "300ms"
    )  # longest wait for an answer to begin; shortened as units are seen
    timeout_min: Duration = Duration.parse("50ms")
    probe_min: Duration = Duration.parse(
        "2s"
    )  # between two tries of a unit that is dead, doubled …
    probe_max: Duration = Duration.parse("60s")  # … up to this
    dead_share: Share = 0.05  # of the line's time, for all dead units together


class Connection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`connection`: a unit on a `[[bus]]`, or at a host."""

    unit: Annotated[int, msgspec.Meta(ge=0, le=255)] = 1  # 1..247 on a bus
    bus: Name | None = None
    host: Text | None = None
    tcp_port: Annotated[int, msgspec.Meta(ge=1, le=65_535)] = 502
    framer: Literal["tcp", "rtu"] = "tcp"  # rtu: a serial server that passes RTU frames through
    connect_timeout: Duration = Duration.parse("5s")
    timeout: Duration = Duration.parse("1s")  # at a host; on a bus that of the bus
    timeout_min: Duration = Duration.parse("100ms")


class PollTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`poll`: how a unit is read; what a profile says stands here too."""

    every: Duration = Duration.parse("10s")
    # Registers nobody wants that one request may read on the way; 0 for devices that refuse holes.
    gap: Annotated[int, msgspec.Meta(ge=0, le=124)] = 8
    words_max: Annotated[int, msgspec.Meta(ge=1, le=125)] = 125  # of one request
    bits_max: Annotated[int, msgspec.Meta(ge=1, le=2000)] = 2000


class RegisterTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a number stands: a register, or a point that the profile names."""

    register: Text | None = None  # "holding:0", "40001", "input:0x20", "coil:3"
    point: Text | None = None  # of the profile
    type: NumberType | None = None  # u16, in coils and discrete inputs bool
    words: Words | None = None  # which register of several stands first; high_first
    bytes: Words | None = None  # which byte of a register; high_first


class FieldTable(RegisterTable, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One field of `[device.map]`."""

    bits: Annotated[list[int], msgspec.Meta(min_length=2, max_length=2)] | None = None  # low, count
    const: str | int | float | bool | None = None
    scale: str | None = None  # decimal text, "0.1"; multiplied
    offset: float | None = None  # added after scaling
    codes: dict[str, str | int | bool] | None = None  # number, or "true" and "false" -> code
    missing: list[int | float] = []  # sentinels of a failed sensor (R17)
    range: Annotated[list[float], msgspec.Meta(min_length=2, max_length=2)] | None = None
    counter: CounterTable | None = None


class BaysTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[device.bays]`: a bitmap of parking bays, one record a bay."""

    register: Text  # where the first bay stands
    labels: Annotated[list[Text], msgspec.Meta(min_length=1, max_length=1000)]
    width: Literal[1, 2, 4, 8, 16] = 1  # bits of a bay in a register; coils and inputs have one
    first: Literal["low", "high"] = "low"  # which end of a register the first bay stands at
    codes: dict[str, Literal["free", "occupied", "unknown"]] | None = None  # 0 free, 1 occupied
    lot_id: Text | None = None
    floor: Text | None = None


class PolicyTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`policy`: when a record is made of what was read."""

    heartbeat: Duration | None = None  # a record at least so often: 60s with counters, else 1h
    stale_after: Duration = Duration.parse(
        "15m"
    )  # bays of a unit that is silent for so long become unknown
    urgent: bool = False  # seal each record at once


class ModbusDevice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[device]]` with a profile `modbus/…`: one unit."""

    id: Name
    profile: Text
    resource: Name
    pack: Text | None = None  # else the pack of [[resource]]
    connection: Connection
    poll: PollTable | None = None  # else the profile's
    serial: RegisterTable | None = None  # the unit's serial number: another one is another unit
    zone: Text | None = None  # of daily restarts; else the site's
    map: dict[str, FieldTable] = {}
    bays: BaysTable | None = None
    policy: PolicyTable = PolicyTable()
