"""What the driver does besides the wire: topics, transforms, dispatch, memory, health."""

from datetime import timedelta, timezone

import pytest

from devices.counting import CounterState
from devices.driver import DeviceState, Promise
from devices.kit import Bench, load
from devices.mqtt.connection import Connection
from devices.mqtt.decoder import Message
from devices.mqtt.driver import split_host
from devices.mqtt.topics import covers, matches, overlap, problem_of, subscriptions
from devices.transforms import local_day, pseudonym, pseudonym_key, pseudonym_plate
from protocol.times import Quality


@pytest.mark.parametrize(
    ("pattern", "topic", "yes"),
    [
        ("a/b", "a/b", True),
        ("a/+", "a/b", True),
        ("a/+", "a", False),
        ("a/+", "a/b/c", False),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("#", "a/b", True),
        ("#", "$SYS/broker", False),
        ("+/broker", "$SYS/broker", False),
        ("$SYS/#", "$SYS/broker", True),
        ("+", "", True),
        ("a/+/c", "a//c", True),
    ],
)
def test_topics_match_as_the_standard_says(pattern, topic, yes):
    assert matches(pattern, topic) is yes


def test_subscriptions_are_the_fewest_that_hear_everything():
    assert subscriptions(["a/b", "a/+", "a/#", "x/+/y", "x/1/y"]) == ["a/#", "x/+/y"]
    assert covers("a/#", "a/+/c")
    assert not covers("a/+", "a/#")
    assert overlap("a/+/c", "a/b/+")
    assert not overlap("a/b", "a/c/+")
    assert overlap("a/#", "a")


@pytest.mark.parametrize("topic", ["", "a/#/b", "a+/b", "a/b#", "$share/g/a", "a\0b"])
def test_impossible_topics_are_named(topic):
    assert problem_of(topic) is not None


def test_pseudonyms_join_within_a_site_and_nowhere_else():
    key, other = pseudonym_key("one"), pseudonym_key("two")
    assert pseudonym(key, " t-1") == pseudonym(key, "T-1")
    assert pseudonym(key, "T-1") != pseudonym(other, "T-1")
    assert len(pseudonym(key, "T-1")) == 8


def test_plates_do_not_join_across_days():
    key = pseudonym_key("one")
    assert pseudonym_plate(key, "川A·12345", "2026-05-01") == pseudonym_plate(
        key, "川A 12345", "2026-05-01"
    )
    assert pseudonym_plate(key, "川A12345", "2026-05-01") != pseudonym_plate(
        key, "川A12345", "2026-05-02"
    )
    midnight = 1_777_593_600_000_000  # 2026-05-01T00:00:00Z is 08:00 at the site
    assert local_day(midnight, timezone(timedelta(hours=8))) == "2026-05-01"


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("broker", "broker", 1883),
        ("broker:1884", "broker", 1884),
        ("[::1]:1884", "::1", 1884),
        ("[::1]", "::1", 1883),
    ],
)
def test_hosts_and_ports(text, host, port):
    assert split_host(text, 1883) == (host, port)


GATE = """
[[mqtt]]
id = "b"
url = "mqtt://127.0.0.1"
client_id = "gw"
[[device]]
id = "gate"
profile = "mqtt/json"
resource = "checks"
pack = "ticket.check"
connection = { mqtt = "b", topic = "gate" }
policy = { dedup_key = ["id"], silence_alarm = "10m" }
map = { ticket_ref = { path = "ticket", transform = "pseudonym" }, persons = { path = "n" } }
"""


def gate(bench=None):
    return load(GATE).drivers[0].make(bench or Bench())


def test_nothing_clear_of_a_ticket_is_kept_whatever_happens():
    driver, bench = gate(), Bench()
    for payload in (
        b'{"id": 1, "ticket": "SECRET-77", "n": 1}',
        b'{"id": 2, "ticket": ["SECRET-77"], "n": 1}',
        b'{"id": 3, "ticket": "SECRET-77", "n": "many"}',
        b'{"id": 4, "ticket": "SECRET-77", ',
    ):
        message = Message(topic="gate", payload=payload)
        (reading,) = driver.decode(message, bench.clock_us())
        assert "SECRET" not in repr(reading.rows) + repr(reading.rejected) + repr(message)


def test_fields_in_clear_text_cannot_be_mapped_to_pseudonym_fields():
    problems = load(GATE.replace(', transform = "pseudonym"', "")).problems
    assert [(one.path, one.key) for one in problems] == [
        ("device[0].map.ticket_ref.transform", "transform-for-token")
    ]


def test_silent_device_is_reported_once_it_is_late():
    bench = Bench()
    driver = gate(bench)
    driver.decode(Message(topic="gate", payload=b'{"id": 1, "n": 1}'), bench.clock_us())
    connection = Connection(driver._settings, clock_us=bench.clock_us)
    driver._tick(connection)
    assert bench.health.states.get("gate") is not DeviceState.SILENT
    bench.now_us += 11 * 60_000_000
    driver._tick(connection)
    assert bench.health.states["gate"] is DeviceState.SILENT


