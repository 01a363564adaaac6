"""The simulated site's `agent.toml`: one car park, two gates, a hand-held checker, four counters.

It is what a technician would write; nothing in it is known to the agent otherwise.
"""

import random
from pathlib import Path

from devices.simulators.carpark import (
    BAY_RESOURCE,
    HEALTH_RESOURCE,
    LINK_RESOURCE,
    LOT_RESOURCE,
    LOT_TOPIC,
    park,
)
from devices.simulators.counters import RESOURCE as PASSAGE_RESOURCE
from devices.simulators.gates import CHECK_RESOURCE, HANDHELD_RESOURCE

#: Every resource of the site by local name, with its domain pack.
RESOURCES = {
    BAY_RESOURCE: "parking.bay",
    LOT_RESOURCE: "parking.lot",
    HEALTH_RESOURCE: "device.health",
    LINK_RESOURCE: "device.link",
    CHECK_RESOURCE: "ticket.check",
    HANDHELD_RESOURCE: "ticket.check",
    PASSAGE_RESOURCE: "visitor.passage",
}

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

_COUNTERS = """
[[device]]
id = "counters-{bits}"
profile = "mqtt/json"
resource = "{passages}"
connection = {{ mqtt = "site", topic = "{topic}", device_level = 1 }}
time = {{ device = "ts" }}
[device.map]
line_id = {{ path = "line" }}
in_count = {{ path = "in_total", counter = {{ wrap = {wrap}, max_step = 10000 }} }}
out_count = {{ path = "out_total", counter = {{ wrap = {wrap}, max_step = 10000 }} }}
"""


def write_site(folder: Path, *, data: Path, hub: str, broker: str, seed: int) -> Path:
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
    for bits, topic in ((16, "counters/16/+"), (32, "counters/32/+")):
        text += _COUNTERS.format(
            bits=bits, passages=PASSAGE_RESOURCE, topic=topic, wrap=1 << bits
        ).replace("device_level = 1", "device_level = 2")
    path = folder / "agent.toml"
    path.write_text(text, "utf-8")
    return path
