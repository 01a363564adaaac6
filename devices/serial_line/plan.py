"""`[[device]]` tables of serial lines -> drivers, before pyserial is imported."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from devices.driver import Driver, DriverContext
from devices.loader import DriverPlan, Request, ResourceUse
from devices.serial_line.config import PREFIX, SerialDevice, filled_in, names, profile
from devices.serial_line.source import SerialSource, compile_serial
from protocol.program.walk import nearest


def load(devices: list[tuple[str, Mapping[str, Any]]], request: Request) -> Iterable[DriverPlan]:
    """The plans for these tables: one port, one driver; see `devices.loader.Plugin`."""
    plans: list[DriverPlan] = []
    ports: dict[str, str] = {}
    for path, table in devices:
        source = _source(path, table, request)
        if source is None:
            continue
        port = source.settings.port
        if port in ports:
            request.walk.add(f"{path}.connection.port", "port-twice", port, other=ports[port])
        ports[port] = source.id
        plans.append(_plan(source))
    return plans


def _source(path: str, table: Mapping[str, Any], request: Request) -> SerialSource | None:
    name = str(table["profile"]).removeprefix(PREFIX)
    known = names()
    if name not in known:
        shown = [f"{PREFIX}{one}" for one in known]
        near = nearest(table["profile"], shown)
        where = f"{path}.profile"
        if near:
            request.walk.add(where, "unknown-profile-near", table["profile"], near=near)
        else:
            request.walk.add(where, "unknown-profile", table["profile"], known=", ".join(shown))
        return None
    read = request.walk.struct(filled_in(table, profile(name)), SerialDevice, path)
    pack = request.own_pack(path)
    if read is None or pack is None:
        return None
    return compile_serial(read, pack, site_zone=request.site_zone, walk=request.walk, path=path)


def _plan(source: SerialSource) -> DriverPlan:
    use = ResourceUse(source.resource, source.pack, (source.id,), source.promise)
    return DriverPlan(
        name=f"serial_line/{source.id}",
        make=partial(make, source),
        config=source,
        devices=(source.id,),
        resources={source.resource: use},
    )


def make(source: SerialSource, context: DriverContext) -> Driver:
    """Construct the driver; pyserial is imported here, when a line is configured."""
    from devices.serial_line.driver import SerialDriver

    return SerialDriver(source, context)
