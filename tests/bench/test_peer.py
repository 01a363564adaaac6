"""What is pure of the comparison: reconciliation, tables, configuration, the wire, arrays."""

import json
import tomllib
from collections import Counter

import pytest

from devices.demo.figures import Figures
from devices.driver import Promise
from devices.loader import load_devices
from devices.mqtt.decoder import Message
from tests.bench.load import Load, packs
from tests.bench.peer import arrays, settings, tables, wire
from tests.bench.peer.in_process import plain, write_load
from tests.bench.peer.ours import device_toml
from tests.bench.peer.publish import numbers, payloads
from tests.bench.peer.reconcile import Outcome, reconcile
from tests.bench.peer.side import Row, growth
from tests.bench.peer.stand_in import count_records, read_telemetry

OURS, PEER = Row(9_000, 100, 5, 60, 10), Row(3_000, 200, 2, 70, 110)
SIDES = {"shanmen": "shanmen", "peer": "the peer"}


def test_lost_and_doubled_are_by_identity_not_by_count():
    received = Counter({1: 1, 2: 3, 4: 1, 99: 1})
    assert reconcile([1, 2, 3, 4], received) == Outcome(offered=4, lost=1, doubled=2)


def test_ratios_stand_beside_their_bars_and_what_is_missing_is_red():
    figures = Figures("peer", "peer broker")
    tables.add_rows(figures, "broker", {("shanmen", 1): OURS, ("peer", 1): PEER})
    rows = {row["name"]: row for row in figures.rows()}
    assert rows["broker_1_of_peer"]["value"] == 3
    assert rows["broker_1_cpu_of_peer"]["ok"]
    assert rows["broker_1_bytes_of_peer"]["ok"]
    assert rows["broker_100_of_peer"] | {"value": None, "ok": False} == rows["broker_100_of_peer"]
    assert not figures.ok


def test_a_record_of_ours_that_is_lost_or_doubled_is_red():
    figures = Figures("peer", "peer kills")
    clean, bad = [Outcome(10, 0, 0)] * 5, [Outcome(10, 3, 1)] * 5
    for side in ("shanmen", "peer"):
        figures.add(f"kills_{side}", 5)
    tables.add_outcomes(figures, "kills", {"shanmen": clean, "peer": bad}, range(1, 6))
    assert figures.ok
    one_bad = [*clean[1:], Outcome(10, 0, 1)]
    tables.add_outcomes(figures, "kills", {"shanmen": one_bad, "peer": bad}, range(1, 6))
    assert not figures.ok


def test_the_tables_have_a_line_for_each_side_and_size():
    lines = tables.table({("shanmen", 1): OURS, ("peer", 1): PEER}, SIDES, "message")
    assert len(lines) == 5
    assert lines[1].split() == "shanmen, 1 a message 9,000 100.0 5.0 60 10.0".split()
    assert "not measured" in lines[-1]
    assert "1,900" in tables.outcome_lines({"peer": [Outcome(20_000, 1_900, 0)]}, SIDES)[2]


def test_growth_is_above_what_was_held_at_the_beginning():
    assert growth([(0.0, 10), (1.0, 50), (2.0, 55), (3.0, 52)], began=1.5) == 5
    assert growth([(5.0, 50)], began=1.0) == 0


def test_the_publisher_gives_both_sizes_the_same_records():
    singles, [array] = payloads(5, 1, 3), payloads(5, 5, 3)
    assert [json.loads(one) for one in singles] == json.loads(array)
    assert [one["values"]["number"] for one in json.loads(array)] == numbers(5, 3)
    assert len(set(numbers(5_000, 0))) == 5_000
    # The peer merges records of one device and one millisecond.
    assert len({one["ts"] for one in map(json.loads, payloads(5_000, 1, 0))}) == 5_000


