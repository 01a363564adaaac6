"""The bound on packets: whatever the pieces in which they come."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.mqtt.sieve import Sieve, _fixed
from tests.devices.mqtt.test_client import oversize, publish

BYTES_MAX = 1024


def packets(data: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(data):
        body, length = _fixed(data, at)
        assert body
        found.append(data[at : body + length])
        at = body + length
    return found


@given(
    st.lists(st.sampled_from([0, 5, 900, 1013, 1014, 5_000, 70_000]), max_size=6),
    st.lists(st.integers(1, 4_000), min_size=1, max_size=50),
    st.booleans(),
)
def test_large_ones_are_cut_down_and_the_others_go_on_untouched(lengths, pieces, five):
    sieve = Sieve(bytes_max=BYTES_MAX, is_five=five)
    sent = [oversize(five, length, number=n + 1) for n, length in enumerate(lengths)]
    stream, out, at, turn = b"".join(sent), b"", 0, 0
    while at < len(stream):
        step = pieces[turn % len(pieces)]
        out += sieve.strain(stream[at : at + step])
        at, turn = at + step, turn + 1
    got = packets(out)
    assert len(got) == len(sent)
    for one, whole, length in zip(got, sent, lengths, strict=True):
        if len(whole) <= BYTES_MAX:
            assert one == whole
            continue
        head = 2 + len(b"gate/1") + 2
        body, _ = _fixed(one, 0)
        start, _ = _fixed(whole, 0)
        assert one[body : body + head] == whole[start : start + head]
        assert sieve.left_out(one[body + head + five :]) == length + five
    assert not sieve.is_skipping


def test_a_publisher_cannot_pretend_that_something_was_left_out():
    sieve = Sieve(bytes_max=BYTES_MAX, is_five=False)
    other = Sieve(bytes_max=BYTES_MAX, is_five=False)
    cut = packets(other.strain(oversize(False, 9_000)))[0]
    assert other.left_out(cut[12:]) == 9_000
    assert sieve.left_out(cut[12:]) == 0


@pytest.mark.parametrize(
    "data",
    [
        b"\x32\xff\xff\xff\xff\x01",  # a length of five bytes
        b"\x90\xff\xff\xff\x7f",  # no message
        b"\x32\x90\x4e\xff\xff",  # a topic that is longer than its packet
    ],
    ids=["length", "kind", "topic"],
)
def test_what_is_no_packet_ends_the_connection_after_what_came_before(data):
    sieve = Sieve(bytes_max=BYTES_MAX, is_five=False)
    assert sieve.strain(publish(1) + data) == publish(1) + b"\xf0\xff\xff\xff\xff\xff"


def test_a_long_topic_alone_goes_on():
    sieve = Sieve(bytes_max=BYTES_MAX, is_five=False)
    whole = oversize(False, 0, topic=b"t" * 3_000)
    assert sieve.strain(whole) == whole
