"""`[[bus]]` and `[[device]]` tables, checked and compiled: lines with the units on them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import tzinfo
from functools import partial
from typing import Any, Final

import msgspec

from devices.driver import Driver, DriverContext, Promise, weakest
from devices.loader import DriverPlan, Request, ResourceUse
from devices.mapping import Compiled, FieldMap, Mapping_, compile_map
from devices.modbus.bays import BaySource, compile_bays
from devices.modbus.config import BusTable, Connection, FieldTable, ModbusDevice, PollTable
from devices.modbus.pace import Limits
from devices.modbus.plan import Block, Span, group
from devices.modbus.points import Number, place
from devices.modbus.profile import Profile, names, profile
from devices.times import zone_of
from protocol.packs import Pack
from protocol.program.units import Duration
from protocol.program.walk import Walk

#: Unit numbers that a serial line knows; 0 is for everybody, 248 and above are reserved.
_UNITS: Final = range(1, 248)
#: Fields of these types say by changing that something happened.
_STATES: Final = frozenset({"code", "bool", "string"})


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitSource:
    """One unit, ready to be read and decoded."""

    id: str
    resource: str
    pack: str
    number: int  # its address on the line
    numbers: tuple[Number, ...]
    mapping: Mapping_
    counters: tuple[Compiled, ...]
    states: frozenset[str]  # fields whose change makes a record; none and no counter: every poll
    serial: Number | None
    bays: BaySource | None
    blocks: tuple[Block, ...]
    every_us: int
    zone: tzinfo
    heartbeat_us: int
    stale_us: int
    urgent: bool
    has_window: bool

    @property
    def promise(self) -> Promise:
        """D where the last state is a watermark; a polled measurement cannot be asked again."""
        return Promise.D if self.counters or self.bays else Promise.C


@dataclass(frozen=True, slots=True, kw_only=True)
class LineSource:
    """One connection with every unit on it: an RS-485 line, or a host."""

    name: str
    units: tuple[UnitSource, ...]
    limits: Limits
    port: str = ""  # of a serial line
    baud: int = 0
    format: str = "8N1"
    echo: bool = False
    turnaround_us: int = 0
    host: str = ""
    tcp_port: int = 502
    framer: str = "rtu"
    connect_timeout_us: int = 5_000_000

    @property
    def place(self) -> str:
        """Where it is, for people."""
        return self.port or f"{self.host}:{self.tcp_port}"


def load(devices: list[tuple[str, Mapping[str, Any]]], request: Request) -> list[DriverPlan]:
    """The drivers of every `modbus/…` device: one a line; see `devices.loader.Plugin`."""
    buses = _buses(request)
    found: dict[str, list[UnitSource]] = {}
    lines: dict[str, LineSource] = {}
    owners: dict[tuple[str, int], str] = {}
    for path, raw in devices:
        table = request.walk.struct(raw, ModbusDevice, path)
        line = None if table is None else _line(table.connection, buses, request.walk, path)
        unit = None if table is None else _unit(table, request, path)
        if table is None or line is None or unit is None:
            continue
        owner = owners.setdefault((line.name, unit.number), unit.id)
        if owner != unit.id:
            where = f"{path}.connection.unit"
            request.walk.add(where, "unit-twice", unit.number, other=owner, line=line.name)
        lines.setdefault(line.name, line)
        found.setdefault(line.name, []).append(unit)
    if request.walk.problems:
        return []
    return [_plan(replace(line, units=tuple(found[name]))) for name, line in lines.items()]


def _buses(request: Request) -> dict[str, BusTable]:
    raw = request.document.get("bus", [])
    if not isinstance(raw, list):
        request.walk.add("bus", "wrong-type", raw, expected="tables")
        return {}
    found: dict[str, BusTable] = {}
    ports: dict[str, str] = {}
    for at, table in enumerate(raw):
        one = request.walk.struct(table, BusTable, f"bus[{at}]")
        if one is None:
            # Its id still counts, or each of its devices would be reported as well.
            if isinstance(table, Mapping) and isinstance(table.get("id"), str):
                found[table["id"]] = BusTable(id=table["id"], port="-")
            continue
        if one.id in found:
            request.walk.add(f"bus[{at}].id", "id-twice", one.id)
        owner = ports.setdefault(one.port, one.id)
        if owner != one.id:
            request.walk.add(f"bus[{at}].port", "bus-port-twice", one.port, other=owner)
        found[one.id] = one
    return found


def _line(
    connection: Connection, buses: Mapping[str, BusTable], walk: Walk, path: str
) -> LineSource | None:
    """The line that a unit is on, still without its units."""
    where = f"{path}.connection"
    if (connection.bus is None) == (connection.host is None):
        walk.add(where, "bus-or-host")
        return None
    if connection.host is not None:
        return _host_line(connection)
    bus = buses.get(connection.bus or "")
    if bus is None:
        known = ", ".join(buses) or "[[bus]]"
        walk.add(f"{where}.bus", "unknown-bus", connection.bus, known=known)
        return None
    if connection.unit not in _UNITS:
        low, high = str(_UNITS.start), str(_UNITS.stop - 1)
        walk.add(f"{where}.unit", "impossible", connection.unit,
                 expected="whole-between", low=low, high=high)  # fmt: skip
        return None
    return LineSource(
        name=bus.id,
        units=(),
        limits=Limits(
            timeout_us=int(bus.timeout),
            timeout_min_us=min(int(bus.timeout_min), int(bus.timeout)),
            probe_min_us=int(bus.probe_min),
            probe_max_us=max(int(bus.probe_max), int(bus.probe_min)),
            dead_share=bus.dead_share,
        ),
        port=bus.port,
        baud=bus.baud,
        format=bus.format,
        echo=bus.echo,
        turnaround_us=int(bus.turnaround),
    )


def _host_line(connection: Connection) -> LineSource:
    assert connection.host is not None
    timeout_us = int(connection.timeout)
    return LineSource(
        name=f"{connection.host}:{connection.tcp_port}",
        units=(),
        limits=Limits(
            timeout_us=timeout_us,
            timeout_min_us=min(int(connection.timeout_min), timeout_us),
        ),
        host=connection.host,
        tcp_port=connection.tcp_port,
        framer=connection.framer,
        connect_timeout_us=int(connection.connect_timeout),
    )


def _unit(table: ModbusDevice, request: Request, path: str) -> UnitSource | None:
    """Check one unit against its pack and profile; None if there are new problems."""
    walk, before = request.walk, len(request.walk.problems)
    model = profile(table.profile.partition("/")[2])
    if model is None:
        walk.add(f"{path}.profile", "unknown-profile", table.profile,
                 known=", ".join(f"modbus/{one}" for one in names()))  # fmt: skip
    pack = request.pack_of(table.resource, table.pack, path)
    zone_name = table.zone or request.site_zone
    zone = zone_of(zone_name)
    if zone is None:
        walk.add(f"{path}.zone", "unknown-zone", zone_name)
    if bool(table.map) == (table.bays is not None):
        walk.add(path, "map-or-bays")
    if model is None or pack is None or zone is None or len(walk.problems) > before:
        return None
    numbers, mapping = _numbers(table, model, pack, walk, path)
    serial = None
    if table.serial is not None:
        serial = place("serial", table.serial, model.points(), walk, f"{path}.serial")
    bays = None if table.bays is None else compile_bays(table.bays, pack, walk, f"{path}.bays")
    if len(walk.problems) > before:
        return None
    counters = tuple(one for one in mapping if one.counter is not None)
    types = {one.name: one.type for one in pack.fields}
    constants = {name for name, entry in table.map.items() if entry.const is not None}
    heartbeat = table.policy.heartbeat or Duration.parse("60s" if counters else "1h")
    poll = table.poll or model.poll
    return UnitSource(
        id=table.id,
        resource=table.resource,
        pack=pack.id,
        number=table.connection.unit,
        numbers=numbers,
        mapping=mapping,
        counters=counters,
        states=frozenset(n for n in table.map if types[n] in _STATES) - constants,
        serial=serial,
        bays=bays,
        blocks=_blocks(numbers, serial, bays, poll),
        every_us=max(1, int(poll.every)),
        zone=zone,
        heartbeat_us=int(heartbeat),
        stale_us=int(table.policy.stale_after),
        urgent=table.policy.urgent,
        has_window="window_start" in types,
    )


def _blocks(
    numbers: tuple[Number, ...], serial: Number | None, bays: BaySource | None, poll: PollTable
) -> tuple[Block, ...]:
    spans: list[Span] = [one.span for one in numbers]
    spans += [serial.span] if serial else []
    spans += bays.spans if bays else ()
    return tuple(group(spans, gap=poll.gap, words_max=poll.words_max, bits_max=poll.bits_max))


def _numbers(
    table: ModbusDevice, model: Profile, pack: Pack, walk: Walk, path: str
) -> tuple[tuple[Number, ...], Mapping_]:
    """Where the fields stand, and the map that makes values of them."""
    numbers: list[Number] = []
    fields: dict[str, FieldMap] = {}
    points = model.points()
    for name, entry in table.map.items():
        where = f"{path}.map.{name}"
        number = None
        if entry.const is None:
            number = place(name, entry, points, walk, where)
        if number is not None:
            numbers.append(number)
        _check_counter(entry, number, walk, where)
        fields[name] = _field_map(name, entry, number)
    mapping = compile_map(fields, pack, walk, f"{path}.map") if fields else Mapping_()
    if all(entry.const is not None for entry in table.map.values()) and table.map:
        walk.add(f"{path}.map", "missing", None, expected="one-register")
    return tuple(numbers), mapping


def _check_counter(entry: FieldTable, number: Number | None, walk: Walk, path: str) -> None:
    if entry.counter is None or number is None:
        return
    if number.capacity is None:
        walk.add(f"{path}.type", "type-of-counter", number.kind)
    if entry.scale is not None or entry.offset is not None:
        walk.add(f"{path}.scale", "scale-of-counter", entry.scale)


def _field_map(name: str, entry: FieldTable, number: Number | None) -> FieldMap:
    """The field as the common map of all drivers takes it: its value stands under its name."""
    counter = entry.counter
    if counter is not None and counter.wrap is None and number is not None:
        counter = msgspec.structs.replace(counter, wrap=min(number.capacity or 0, 1 << 62) or None)
    return FieldMap(
        path=None if entry.const is not None else name,
        const=entry.const,
        scale=entry.scale,
        offset=entry.offset,
        codes=entry.codes,
        missing=list(entry.missing),
        range=entry.range,
        counter=counter,
    )


def _plan(line: LineSource) -> DriverPlan:
    uses: dict[str, ResourceUse] = {}
    for unit in line.units:
        known = uses.get(unit.resource)
        devices = (*known.devices, unit.id) if known else (unit.id,)
        promise = weakest((known.promise, unit.promise)) if known else unit.promise
        uses[unit.resource] = ResourceUse(unit.resource, unit.pack, devices, promise)
    return DriverPlan(
        name=f"modbus/{line.name}",
        make=partial(_make, line),
        config=line,
        devices=tuple(unit.id for unit in line.units),
        resources=uses,
    )


def _make(line: LineSource, context: DriverContext) -> Driver:
    """Construct the driver; pymodbus is imported when it connects."""
    from devices.modbus.driver import ModbusDriver

    return ModbusDriver(line, context)
