"""The simulated scenic area's `agent.toml`: car park, ticket gates, counters, a ticketing system.

Bays over LoRaWAN; two gates on serial lines; four counters on one RS-485 line and one on Modbus
TCP; checks of a ticketing system and of hand-helds on JSON topics. It is what a technician would
write; nothing in it is known to the agent otherwise.
"""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from devices.simulators.carpark import (
    BAY_RESOURCE,
    HEALTH_RESOURCE,
    LINK_RESOURCE,
    LOT_RESOURCE,
    LOT_TOPIC,
    park,
)
from devices.simulators.gates import CHECK_RESOURCE, HANDHELD_RESOURCE
from devices.simulators.modbus_bus import RESOURCE as PASSAGE_RESOURCE
from devices.simulators.modbus_bus import Counter, counters
from devices.simulators.serial_gate import CHECK_RESOURCE as GATE_RESOURCE

#: Every resource of the site by local name, with its domain pack.
RESOURCES = {
    BAY_RESOURCE: "parking.bay",
    LOT_RESOURCE: "parking.lot",
    HEALTH_RESOURCE: "device.health",
    LINK_RESOURCE: "device.link",
    GATE_RESOURCE: "ticket.check",
    CHECK_RESOURCE: "ticket.check",
    HANDHELD_RESOURCE: "ticket.check",
    PASSAGE_RESOURCE: "visitor.passage",
}

#: Gates on serial lines by number, and how each differs in its simulator: to one a ticket is held
#: again (another number: another check, marked), the other's plug is pulled now and then.
GATES: Final = {"S1": ("--repeats", "0", "--unplug-every", "40"), "S2": ("--repeats", "0.3")}
#: The counter on the RS-485 line that falls silent, by unit number and name, and those beside it.
SILENT_UNIT, SILENT = 3, "L3"
BESIDE: Final = ("L1", "L2", "L4")
#: Speed of the RS-485 line, bit/s.
BAUD: Final = 115_200

#: Who the agent is, and a hub that it asks again soon: nobody wants to wait in a demo or a test.
HEAD = """\
data = "{data}"
name = "{name}"

[hub]
url = "{hub}"
connect_timeout = "2s"
request_timeout = "5s"
retry_min = "100ms"
retry_max = "1s"
"""

#: One entry for ticket checks on a JSON topic; the second level names the gate.
CHECKS = """
[[device]]
id = "{id}"
profile = "mqtt/json"
resource = "{resource}"
connection = {{ mqtt = "site", topic = "{topic}", device_level = 1 }}
time = {{ device = "ts" }}
{policy}
[device.map]
ticket_ref = {{ path = "ticket", transform = "pseudonym" }}
gate_no = {{ path = "gate_no" }}
direction = {{ path = "direction" }}
result = {{ path = "result" }}
persons = {{ path = "persons" }}
"""
BY_EVENT_ID = 'policy = { dedup_key = ["id"] }'

_HEAD = """\
# A demo site; `python -m devices.demo` wrote it. See docs/quickstart.md for one of your own.
"""
_REST = """

[storage]
budget = "256MiB"
commit_delay = "500ms"

[seal]
age = "2s"

[log]
level = "info"

[[mqtt]]
id = "site"
url = "{broker}"
client_id = "demo-gateway"
in_flight = 100
keepalive = "10s"
"""

_RESOURCE = """
[[resource]]
id = "{id}"
pack = "{pack}"
place = "demo"
"""

_BAYS = """
[[device]]
id = "p1-{codec}"
profile = "lorawan/{codec}"
resource = "{bays}"
health = "{health}"
link = "{link}"
policy = {{ heartbeat = "record" }}
connection = {{ mqtt = "site", dev_eui = "file:{codec}.csv" }}
"""

_LOT = """
[[device]]
id = "p1-guidance"
profile = "mqtt/json"
resource = "{lot}"
connection = {{ mqtt = "site", topic = "{lot_topic}" }}
time = {{ device = "ts" }}
policy = {{ dedup_key = ["id"] }}
[device.map]
lot_id = {{ path = "lot_id" }}
total = {{ path = "total" }}
free = {{ path = "free" }}
occupied = {{ path = "occupied" }}
"""