def test_device_that_is_not_understood_is_garbled():
    bench = Bench()
    gate(bench).decode(Message(topic="gate", payload=b"\x00\xff"), bench.clock_us())
    assert bench.health.states["gate"] is DeviceState.GARBLED


def test_a_message_that_was_left_out_is_rejected_with_topic_and_length():
    bench = Bench()
    (reading,) = gate(bench).decode(Message(topic="gate", payload=b"", left_out=9_000), 1)
    assert [(one.reason, one.detail, one.raw) for one in reading.rejected] == [
        ("too-large", "gate, 9000 bytes", b"")
    ]
    assert reading.promise is Promise.B
    assert bench.health.states["gate"] is DeviceState.GARBLED
    assert bench.health.total("rejected") == 1


def test_promises_are_those_of_the_weakest_source():
    text = (
        GATE
        + """
[[device]]
id = "hand"
profile = "mqtt/json"
resource = "checks"
connection = { mqtt = "b", topic = "hand" }
map = { persons = { path = "n" } }
"""
    )
    loaded = load(text)
    assert not loaded.problems
    assert loaded.resources["checks"].promise is Promise.B
    assert loaded.drivers[0].make(Bench()).promise is Promise.B


def test_damaged_watermark_starts_a_new_base_line_and_is_counted():
    text = """
[[mqtt]]
id = "b"
url = "mqtt://127.0.0.1"
client_id = "gw"
[[device]]
id = "c"
profile = "mqtt/json"
resource = "passages"
pack = "visitor.passage"
connection = { mqtt = "b", topic = "c" }
map = { in_count = { path = "n", counter = { wrap = 65536 } } }
"""
    bench = Bench()
    bench.watermarks["counter/c/c/in_count"] = b"\xff\x00rubbish"
    driver = load(text).drivers[0].make(bench)
    (reading,) = driver.decode(Message(topic="c", payload=b'{"n": 500}'), bench.clock_us())
    record = reading.rows[0].records[0]
    assert (record.values["in_count"], Quality.REBASED in Quality(record.quality)) == (0, True)
    assert bench.health.total("watermark_unreadable") == 1
    assert CounterState.load(reading.watermarks[0].value).raw == 500


def test_invented_device_names_are_bounded():
    text = GATE.replace('topic = "gate"', 'topic = "gate/+", device_level = 1')
    bench = Bench()
    driver = load(text).drivers[0].make(bench)
    payload = b'{"id": 1, "n": 1}'
    for number in range(1025):
        (reading,) = driver.decode(Message(topic=f"gate/{number}", payload=payload), 1)
    assert reading.rejected[0].reason == "too-many-devices"
    (known,) = driver.decode(Message(topic="gate/7", payload=payload), 1)
    assert known.rows


def test_R42_negative_occupancy_is_clamped_and_marked():
    text = """
[[mqtt]]
id = "b"
url = "mqtt://127.0.0.1"
client_id = "gw"
[[device]]
id = "z"
profile = "mqtt/json"
resource = "zones"
pack = "visitor.passage"
connection = { mqtt = "b", topic = "z" }
map = { occupancy = { path = "n", range = [-1000, 100000] } }
"""
    bench = Bench()
    driver = load(text).drivers[0].make(bench)
    (reading,) = driver.decode(Message(topic="z", payload=b'{"n": -2}'), bench.clock_us())
    record = reading.rows[0].records[0]
    assert record.values["occupancy"] == 0
    assert Quality.REBASED in Quality(record.quality)


def test_importing_the_loader_imports_no_mqtt_library():
    import subprocess
    import sys

    script = (
        "import sys, devices.loader, devices.packs\n"
        "assert not {'paho', 'aiomqtt', 'paho.mqtt.client'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


TWO_TOTALS = """
[[mqtt]]
id = "b"
url = "mqtt://127.0.0.1"
client_id = "gw"
[[device]]
id = "c"
profile = "mqtt/json"
resource = "passages"
pack = "visitor.passage"
connection = { mqtt = "b", topic = "c" }
map = { in_count = { path = "in", counter = {} }, out_count = { path = "out", counter = {} } }
"""


def test_a_total_that_was_counted_before_is_no_increment_beside_one_that_was_not():
    """Delivered again after a kill; meanwhile nobody came in, and two went out."""
    bench = Bench()
    (loaded,) = load(TWO_TOTALS).drivers
    driver = loaded.make(bench)

    def report(came: int, went: int, *, dup: bool = False):
        payload = b'{"in": %d, "out": %d}' % (came, went)
        bench.now_us += 60_000_000
        message = Message(topic="c", payload=payload, dup=dup)
        (rows,) = driver.decode(message, bench.clock_us())[0].rows
        return rows.records[0].values

    report(1_000_000, 990_000)
    values = report(1_000_000, 990_002, dup=True)
    assert (values["in_count"], values["out_count"]) == (None, 2)