def test_the_load_of_the_peer_is_ours(tmp_path):
    write_load(tmp_path / "load", 30, 10)
    handed = [json.loads(line) for line in (tmp_path / "load").read_text().splitlines()]
    assert [kind for kind, _ in handed] == ["checks", "counters", "bays"]
    assert handed[0][1] == json.loads(json.dumps([plain(one) for one in Load("checks").take(10)]))


def test_the_peer_keeps_its_session_and_its_records(tmp_path):
    settings.write(tmp_path / "it", port=1, connector=settings.mqtt(2), name="mqtt")
    config = json.loads((tmp_path / "it" / "config" / "tb_gateway.json").read_text())
    assert config["storage"]["type"] == "sqlite"
    assert config["thingsboard"]["qos"] == 1
    [connector] = config["connectors"]
    broker = json.loads((tmp_path / "it" / "config" / connector["configuration"]).read_text())
    assert broker["broker"]["cleanSession"] is False
    assert broker["mapping"][0]["subscriptionQos"] == 1


@pytest.mark.parametrize("version", [4, 5])
def test_the_wire_reads_back_what_it_writes_in_any_pieces(version):
    sent = wire.publish("v1/gateway/telemetry", b"x" * 300, 7, version) + wire.acknowledgement(9)
    parser = wire.Parser()
    found = [one for at in range(len(sent)) for one in parser.feed(sent[at : at + 1])]
    assert [one.kind for one in found] == [wire.PUBLISH, wire.PUBACK]
    said = wire.publication(found[0], version)
    assert said == ("v1/gateway/telemetry", 7, b"x" * 300)


def test_every_filter_of_a_subscription_is_granted():
    body = b"\x00\x05" + b"\x00" + b"\x00\x01a\x01" + b"\x00\x02bc\x00"
    asked = wire.Packet(wire.SUBSCRIBE, 2, body)
    assert list(wire.filters(asked, wire.FIVE)) == ["a", "bc"]
    assert wire.answer_subscription(asked, wire.FIVE) == b"\x90\x05\x00\x05\x00\x01\x01"


def test_stored_telemetry_is_counted_and_read_back(tmp_path):
    payload = json.dumps({"gates": [{"ts": 1, "values": {"number": n}} for n in range(3)]}).encode()
    (tmp_path / "telemetry").write_bytes(2 * (len(payload).to_bytes(4, "big") + payload))
    assert count_records(payload) == 3
    assert [one["values"]["number"] for one in read_telemetry(tmp_path)] == [0, 1, 2] * 2


def array_source(size=100):
    table = tomllib.loads(device_toml("mqtt://127.0.0.1:1", size))["device"][0]
    table |= {"profile": "mqtt/json", "connection": {"mqtt": "broker", "topic": "gate/all"}}
    document = {
        "mqtt": [{"id": "broker", "url": "mqtt://127.0.0.1:1", "client_id": "c"}],
        "device": [{k: v for k, v in table.items() if k != "broker"}],
    }
    loaded = load_devices(
        document, {one.id: one for one in packs().values()}, declared={"gate": "bench.checks"}
    )
    assert not loaded.problems
    return loaded.drivers[0].config.json[0]


def test_an_array_is_one_reading_with_one_identity():
    source, [payload] = array_source(), payloads(100, 100, 0)
    reading = arrays.decode(source, Message(topic="gate/all", payload=payload), 0)
    [rows] = reading.rows
    assert [one.values for one in rows.records] == [one.values for one in Load("checks").take(100)]
    assert reading.promise is Promise.A
    again = arrays.decode(source, Message(topic="gate/all", payload=payload, dup=True), 5)
    assert again.identity == reading.identity
    [other] = payloads(100, 100, 100)
    assert (
        arrays.decode(source, Message(topic="gate/all", payload=other), 0).identity
        != reading.identity
    )


def test_what_is_no_array_of_objects_is_rejected_and_not_lost():
    for payload in (b"", b"{}", b"[1]", b"[]", b"\xff"):
        reading = arrays.decode(array_source(), Message(topic="gate/all", payload=payload), 0)
        assert not reading.rows
        assert reading.rejected[0].reason == "not-json"
