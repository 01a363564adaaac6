"""Abuse of segments, each case by its name in the protocol: bent, and where it can be, signed again."""

import struct

import msgpack
import pytest
import zstandard

from protocol.columns import Budget, decode_part
from protocol.errors import Code, DecodeError, ShanmenError, TooLargeError, VerifyError
from protocol.frame import pack_frame
from protocol.grades import Grade
from protocol.limits import BODY_BYTES_MAX, HEADER_BYTES_MAX, RAW_BYTES_MAX
from protocol.planes import encode_ints, pack_planes
from protocol.segment import check_body, open_part, open_segment, parse, part_bytes
from tests.protocol.bend import header_list, resigned, stored_hash, with_plain
from tests.protocol.fuzzing import bounded_memory
from tests.protocol.makers import (
    AGENT,
    OTHER_AGENT,
    columns,
    epoch_keys,
    sealed,
)

SEALED = sealed()
OPEN = sealed(grade=Grade.GENERALLY_OPEN)


def read(raw: bytes) -> object:
    """All that a reader does, in the order of the law."""
    segment = parse(raw).verify(AGENT.public)
    check_body(segment)
    return open_segment(segment, epoch_keys())


def test_header_field_flipped():
    """Every bit of prelude, header and signature is under the signature."""
    raw = bytearray(SEALED.raw)
    for at in range(SEALED.prelude.head_bytes):
        for bit in (1, 0x80):
            raw[at] ^= bit
            with pytest.raises(ShanmenError):
                parse(bytes(raw)).verify(AGENT.public)
            raw[at] ^= bit
    assert bytes(raw) == SEALED.raw


def test_part_flipped():
    raw = bytearray(SEALED.raw)
    for at in range(SEALED.prelude.head_bytes, len(raw), 17):
        raw[at] ^= 4
        segment = parse(bytes(raw)).verify(AGENT.public)  # the head is good: the chain can go on
        with pytest.raises(VerifyError, match="hash-mismatch"):
            check_body(segment)
        raw[at] ^= 4
    # And where the agent's own signature covers the flipped bytes, the AEAD still refuses.
    header, body = header_list(SEALED), bytearray(SEALED.body)
    body[10] ^= 1
    length = header[13][0][1]
    header[13][0][4] = stored_hash(bytes(body[:length]))
    segment = parse(resigned(SEALED, header=header, body=bytes(body))).verify(AGENT.public)
    check_body(segment)
    with pytest.raises(VerifyError, match="authentication-failed"):
        open_part(segment, 0, epoch_keys()[0])


@pytest.mark.parametrize("delta", [-1, 1, 1000])
@pytest.mark.parametrize("which", ["header_bytes", "body_bytes"])
def test_prelude_lengths_lie(which, delta):
    wrong = resigned(SEALED, **{which: getattr(SEALED.prelude, which) + delta})
    with pytest.raises(ShanmenError):
        read(wrong)


@pytest.mark.parametrize("delta", [-1, 1, 2**20])
def test_part_lengths_do_not_add_up(delta):
    header = header_list(SEALED)
    header[13][1][1] += delta
    with pytest.raises(DecodeError):
        parse(resigned(SEALED, header=header)).verify(AGENT.public)
    swapped = header_list(SEALED)  # the sum is right, the border is not
    swapped[13][0][1] += 1
    swapped[13][1][1] -= 1
    segment = parse(resigned(SEALED, header=swapped)).verify(AGENT.public)
    with pytest.raises(VerifyError, match="hash-mismatch"):
        check_body(segment)


@pytest.mark.parametrize("groups", [(1, 0), (0, 0), (1, 1), (0, 8), (0, 255)])
def test_groups_out_of_order(groups):
    header = header_list(SEALED)
    for part, group in zip(header[13], groups, strict=True):
        part[0] = group
    with pytest.raises(DecodeError):
        parse(resigned(SEALED, header=header)).verify(AGENT.public)


def test_trailing_bytes_after_segment():
    for more in (b"\0", SEALED.raw):
        with pytest.raises(DecodeError) as caught:
            parse(SEALED.raw + more)
        assert caught.value.code is Code.TRAILING_BYTES
    with pytest.raises(DecodeError):
        parse(SEALED.head + b"\0", body=False)
    for short in (SEALED.raw[:-1], SEALED.head, b"", SEALED.raw[:27]):
        with pytest.raises(DecodeError):
            parse(short)
    with pytest.raises(DecodeError):  # inside the header, signed again
        parse(resigned(SEALED, header_raw=SEALED.header_bytes + b"\0")).verify(AGENT.public)


def test_oversize_header():
    header = header_list(SEALED)
    header[16] = b"r" * 5000
    raw = resigned(SEALED, header=header)
    with pytest.raises(TooLargeError):
        parse(raw)
    assert HEADER_BYTES_MAX < 5000
    header = header_list(SEALED)
    header[16] = b"r" * 513  # fits the header, but not its own bound
    with pytest.raises(DecodeError):
        parse(resigned(SEALED, header=header)).verify(AGENT.public)