_GATE = """
[[device]]
id = "{gate}"
profile = "serial_line/gate"
resource = "{resource}"
connection = {{ port = "{port}" }}
map = {{ gate_no = {{ const = "{gate}" }} }}
policy = {{ repeat_window = "30s" }}
"""

# The line is short and fast: an answer that has not begun after 70 ms does not come.
_BUS = """
[[bus]]
id = "rs485"
port = "{port}"
baud = {baud}
turnaround = "2ms"
timeout = "70ms"
probe_max = "3s"
"""

_COUNTER = """
[[device]]
id = "{name}"
profile = "modbus/generic"
resource = "{passages}"
connection = {{ {place} }}
poll = {{ every = "100ms" }}
[device.map]
line_id = {{ const = "{name}" }}
in_count = {{ register = "holding:0", type = "{kind}", {more} }}
out_count = {{ register = "holding:{second}", type = "{kind}", {more} }}
"""


@dataclass(frozen=True, slots=True)
class Wires:
    """Where what is not on the broker hangs; its simulators are started with the same."""

    folder: Path  # of stable paths, as udev makes them: a plug that is in again has the same
    tcp_port: int  # of the counter on Modbus TCP

    @property
    def bus(self) -> Path:
        """The RS-485 line."""
        return self.folder / "rs485"

    def gate(self, gate: str) -> Path:
        """The serial line of one gate."""
        return self.folder / f"gate-{gate}"


def write_site(folder: Path, *, data: Path, hub: str, broker: str, wires: Wires, seed: int) -> Path:
    """Write `agent.toml` and the lists of sensors into a folder; gives the file's path.

    seed: that of the car park, which decides the sensors' identities.
    """
    folder.mkdir(parents=True, exist_ok=True)
    codecs = {"bosch": "bosch-tps110", "dingtek": "dingtek-do201"}
    lines: dict[str, list[str]] = {one: ["dev_eui,label"] for one in codecs.values()}
    for sensor in park(random.Random(seed)):  # noqa: S311 — a simulation
        lines[codecs[sensor.kind]].append(f"{sensor.eui},{sensor.bay_no}")
    for codec, rows in lines.items():
        (folder / f"{codec}.csv").write_text("\n".join(rows) + "\n", "utf-8")
    text = _HEAD + HEAD.format(data=data, name="demo gateway", hub=hub)
    text += _REST.format(broker=broker)
    text += "".join(_RESOURCE.format(id=name, pack=pack) for name, pack in RESOURCES.items())
    for codec in codecs.values():
        text += _BAYS.format(
            codec=codec, bays=BAY_RESOURCE, health=HEALTH_RESOURCE, link=LINK_RESOURCE
        )
    text += _LOT.format(lot=LOT_RESOURCE, lot_topic=LOT_TOPIC)
    for name, resource, policy in (
        ("gates", CHECK_RESOURCE, BY_EVENT_ID),
        ("handheld", HANDHELD_RESOURCE, ""),
    ):
        text += CHECKS.format(id=name, resource=resource, topic=f"{name}/+/check", policy=policy)
    text += "".join(
        _GATE.format(gate=gate, resource=GATE_RESOURCE, port=wires.gate(gate)) for gate in GATES
    )
    text += _BUS.format(port=wires.bus, baud=BAUD)
    for unit, counter in counters(random.Random(seed)).items():  # noqa: S311 — a simulation
        text += _counter(unit, counter, wires)
    path = folder / "agent.toml"
    path.write_text(text, "utf-8")
    return path


def _counter(unit: int, counter: Counter, wires: Wires) -> str:
    """One counter: on the bus, or as unit 0 on a connection of its own."""
    kind, second = ("u16", 1) if counter.wrap == 1 << 16 else ("u32", 2)
    on_bus, on_tcp = (
        f'bus = "rs485", unit = {unit}',
        f'host = "127.0.0.1", tcp_port = {wires.tcp_port}',
    )
    return _COUNTER.format(
        name=counter.name,
        passages=PASSAGE_RESOURCE,
        place=on_bus if unit else on_tcp,
        kind=kind,
        second=second,
        more='words = "low_first", counter = { max_step = 10000 }',
    )
