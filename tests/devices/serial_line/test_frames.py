"""The machine that cuts a line into frames: same frames for any split, noise costs no neighbour."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.checksums import check_of, width_of
from devices.frames import Framer
from devices.framing import JUNK_BYTES_MAX, Check, Frame, Framing, Junk, LengthField
from tests.devices.fuzz import EXAMPLES

CRLF = (b"\r\n", b"\r", b"\n")
ACK = (0x02, 0x00, 0x00, 0x01, None, 0x33, 0x31)

LINE = Framing(ends=CRLF, strip=(ACK,))
STX = Framing(start=b"\x02", ends=(b"\x03",))
BCC = Framing(start=b"\x02", ends=(b"\x03",), check=Check(kind="xor"))
BCC_AFTER = Framing(
    start=b"\x02", ends=(b"\x03",), check=Check(kind="lrc", place="after_end", with_end=True)
)
CRC_HEX = Framing(start=b"$", ends=(b"\r",), check=Check(kind="crc16-modbus", form="hex"))
CRC_BIN = Framing(
    start=b"$$", ends=(b"##",), check=Check(kind="crc16-x25", order="little", first=0)
)
RFID = Framing(
    start=b"\x02",
    fixed=10,
    ends=(b"\x03",),
    check=Check(kind="xor", form="hex", over="hex"),
    max_bytes=14,
)
SAM = Framing(
    start=bytes.fromhex("aaaaaa9669"),
    length=LengthField(5, 2, "big", 7),
    check=Check(kind="xor", first=5),
    max_bytes=2048,
)
CUT = Framing(start=b"#", fixed=6)
SHORT = Framing(ends=(b"##", b"\r"), max_bytes=9)
QUIET = Framing(max_bytes=20)
ALL = {
    "line": LINE, "short": SHORT, "quiet": QUIET, "stx": STX, "bcc": BCC, "bcc-after": BCC_AFTER, "crc-hex": CRC_HEX,
    "crc-binary": CRC_BIN, "rfid": RFID, "sam": SAM, "fixed": CUT,
}  # fmt: skip
#: A line whose frames nothing protects believes noise that looks like a frame.
CHECKED = [name for name, one in ALL.items() if one.check is not None]


def wrap(framing: Framing, body: bytes) -> bytes:
    """A frame as its device sends it; written here anew, from the manuals' words."""
    check, end = framing.check, framing.ends[0] if framing.ends else b""
    head = framing.start
    if framing.length is not None:
        size = framing.check.size if framing.check else 0
        total = framing.body_from + len(body) + size
        head += (total - framing.length.adjust).to_bytes(2, "big")
    if check is None:
        return head + body + end
    first = len(framing.start) if check.first is None else check.first
    covered = (head + body)[first:] + (end if check.with_end else b"")
    data = bytes.fromhex(covered.decode()) if check.over == "hex" else covered
    told = check_of(check.kind, data).to_bytes(width_of(check.kind), check.order)
    told = told.hex().upper().encode() if check.form == "hex" else told
    return head + body + (end + told if check.place == "after_end" else told + end)


def bodies(framing: Framing) -> st.SearchStrategy[bytes]:
    if framing.fixed == 10:
        return st.binary(min_size=5, max_size=5).map(lambda b: b.hex().upper().encode())
    if framing.fixed is not None:
        size = framing.fixed
        return st.text("0123456789AB", min_size=size, max_size=size).map(str.encode)
    if framing.length is not None:
        return st.binary(min_size=1, max_size=60)
    return st.text("0123456789ABC|公园", min_size=1, max_size=30).map(lambda t: t.encode("gb18030"))


def run(framing: Framing, pieces, *, close=True):
    machine = Framer(framing)
    events = [event for piece in pieces for event in machine.feed(piece)]
    return events + (machine.close() if close else [])


def frames(events):
    return [event.body for event in events if isinstance(event, Frame)]


def junk_bytes(events):
    return sum(event.size for event in events if isinstance(event, Junk))


def split(data: bytes, rng: random.Random):
    at = 0
    while at < len(data):
        size = rng.choice([1, 1, 2, 3, 7, 40, 5000])
        yield data[at : at + size]
        at += size


