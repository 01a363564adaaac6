"""Reality notes of sensors behind a network server, each by its name (devices.md §4)."""

import base64
import json

import pytest

from devices.kit import Bench, load
from devices.lorawan.codec import decode
from devices.lorawan.profile import profile, read_profile
from devices.mqtt.connection import Connection
from devices.mqtt.decoder import Message
from protocol.errors import ConfigError
from protocol.times import Quality, show_time

EUI = "0101010101010101"
TEXT = """
[[mqtt]]
id = "cs"
url = "mqtt://127.0.0.1"
client_id = "gw"
[[device]]
id = "p1"
profile = "lorawan/{codec}"
resource = "fed"
pack = "{pack}"
connection = {{ mqtt = "cs", dev_eui = {{ "0101010101010101" = "L1" }} }}
policy = {{ {policy} }}
"""


class Site:
    def __init__(self, codec="bosch-tps110", pack="parking.bay", policy=""):
        self.bench = Bench()
        loaded = load(TEXT.format(codec=codec, pack=pack, policy=policy))
        assert not loaded.problems, loaded.problems
        self.driver = loaded.drivers[0].make(self.bench)
        self.f_cnt = 0

    def up(self, hexa, *, port=1, after_s=60, **event):
        self.bench.now_us += after_s * 1_000_000
        self.f_cnt += 1
        body = {
            "deviceInfo": {"devEui": EUI},
            "devAddr": "00189440",
            **({"fCnt": self.f_cnt} if self.f_cnt else {}),  # protobuf leaves 0 out
            "fPort": port,
            "time": show_time(self.bench.now_us),
            "data": base64.b64encode(bytes.fromhex(hexa)).decode(),
        } | event
        topic = f"application/a/device/{EUI}/event/up"
        message = Message(topic=topic, payload=json.dumps(body).encode())
        (reading,) = self.driver.decode(message, self.bench.clock_us())
        self.bench.commit(reading)
        return reading

    def rows(self, reading, resource="fed"):
        return [row for rows in reading.rows if rows.resource == resource for row in rows.records]


def test_R10_sixteen_bit_totals_of_a_people_counter_roll_over():
    site = Site("milesight-vs350", "visitor.passage")
    site.up("04ccf0ff0000", port=85)  # 65,520
    row = site.rows(site.up("04cc0a000000", port=85))[0]
    assert row.values["in_count"] == 26


def test_R11_daily_reset_of_a_people_counter():
    site = Site("milesight-vs133", "visitor.passage", 'reset = "00:00"')
    # The bench's clock stands at 22:13:20 in Shanghai; two hours later it is past midnight.
    site.up("03d228230000", port=85, after_s=6_300)  # 9,000 at 23:58
    row = site.rows(site.up("03d203000000", port=85, after_s=300))[0]  # 3 at 00:03
    assert row.values["in_count"] == 3
    assert not Quality.REBASED & row.quality


def test_R41_period_and_total_counts_of_one_payload_stay_apart():
    site = Site("milesight-vs350", "visitor.passage")
    site.up("04cc64006400" + "05cc05000500", port=85)
    row = site.rows(site.up("04cc67006400" + "05cc63006300", port=85))[0]
    assert (row.values["in_count"], row.values["in_total_raw"]) == (3, 103)


def test_R42_a_counter_mounted_the_other_way_round():
    site = Site("milesight-vs350", "visitor.passage", "invert_direction = true")
    site.up("04cc0a001400", port=85)
    row = site.rows(site.up("04cc0b001600", port=85))[0]
    assert (row.values["in_count"], row.values["out_count"]) == (2, 1)


def test_R43_keep_alive_is_no_change_of_state():
    site = Site()
    assert len(site.rows(site.up("01"))) == 1
    assert site.rows(site.up("01ff", port=2)) == []
    changed = site.rows(site.up("00ff", port=2))
    assert changed[0].values["state"] == "free"
    assert Quality.GAP_BEFORE & changed[0].quality


def test_R43_late_keep_alive_does_not_contradict_what_is_newer():
    site = Site()
    site.up("01")
    late = site.f_cnt + 1
    old_time = show_time(site.bench.now_us + 60_000_000)
    site.up("01", fCnt=late + 1, after_s=120)
    site.f_cnt = late
    site.up("00", after_s=60, fCnt=late + 2)
    assert site.rows(site.up("01ff", port=2, after_s=5, fCnt=late, time=old_time)) == []


def test_R43_keep_alive_is_recorded_where_configured():
    site = Site(policy='heartbeat = "record"')
    site.up("01")
    assert len(site.rows(site.up("01ff", port=2))) == 1


def test_R43_parameter_packet_on_the_same_port_says_nothing_of_the_bay():
    site = Site("dingtek-do201")
    reading = site.up("80003103100101181e3c003c14000081", port=3)
    assert site.rows(reading) == []
    assert not reading.rejected


