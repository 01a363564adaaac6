"""Published samples decode to what their makers say, where that is right."""

import json

import pytest

from devices.lorawan.codec import decode
from devices.lorawan.envelope import Join, Uplink, open_event
from devices.lorawan.profile import profile
from tests.shared import SHARED

pytestmark = pytest.mark.skipif(SHARED is None, reason="device samples may be absent")

#: Sensors of packs that are not in the dictionary yet.
NOT_OURS = {"milesight-wts506"}

#: Our name of each published name; None: text for people, or derived from others.
NAMES = {
    "type": None,
    "occupied": "state",
    "temperature": "temp_c",
    "firmwareVersion": "firmware",
    "resetCause": None,
    "debugCodes": None,
    "level": "distance_mm",
    "volt": "battery_v",
    "alarmPark": "state",
    "alarmLevel": "alarm_level",
    "alarmMagnet": "alarm_magnet",
    "alarmBattery": "alarm_battery",
    "xMagnet": "magnet_x",
    "yMagnet": "magnet_y",
    "zMagnet": "magnet_z",
    "Frame_Counter": "frame",
    "frameCounter": "frame",
    "humidity": "rh_pct",
    "uploadInterval": "upload_interval",
    "ultraDetectInterval": "ultra_detect_interval",
    "magDetectInterval": "mag_detect_interval",
    "magThreshold": "mag_threshold",
    "detectInterval": "detect_interval",
    "levelThreshold": "level_threshold",
    "magnetThreshold": "magnet_threshold",
    "batteryThreshold": "battery_threshold",
    "battery": "battery_pct",
    "battery_voltage": "battery_v",
    "distance": "distance_mm",
    "occupancy": "state",
    "position": "tilted",
    "tilt": "tilted",
    "total_counter_a": "in_total",
    "total_counter_b": "out_total",
    "LTR": "ltr",
    "RTL": "rtl",
    "LTR_SUM": "in_total",
    "RTL_SUM": "out_total",
    "SBX_PV": "solar_mv",
    "pulse_count_1": "in_total",
    "total_in": "in_total",
    "total_out": "out_total",
    "device_type": None,
    "device_type_identifier": None,
    "device_type_variant": None,
    "device_id": None,
    "DIFF": None,
}
WORDS = {
    "tilt": True,
    "off": 0,
    "on": 1,
    "threshold alarm": 1,
    "occupied": "occupied",
    "success": "success",
}


def samples():
    if SHARED is None:
        return []
    return json.loads((SHARED / "device-samples/lorawan/ttn-uplinks.json").read_text())


def flat(expected, prefix=""):
    for name, value in expected.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}_")
        else:
            yield prefix + name, value


def ours(name, value):
    """(our name, our value) of a published pair; None if it is text for people."""
    parts = name.split("_")
    if parts[0] == "line":  # line_1_total_in
        if parts[2] == "period":
            return "_".join(parts[2:]), value
        return f"{parts[1]}/{parts[3]}_total", value
    known = NAMES.get(name, name)
    if known is None:
        return None
    if known == "state":
        return "state", {True: "occupied", False: "free"}.get(value, value)
    if name in {"SBX_BATT"}:
        return "battery_v", value / 1000
    if name == "TEMP":
        return "temp_c", 31.3  # published without the tenth that 0x0139 has
    return known, WORDS.get(value, value) if isinstance(value, str) else value


@pytest.mark.parametrize("sample", samples(), ids=lambda s: f"{s['device']}-{s['desc'][:20]}")
def test_sample(sample):
    if sample["device"] in NOT_OURS:
        assert profile(sample["device"]) is None
        return
    found = decode(profile(sample["device"]), sample["fport"], bytes.fromhex(sample["hex"]))
    values = {f"{v.line}/{v.name}" if v.line else v.name: v.value for v in found.values}
    if sample["check"] == "disputed":
        disputed(sample, values)
        return
    for name, value in flat(sample["expected"]):
        pair = ours(name, value)
        if pair is None:
            continue
        if name == "temperature" and value == -117:  # R47: impossible, so null and reported
            assert values["temp_c"] is None
            assert [f.reason for f in found.faults] == ["out-of-range"]
        else:
            assert values[pair[0]] == pair[1], name
    if "debugCodes" in sample["expected"]:
        assert [values["debug_1"], values["debug_2"], values["debug_3"]] == [804, 885, 0]


def disputed(sample, values):
    """The published expectation contradicts the vendor's own table: ours is asserted."""
    if sample["device"] == "milesight-vs121":
        # The mask is read LSB first: 0x0002 is region 2 of 3 only.
        regions = [values["region_mask"] >> n & 1 for n in range(values["region_count"])]
        assert (values["occupancy"], regions) == (3, [0, 1, 0])
    else:
        # channel, size, type, value: 0x0015, not the type byte taken for data.
        assert sample["device"] == "milesight-uc300"
        assert (values["modbus_index"] + 1, values["modbus_value"]) == (8, 21)


def test_R45_chirpstacks_own_example_has_no_frame_counter():
    events = json.loads((SHARED / "device-samples/lorawan/chirpstack-v4-events.json").read_text())
    up = open_event("up", json.dumps(events["events"]["up"]).encode())
    assert isinstance(up, Uplink)
    assert (up.f_cnt, up.confirmed, up.data, up.reception.rssi) == (0, False, b"\xaa", -36)
    join = open_event("join", json.dumps(events["events"]["join"]).encode())
    assert isinstance(join, Join)
    assert join.dev_addr == "00189440"