def test_oversize_body():
    raw = resigned(SEALED, body=b"\0" * 10, body_bytes=BODY_BYTES_MAX + 1)
    with pytest.raises(TooLargeError):
        parse(raw)
    with pytest.raises(TooLargeError):
        parse(resigned(SEALED, body_bytes=0, body=b""))


def test_zip_bomb():
    """64 MiB of zeros in a few kilobytes: read within the budget and refused; one byte more: unread."""
    bomb = pack_frame(bytes(RAW_BYTES_MAX))
    assert len(bomb) < 10_000
    raw = with_plain(OPEN, 0, bomb)
    with bounded_memory(), pytest.raises(DecodeError):
        read(raw)
    over = zstandard.ZstdCompressor().compress(bytes(RAW_BYTES_MAX + 1))
    with pytest.raises(TooLargeError):
        read(with_plain(OPEN, 0, struct.pack(">II", RAW_BYTES_MAX + 1, len(over)) + over))
    claimed = struct.pack(">II", 1000, len(bomb) - 8) + bomb[8:]  # lies about what is inside
    with pytest.raises(DecodeError):
        read(with_plain(OPEN, 0, claimed))


def part_of(columns_: dict[str, tuple[str, str, bytes, bytes]]) -> bytes:
    """A part by hand: name -> (type, encoding, nulls, data)."""
    head = msgpack.packb(
        {
            name: {"type": t, "encoding": e, "nulls": len(n), "data": len(d)}
            for name, (t, e, n, d) in columns_.items()
        }
    )
    return pack_frame(
        len(head).to_bytes(4, "big") + head + b"".join(n + d for _, _, n, d in columns_.values())
    )


def counted(raw: bytes, count: int) -> bytes:
    """The same segment, signed again with another count of records."""
    segment = parse(raw).verify(AGENT.public)
    header = header_list(segment)
    header[9] = count
    return resigned(segment, header=header)


def test_dictionary_bomb():
    """One word of a megabyte, a hundred thousand times: 100 GB in ten kilobytes."""
    word = b"w" * 2**20
    data = (1).to_bytes(4, "big") + encode_ints([len(word)]) + word  # one word: indices of 0 bits
    bomb = counted(
        with_plain(OPEN, 1, part_of({"visitor": ("string", "dict", b"", data)})), 100_000
    )
    segment = parse(bomb).verify(AGENT.public)
    with bounded_memory(8 << 20), pytest.raises(TooLargeError):
        open_part(segment, 1, None)
    # A dictionary larger than the rows, and columns without end, cost as little.
    wide = (200).to_bytes(4, "big") + encode_ints([1] * 200) + b"x" * 200 + bytes(20)
    with pytest.raises(DecodeError):
        read(with_plain(OPEN, 1, part_of({"visitor": ("bytes", "dict", b"", wide)})))
    many = {f"c{n}": ("int", "ints", b"", encode_ints([5])) for n in range(256)}
    crowded = parse(counted(with_plain(OPEN, 1, part_of(many)), 100_000)).verify(AGENT.public)
    with bounded_memory(), pytest.raises(TooLargeError):
        open_part(crowded, 1, None)
    with pytest.raises(DecodeError):
        read(with_plain(OPEN, 1, part_of({f"c{n}": ("int", "null", b"", b"") for n in range(257)})))


ROWS = 12_500  # an eighth of the greatest segment, with an eighth of the budget


def texts(size: int) -> bytes:
    long = [b"%06d" % n + b"x" * (size - 6) for n in range(ROWS)]
    data = encode_ints([size] * ROWS) + b"".join(long)
    return part_of({"t": ("string", "plain", b"", data)})


def numbers(count: int) -> bytes:
    data = encode_ints([n**3 % (2**61 - 1) - 2**60 for n in range(ROWS)])
    return part_of({f"n{n}": ("int", "ints", b"", data) for n in range(count)})


def words(count: int) -> bytes:
    table = encode_ints([5] * ROWS) + b"".join(b"%05d" % n for n in range(ROWS))
    data = ROWS.to_bytes(4, "big") + table + pack_planes(range(ROWS), 14)
    return part_of({f"w{n}": ("bytes", "dict", b"", data) for n in range(count)})


@pytest.mark.parametrize(
    ("make", "fits", "over"), [(texts, 250, 310), (numbers, 13, 17), (words, 8, 16)]
)
def test_the_largest_part_within_the_budget_stays_within_memory(make, fits, over):
    """What is just not refused: the peak is that of the budget, not a multiple of it."""
    part, more = make(fits), make(over)
    with bounded_memory(10 << 20):
        decoded = decode_part(part, ROWS, Budget(8 << 20))
        assert {len(column) for column in decoded.values()} == {ROWS}
        del decoded
        with pytest.raises(TooLargeError):
            decode_part(more, ROWS, Budget(8 << 20))