#: Ten framings each: together as many as other decoders get.
each = settings(max_examples=max(20, EXAMPLES // 10))


@pytest.mark.parametrize("name", ALL)
def test_any_split_gives_the_same_frames(name):
    framing = ALL[name]

    @each
    @given(st.lists(st.one_of(bodies(framing).map(lambda b: wrap(framing, b)),
                              st.binary(max_size=20),
                              st.just(bytes.fromhex("02000001003331"))), max_size=8),
           st.integers(0, 2**32))  # fmt: skip
    def check(parts, seed):
        data = b"".join(parts)
        whole = run(framing, [data])
        pieces = run(framing, split(data, random.Random(seed)))
        single = run(framing, (data[i : i + 1] for i in range(len(data))))
        assert frames(whole) == frames(pieces) == frames(single)
        assert junk_bytes(whole) == junk_bytes(pieces) == junk_bytes(single)

    check()


@pytest.mark.parametrize("name", CHECKED)
def test_noise_between_frames_loses_no_frame(name):
    framing = ALL[name]

    @each
    @given(st.lists(st.tuples(st.binary(max_size=12), bodies(framing)), min_size=1, max_size=5))
    def check(parts):
        data = b"".join(noise + wrap(framing, body) for noise, body in parts)
        found = frames(run(framing, [data]))
        rest = iter(found)
        # Every frame is there, in order; noise that looks like a frame with a right check is one.
        assert all(any(body == got for got in rest) for _, body in parts), found

    check()


@each
@given(st.lists(st.tuples(st.integers(0, 3), bodies(LINE)), min_size=1, max_size=6))
def test_idle_noise_before_a_line_loses_nothing(parts):
    data = b"".join(b"\x00\xff\x00"[:n] + body + b"\r\n" for n, body in parts)
    assert frames(run(LINE, [data])) == [body for _, body in parts]


@pytest.mark.parametrize("name", ALL)
def test_memory_is_bounded_whatever_comes(name):
    framing = ALL[name]
    rng = random.Random(name)
    machine = Framer(framing)
    bound = framing.max_bytes + 2 * JUNK_BYTES_MAX + 1100
    for _ in range(200):
        machine.feed(rng.choice([rng.randbytes(3000), b"A" * 3000, framing.start * 900]))
        assert machine.held_bytes <= bound


def test_an_overlong_line_is_one_piece_of_junk_and_its_rest_no_line():
    events = run(LINE, [b"A" * 3000 + b"T9999\rT1\r"], close=False)
    assert [(e.reason, e.size) for e in events if isinstance(e, Junk)] == [("overlong", 3006)]
    assert frames(events) == [b"T1"]
    events = run(LINE, [b"A" * 600 + b"\r\nT1\r"], close=False)
    assert [(e.reason, e.size) for e in events if isinstance(e, Junk)] == [("overlong", 601)]
    assert frames(events) == [b"T1"]


def test_an_end_is_waited_for_only_until_the_line_is_quiet():
    machine = Framer(LINE)
    assert machine.feed(b"T12") == []
    assert machine.is_pending
    assert machine.idle() == [Junk("half-frame", b"T12", 3)]
    assert not machine.is_pending
    assert machine.feed(b"T34\r\nT56\r") == [
        Junk("half-frame", b"T34\r", 4),  # the rest of that line, and no line of its own
        Frame(b"T56", b"T56\r"),
    ]


def test_the_rest_of_a_half_line_may_pause_again_or_be_its_end_alone():
    machine = Framer(LINE)
    machine.feed(b"T1")
    machine.idle()
    assert machine.feed(b"2") == []
    assert machine.idle() == [Junk("half-frame", b"2", 1)]
    assert machine.feed(b"\r\n") == []
    assert machine.feed(b"T3\r") == [Junk("noise", b"\r", 1), Frame(b"T3", b"T3\r")]
    machine.feed(b"T1")
    machine.idle()
    overlong = machine.feed(b"2" * 3000 + b"\rT4\r")
    assert [(one.reason, one.size) for one in overlong[:1]] == [("overlong", 3001)]
    assert frames(overlong) == [b"T4"]
    machine.feed(b"2" * 3000)
    assert [one.reason for one in machine.idle()] == ["overlong"]
    assert frames(machine.feed(b"T5\rT6\r")) == [b"T6"]


def test_after_a_long_silence_or_a_new_plug_a_line_is_a_line():
    for end in (Framer.idle, Framer.close):
        machine = Framer(LINE)
        machine.feed(b"T12")
        machine.idle()
        assert machine.is_in_tail
        assert end(machine) == []
        assert not machine.is_in_tail
        assert frames(machine.feed(b"T34\r")) == [b"T34"]


@pytest.mark.parametrize("name", [name for name, one in ALL.items() if one.start or one.check])
def test_frames_that_are_marked_or_checked_survive_a_half_one(name):
    machine = Framer(ALL[name])
    whole = wrap(ALL[name], b"0123456789" if ALL[name].fixed == 10 else b"123456")
    machine.feed(whole[: len(whole) // 2])
    machine.idle()
    assert not machine.is_in_tail
    assert len(frames(machine.feed(whole))) == 1


def test_a_line_without_any_end_is_ended_by_quiet():
    machine = Framer(Framing(max_bytes=8))
    assert machine.feed(b"T12") + machine.feed(b"34") == []
    assert machine.idle() == [Frame(b"T1234", b"T1234")]
    assert machine.feed(b"T1") == []
    assert machine.close() == [Junk("half-frame", b"T1", 2)]
    assert machine.feed(b"123456789012") == []
    assert machine.idle() == [Junk("overlong", b"12345678", 12)]


def test_carriage_return_does_not_wait_for_its_line_feed():
    machine = Framer(LINE)
    assert frames(machine.feed(b"T1\r")) == [b"T1"]
    assert frames(machine.feed(b"\nT2\r\n")) == [b"T2"]
    assert not machine.is_pending
    machine = Framer(Framing(ends=(b"\r\n", b"\r")))  # where LF alone is no end
    assert frames(machine.feed(b"T1\r") + machine.feed(b"\nT2\r\n\nT3\r")) == [
        b"T1",
        b"T2",
        b"\nT3",
    ]


def test_reply_is_stripped_from_before_within_and_across_reads():
    reply = bytes.fromhex("02000001003331")
    assert frames(run(LINE, [reply + b"T1\r"])) == [b"T1"]
    assert frames(run(LINE, [b"T1" + reply[:3], reply[3:] + b"23\r"])) == [b"T123"]
    aab = Framing(ends=(b"\r",), strip=((0x41, 0x42),))
    assert frames(run(aab, [b"AAB", b"B\r"])) == frames(run(aab, [b"A", b"ABB\r"])) == [b"AB"]


def test_a_binary_check_that_looks_like_the_end_is_no_end():
    assert wrap(BCC, b"AB") == b"\x02AB\x03\x03"
    data = wrap(BCC, b"AB") + wrap(BCC, b"C")
    assert frames(run(BCC, [data])) == [b"AB", b"C"]
    assert frames(run(BCC, (data[at : at + 1] for at in range(len(data))))) == [b"AB", b"C"]
    assert frames(run(BCC, [b"\x02\x02" + wrap(BCC, b"C")])) == [b"C"]  # XOR does not see them


def test_a_frame_cut_short_does_not_swallow_the_next():
    events = run(STX, [b"\x0212\x021234\x03"])
    assert frames(events) == [b"1234"]
    assert events[0] == Junk("half-frame", b"\x0212", 3)
    cut = wrap(BCC_AFTER, b"11111")[:4] + wrap(BCC_AFTER, b"22222")
    assert frames(run(BCC_AFTER, [cut])) == [b"22222"]
    assert frames(run(SAM, [wrap(SAM, b"x" * 40)[:20] + wrap(SAM, b"y")])) == [b"y"]


def test_good_frame_behind_a_bad_one_survives_and_the_bad_one_is_told():
    bad = bytearray(wrap(RFID, b"010063E9AE"))
    bad[4] ^= 1
    events = run(RFID, [bytes(bad) + wrap(RFID, b"01000734E0")])
    assert [type(e) for e in events] == [Junk, Frame]
    assert events[0].reason == "bad-checksum"
    assert events[0].raw == bytes(bad)


def test_the_end_of_a_fixed_frame_is_looked_at():
    one = Framing(start=b"#", fixed=3, ends=(b"\r",))
    events = run(one, [b"#12345#678\r"])
    assert frames(events) == [b"678"]
    assert events[0].reason == "bad-end"


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        ("crc16-modbus", 0x4B37), ("crc16-arc", 0xBB3D), ("crc16-ccitt", 0x29B1),
        ("crc16-xmodem", 0x31C3), ("crc16-kermit", 0x2189), ("crc16-x25", 0x906E),
        ("xor", 0x31), ("sum8", 0xDD), ("lrc", 0x23),
    ],
)  # fmt: skip
def test_checks_have_their_published_check_values(kind, check):
    assert check_of(kind, b"123456789") == check


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ({"fixed": 3, "length": LengthField(0, 1, "big", 1)}, "frame-ends-twice"),
        ({"ends": (b"\r",), "length": LengthField(0, 1, "big", 1)}, "frame-ends-twice"),
        ({"fixed": 3, "ends": (b"\r", b"\n")}, "frame-ends-twice"),
        ({"check": Check(kind="xor", place="after_end")}, "check-needs-one-end"),
        ({"start": b"|", "ends": (b"|",)}, "start-is-end"),
        ({"ends": (b"\r", b"\r\n\n")}, "end-in-end"),
    ],
)
def test_contradictions_are_named(parts, why):
    with pytest.raises(ValueError, match=why):
        Framing(**parts)
