"""A plug-in driver for arrays: one message of a broker holds many records of one device.

`mqtt/json` with `each` makes a reading of each item, which has an identity of its own. Here the whole array
is one reading of class A, the message's identity is its first and last id and its length: a driver of one's
own (docs/drivers/adding-a-driver.md), on the connection and the mapping that mqtt/json has. `[[device]]` is that of mqtt/json
with an `[[mqtt]]` table as `broker` in place of `connection.mqtt`; the map's paths begin at an item.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import msgspec

from devices.document import interpret
from devices.driver import DriverContext, Promise, Reading, Rejected, Rows
from devices.loader import DriverPlan, Request, ResourceUse
from devices.mapping import dig
from devices.mqtt.config import JsonDevice, MqttTable
from devices.mqtt.decoder import Message
from devices.mqtt.driver import MqttDriver, _Route
from devices.mqtt.plan import MqttConfig
from devices.mqtt.source import JsonSource, compile_source
from protocol.records import Record


def decode(source: JsonSource, message: Message, gateway_us: int) -> Reading:
    """The reading of one message; pure."""
    try:
        items = msgspec.json.decode(message.payload, type=list[dict[str, Any]])
    except msgspec.MsgspecError:
        items = []
    if not items:
        refused = Rejected(device=source.id, reason="not-json", raw=message.payload[:4096])
        return Reading(rejected=[refused], promise=Promise.A)
    records, rejected = [], []
    for item in items:
        found = interpret(item, source.mapping, source.pack, source.time, gateway_us)
        records.append(
            Record(
                event_time_us=found.time.event_us,
                device=source.id,
                values=found.values,
                quality=found.quality,
                device_time_us=found.time.device_us,
            )
        )
        rejected += [
            Rejected(device=source.id, reason=one.reason, detail=f"{one.field} at {one.path}")
            for one in found.faults
        ]
    ends = [dig(items[at], steps) for at in (0, -1) for steps in source.dedup_steps]
    return Reading(
        rows=[Rows(resource=source.resource, records=records)],
        identity=msgspec.msgpack.encode([source.id, len(items), *ends]),
        rejected=rejected,
        promise=Promise.A,
    )


def _decode(source: JsonSource, message: Message, gateway_us: int) -> list[Reading]:
    return [decode(source, message, gateway_us)]


class ArrayDriver(MqttDriver):
    """The connection, acknowledgements and reconnects are mqtt/json's."""

    def _json_route(self, source: JsonSource, key: bytes) -> _Route:
        return _Route(source.topic, partial(_decode, source), None, source.id)


def load(devices: list[tuple[str, Mapping[str, Any]]], request: Request) -> Iterable[DriverPlan]:
    """What the entry point names."""
    for path, raw in devices:
        broker = msgspec.convert(dict(raw["broker"]), MqttTable)
        table = {k: v for k, v in raw.items() if k != "broker"}
        table |= {"profile": "mqtt/json", "connection": {**raw["connection"], "mqtt": broker.id}}
        device = request.walk.struct(table, JsonDevice, path)
        pack = request.own_pack(path)
        if device is None or pack is None:
            continue
        source = compile_source(
            device, pack, site_zone=request.site_zone, walk=request.walk, path=path
        )
        if source is not None:
            yield _plan(source, broker)


def _plan(source: JsonSource, table: MqttTable) -> DriverPlan:
    def make(context: DriverContext) -> ArrayDriver:
        return ArrayDriver(MqttConfig(table=table, json=(source,)), context)

    use = ResourceUse(source.resource, source.pack, (source.id,), Promise.A)
    return DriverPlan(
        name=f"arrays/{source.id}",
        make=make,
        config=source,
        devices=(source.id,),
        resources={source.resource: use},
    )
