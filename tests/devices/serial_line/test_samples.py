"""The samples of real readers decode to their expected values; identity cards are of nobody."""

import json

import pytest

from devices.checksums import check_of
from devices.driver import Promise
from devices.facets import facets_of
from devices.frames import Framer
from devices.framing import Check, Frame, Framing, Junk, LengthField
from devices.kit import Bench, load
from devices.serial_line.config import names, profile
from devices.transforms import pseudonym, pseudonym_key
from tests.shared import SHARED

FOLDER = SHARED / "device-samples" / "serial" if SHARED else None
samples = pytest.mark.skipif(
    FOLDER is None or not FOLDER.is_dir(), reason="the samples of devices are not beside this clone"
)
KEY = pseudonym_key("kit")


def sample(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.json").read_text("utf-8"))


def sam(body: str) -> bytes:
    """An answer of a SAM-V reader."""
    data = bytes.fromhex(body)
    data = (len(data) + 1).to_bytes(2, "big") + data
    return bytes.fromhex("aaaaaa9669") + data + bytes([check_of("xor", data)])


def with_check_digit(digits: str) -> str:
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    total = sum(int(one) * weight for one, weight in zip(digits, weights))
    return digits + "10X98765432"[total % 11]


def card(number: str) -> bytes:
    """The answer to "read" for an invented person; the last digit is made right."""
    number = with_check_digit(number[:17])
    text = "甲乙".ljust(15) + "1" + "01" + number[6:14] + "无此地址".ljust(35) + number
    text += "测试机关".ljust(15) + "20200101" + "20400101"
    plain = text.encode("utf-16le").ljust(256, b"\0")
    assert plain[122:158].decode("utf-16le") == number
    return sam("00009001000400" + plain.hex() + "5a" * 1024)


def driver(name: str, more: str = "", bench: Bench | None = None):
    config = (
        f'[[device]]\nid = "x"\nprofile = "serial_line/{name}"\nresource = "r"\n'
        f'pack = "ticket.check"\nconnection = {{ port = "/dev/ttyS0" }}\n{more}'
    )
    loaded = load(config)
    assert not loaded.problems, loaded.problems
    return loaded.drivers[0].make(bench or Bench())


def refs(one, chunks) -> list:
    """Pseudonyms of the tickets that come of some bytes, and what was rejected."""
    framer = Framer(one.source.framing)
    events = [event for chunk in chunks for event in framer.feed(bytes.fromhex(chunk))]
    found = []
    for event in events:
        decoded = one.decode(event)
        if decoded is None:
            continue
        rows = [r for rows in decoded.reading.rows for r in rows.records]
        found += [row.values["ticket_ref"] for row in rows]
        found += [rejected.reason for rejected in decoded.reading.rejected]
    return found


TEXT = 'map = { ticket_ref = { path = "text", transform = "pseudonym" } }\n'


@samples
def test_gm65_cases():
    found = sample("gm65-qr-scanner")
    assert len(found["line_cases"]) == 5
    for case in found["line_cases"]:
        expected = [pseudonym(KEY, text) for text in case["out"]]
        assert refs(driver("gm65", TEXT), case["in"]) == expected, case
    told = next(f for f in found["frames"] if "from_device" in f)["from_device"]
    assert refs(driver("gm65", TEXT), [told, b"T1\r".hex()]) == [pseudonym(KEY, "T1")]


@samples
def test_rdm6300_cases():
    config = 'map = { ticket_ref = { path = "tag", transform = "pseudonym" } }\n'
    for case in sample("rdm6300-rfid")["cases"]:
        got = refs(driver("rdm6300", config), [case["hex"]])
        if case["checksum"] == "ok":
            assert got == [pseudonym(KEY, case["tag"])]
        else:
            assert got == ["bad-checksum"], case
    config = 'map = { persons = { path = "card" } }\n'
    assert sample("rdm6300-rfid")["cases"][0]["card_no"] == int("0063e9ae", 16)
    assert driver("rdm6300", config).source.message.read(b"010063E9AE", "2026-01-01")[0]["tag"]


@samples
def test_idcard_frames_all_have_right_lengths_and_checks():
    framing = driver("idcard-sam").source.framing
    found = sample("idcard-sam")
    told = [f.get("from_device") or f["to_device"] for f in found["frames"]]
    assert len(told) == 9 - 1  # the ninth is the layout of the answer
    for one in told:
        events = Framer(framing).feed(bytes.fromhex(one))
        assert [type(e) for e in events] == [Frame], one
    layout = found["text_layout_utf16le_bytes"]["id_number"]
    offset, size = profile("idcard-sam")["message"]["part"]
    assert [offset - 7, size] == layout
    sent = [bytes.fromhex(f["to_device"]) for f in found["frames"] if "to_device" in f]
    assert [step.send for step in driver("idcard-sam").source.poll.steps] == sent


@samples
def test_framings_of_the_readers_that_are_no_source_of_scans():
    """Guidance screens and command replies: the machine can cut them, no profile reads them."""
    screen = Framing(
        start=b"\x3a", fixed=4, ends=(b"\x0a",), check=Check(kind="sum8", first=0), max_bytes=16
    )
    case = sample("led-guidance-xunpeng")["cases"][0]
    (frame,) = Framer(screen).feed(bytes.fromhex(case["to_device"]))
    assert frame.body == bytes.fromhex("00780301")
    newland = Framing(start=b"\x02\x01", ends=(b";\x03",), max_bytes=128)
    (frame,) = Framer(newland).feed(bytes.fromhex(sample("newland-command")["from_device"]))
    assert frame.body.endswith(b"\x06")


def test_identity_card_keeps_region_age_and_sex_and_nothing_that_names_a_person():
    one = driver("idcard-sam")
    (frame,) = Framer(one.source.framing).feed(card("51010719900307123"))
    decoded = one.decode(frame)
    values = decoded.reading.rows[0].records[0].values
    number = with_check_digit("51010719900307123")
    assert values == {
        "ticket_ref": pseudonym(KEY, number),
        "origin_region": "510107",
        "age_band": "35-44",
        "sex": "1",
        "medium": "id_card",
    }
    assert decoded.reading.promise is Promise.C
    shown = repr(decoded.reading).encode()
    for secret in (number, "甲乙", "无此地址"):
        assert secret.encode() not in shown
        assert secret.encode("utf-16le") not in shown


@pytest.mark.parametrize(
    ("number", "facets"),
    [
        (with_check_digit("51010719900307123"), ("510107", "35-44", "1")),
        (with_check_digit("11010520200229124").lower(), ("110105", "0-6", "2")),
        (with_check_digit("11010519000101124"), ("110105", "65+", "2")),
        (with_check_digit("11010519901301124"), None),  # no such month
        (with_check_digit("11010520990101124"), None),  # not born yet
        ("510107199003071234", None),
        ("51010719900307123", None),
        ("T1234", None),
        ("٥١٠١٠٧١٩٩٠٠٣٠٧١٢٣٤", None),
    ],
)
def test_facets_of_identity_numbers(number, facets):
    assert facets_of(number, "2026-03-07") == facets


def test_age_turns_on_the_birthday():
    number = with_check_digit("51010720080308123")
    assert facets_of(number, "2026-03-07").age_band == "14-17"
    assert facets_of(number, "2026-03-08").age_band == "18-24"


def test_every_profile_makes_a_driver_with_the_least_that_a_technician_writes():
    promises = {}
    for name in names():
        more = "" if profile(name).get("map") else TEXT
        promises[name] = driver(name, more).promise
    assert promises.pop("gate") is Promise.A
    assert set(promises.values()) == {Promise.C}
    assert set(names()) == {"gate", "gm65", "idcard-sam", "line", "rdm6300"}


def test_frames_of_unknown_length_do_not_hold_the_line():
    one = Framing(
        start=b"\xaa", length=LengthField(1, 1, "big", 3), check=Check(kind="xor"), max_bytes=64
    )
    events = Framer(one).feed(b"\xaa\xff\x01\xaa\x02\x41\x42" + bytes([0x02 ^ 0x41 ^ 0x42]))
    told = [e.reason if isinstance(e, Junk) else e.body for e in events]
    assert told == ["bad-length", "noise", b"AB"]