def test_R44_history_is_a_record_of_its_own_with_the_sensors_time():
    site = Site("milesight-vs350", "visitor.passage")
    when = site.bench.now_us // 1_000_000 - 86_400
    history = "20ce" + when.to_bytes(4, "little").hex() + "01" + "070002001d000800"
    rows = site.rows(site.up(history, port=85))
    assert rows[0].event_time_us == when * 1_000_000
    assert rows[0].values["in_total_raw"] == 29
    assert "in_count" not in rows[0].values
    assert Quality.LATE & rows[0].quality


def test_R45_missing_frame_counter_is_frame_zero():
    site = Site()
    site.f_cnt = -1
    reading = site.up("01")
    assert site.rows(reading, "device-link")[0].values["frame_counter"] == 0


def test_R46_truncated_total_is_no_zero():
    """The vendor's decoder reads total_out 0 here."""
    found = decode(profile("milesight-vs350"), 85, bytes.fromhex("04cc1200"))
    assert found.values == []
    assert [(one.reason, one.offset) for one in found.faults] == [("truncated", 0)]


def test_R46_what_stands_before_an_unknown_item_is_kept():
    found = decode(profile("milesight-vs330"), 85, bytes.fromhex("017562" + "038e01" + "aabb01"))
    assert found.of("health") == {"battery_pct": 98}
    assert found.of("bay") == {"state": "occupied"}
    assert [(one.reason, one.offset) for one in found.faults] == [("unknown-item", 6)]


def test_R47_impossible_temperature_is_null_and_marked():
    site = Site("dingtek-do201")
    reading = site.up("800031021706b4000001610010fff6fff08b2d00010081", port=3)
    link = site.rows(reading, "device-link")[0]
    assert link.values["temp_c"] is None
    assert Quality.OUT_OF_RANGE & link.quality
    assert not Quality.OUT_OF_RANGE & site.rows(reading)[0].quality  # the bay itself is well


def test_R48_retained_event_is_ignored():
    site = Site()
    body = {"deviceInfo": {"devEui": EUI}, "fPort": 1, "data": "AQ=="}
    message = Message(
        topic=f"application/a/device/{EUI}/event/up",
        payload=json.dumps(body).encode(),
        retained=True,
    )
    assert site.driver.decode(message, site.bench.clock_us())[0].rows == []


def test_battery_and_reception_stay_out_of_the_bays_records():
    site = Site("milesight-vs330")
    reading = site.up("017562" + "038e01", port=85, rxInfo=[{"rssi": -90, "snr": 3.5}])
    assert set(site.rows(reading)[0].values) == {"bay_no", "state"}
    assert site.rows(reading, "device-health")[0].values["battery_pct"] == 98
    assert site.rows(reading, "device-link")[0].values["rssi"] == -90


def test_the_best_of_several_gateways_is_told():
    site = Site()
    heard = [{"rssi": -110, "snr": -9}, {"rssi": -71, "snr": 4, "gatewayId": "aa"}, {"rssi": 900}]
    values = site.rows(site.up("01", rxInfo=heard), "device-link")[0].values
    assert (values["rssi"], values["gateway"]) == (-71, "aa")


def test_bay_of_a_silent_sensor_becomes_unknown_once():
    site = Site(policy='stale_after = "26h"')
    connection = Connection(site.driver._settings, clock_us=site.bench.clock_us)
    site.up("01")
    assert site.driver._tick(connection) == []
    site.bench.now_us += 27 * 3_600_000_000
    (reading,) = site.driver._tick(connection)
    site.bench.commit(reading)
    row = site.rows(reading)[0]
    assert row.values["state"] == "unknown"
    assert Quality.ESTIMATED & row.quality
    assert site.driver._tick(connection) == []
    assert site.rows(site.up("01ff", port=2))[0].values["state"] == "occupied"


def test_script_in_device_name_never_reaches_a_record():
    """ChirpStack's names are not read at all; labels come from the technician's own list."""
    site = Site()
    info = {"devEui": EUI, "deviceName": "<script>alert(1)</script>", "tags": {"a": "<b>"}}
    reading = site.up("01", deviceInfo=info)
    assert "script" not in repr(reading.rows)


@pytest.mark.parametrize(
    ("broken", "where"),
    [
        ('[[message]]\nkind="state"\nports=[1]\nlength=1\nitems=[{name="a",at=1}]', "state.a"),
        ('[[channel]]\nid=1\ntype=1\nlength=1\nitems=[{name="a",type="u16le"}]', "0101.a"),
        ("[[channel]]\nid=1\ntype=1\nlength=2\nhistory=true", "0101.length"),
        ('[[message]]\nkind="state"\nports=[1]\nlength=1\nmatch={9=[1]}', "match"),
        ('[[message]]\nkind="state"\nports=[1]\nlengt=1', "lengt"),
    ],
)
def test_a_profile_that_contradicts_itself_is_refused(broken, where):
    head = 'id = "x"\nzh = "x"\nen = "x"\nsource = "x"\n'
    with pytest.raises(ConfigError) as caught:
        read_profile(head + broken, "x.toml")
    assert where in str(caught.value)