def test_zstd_second_frame():
    plain = bytes(part_bytes(OPEN, 0))
    raw_length, frame_length = struct.unpack(">II", plain[:8])
    frame = plain[8 : 8 + frame_length]
    skippable = b"\x50\x2a\x4d\x18" + (3).to_bytes(4, "little") + b"abc"
    for more in (frame, skippable, zstandard.compress(b"")):
        for both in (frame + more, more + frame):
            with pytest.raises(DecodeError):
                read(with_plain(OPEN, 0, struct.pack(">II", raw_length, len(both)) + both))


def test_padding_not_zero():
    plain = bytearray(part_bytes(OPEN, 1))
    assert plain[-1] == 0  # the personal group is padded
    assert read(with_plain(OPEN, 1, bytes(plain)))
    plain[-1] = 1
    with pytest.raises(DecodeError):
        read(with_plain(OPEN, 1, bytes(plain)))
    with pytest.raises(DecodeError):  # zeros, but not to the Padmé length
        read(with_plain(OPEN, 1, bytes(plain[:-1]) + b"\0" * 7))


def test_part_copied_to_other_agent():
    """Another agent signs a header around stolen ciphertext: it opens under nobody's name."""
    header = header_list(SEALED)
    header[0] = OTHER_AGENT.principal
    stolen = parse(resigned(SEALED, header=header, signer=OTHER_AGENT)).verify(OTHER_AGENT.public)
    check_body(stolen)
    with pytest.raises(VerifyError, match="authentication-failed"):
        open_segment(stolen, epoch_keys())
    # Every other thing the part is bound to, changed alone by its own agent.
    for field, value in ((2, b"another-stream-1"), (3, 1), (5, b"\x0f" * 32), (7, 4)):
        header = header_list(SEALED)
        header[field] = value
        if field == 3:
            header[4] = b"\x01" * 32
        moved = parse(resigned(SEALED, header=header)).verify(AGENT.public)
        check_body(moved)
        with pytest.raises(VerifyError, match="authentication-failed"):
            open_segment(moved, epoch_keys())


def test_suite_differs_from_entry():
    """Suite and entry are bound: a header cannot claim another suite, nor a part another entry."""
    with pytest.raises(DecodeError) as caught:
        parse(resigned(SEALED, suite=2))
    assert caught.value.code is Code.UNKNOWN_SUITE
    assert parse(SEALED.raw).prelude.suite == 1  # what the hub compares with the entry's
    header = header_list(SEALED)
    header[5] = b"\xee" * 32
    other = parse(resigned(SEALED, header=header)).verify(AGENT.public)
    with pytest.raises(VerifyError):
        open_segment(other, epoch_keys())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (0, b"short"), (1, None), (3, -1), (3, 2**63), (4, b"\x01" * 32), (6, 2**32), (7, 0), (7, 7),
        (8, -1), (9, 0), (9, 100_001), (10, 2**64 - 1), (11, -(2**63)), (12, [0, -1, 0]), (12, [0, 0, 9]),
        (13, []), (14, []), (14, [[b"run-id-8", 5, 4]]), (14, [[b"run", 0, 4]]), (15, 1), (15, False), (16, "text"),
        (17, [b"s" * 16, 0, b"i" * 32, "r" * 300]), (17, [b"s" * 16, 0, b"i" * 32]),
    ],
)  # fmt: skip
def test_signed_headers_that_break_a_rule(field, value):
    header = header_list(SEALED)
    header[field] = value
    with pytest.raises(DecodeError):
        parse(resigned(SEALED, header=header)).verify(AGENT.public)


def test_header_longer_or_shorter_than_its_fields():
    for header in (header_list(SEALED) + [None], header_list(SEALED)[:14], {"agent": 1}, 7):
        with pytest.raises(DecodeError):
            parse(resigned(SEALED, header=header)).verify(AGENT.public)


def test_open_grade_carries_no_nonce_and_sealed_grade_must():
    header = header_list(OPEN)
    header[13][0][2] = b"n" * 24
    with pytest.raises(DecodeError):
        parse(resigned(OPEN, header=header)).verify(AGENT.public)
    header = header_list(SEALED)
    header[13][0][3] = b""
    with pytest.raises(DecodeError):
        parse(resigned(SEALED, header=header)).verify(AGENT.public)


def test_fixed_columns_stand_in_group_0_and_only_there():
    cols = columns()
    double = part_of({"@event_time": ("int", "ints", b"", encode_ints(cols.event_time))})
    with pytest.raises(DecodeError):
        read(with_plain(OPEN, 1, double))
    with pytest.raises(DecodeError):
        read(with_plain(OPEN, 0, part_of({"code": ("int", "ints", b"", encode_ints([1] * 20))})))
    same = part_of({"code": ("int", "ints", b"", encode_ints([1] * 20))})
    with pytest.raises(DecodeError):
        read(with_plain(OPEN, 1, same))
