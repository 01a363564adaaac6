"""Lists of integers as bit and byte planes: the bottom of the columnar encoding.

All of it works on whole columns at C speed: one Python step a column, never one a value. A list of
n integers is

    mode u8 (0 offset) ‖ width u8 ‖ scale u64 ‖ base i64 ‖ planes of n values
    mode u8 (1 delta)  ‖ width u8 ‖ scale u64 ‖ base i64 ‖ first i64 ‖ planes of n - 1 values
    mode u8 (2 dict)   ‖ d u32 ‖ list of d distinct values (mode 0 or 1) ‖ planes of n indices

offset: v[i] = base + scale * u[i];  delta: v[i] = v[i-1] + base + scale * u[i-1];  dict: v[i] is
the value at the index, whose width is the bit length of d - 1. `width` (0…64) is that of u.
Planes: width // 8 byte planes of n bytes, least significant first, then width % 8 bit planes of
the highest byte, lowest bit first, ceil(n / 8) bytes each, first value in the highest bit, unused
bits zero. What n and width demand is exactly what there must be.
"""

import sys
from array import array
from collections.abc import Sequence
from itertools import accumulate, repeat
from math import gcd
from operator import add, floordiv, mul, sub
from struct import Struct
from typing import TypeVar

from protocol.errors import Code, DecodeError
from protocol.limits import INT_MAX, INT_MIN

T = TypeVar("T")

_OFFSET, _DELTA, _DICT = 0, 1, 2
_OFFSET_HEAD = Struct(">BBQq")
_DELTA_HEAD = Struct(">BBQqq")
_DICT_HEAD = Struct(">BI")
# A dictionary must save this much before its second list is worth the reader's time.
_DICT_BITS_MIN = 512
_SAMPLE = 256

_LITTLE = sys.byteorder == "little"
#: For bit k: byte -> "0" or "1" as its bit k is; and back: "0" -> 0, "1" -> 1 << k.
_TO_DIGITS = tuple(bytes(48 + (byte >> k & 1) for byte in range(256)) for k in range(8))
_FROM_DIGITS = tuple(bytes(1 << k if byte == 49 else 0 for byte in range(256)) for k in range(8))
_TYPECODES = {1: "B", 2: "H", 3: "I", 4: "I", 5: "Q", 6: "Q", 7: "Q", 8: "Q"}


class Reader:
    """Takes bytes off the front of a buffer; asking for more than there is is a DecodeError."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = memoryview(data)
        self._at = 0

    def take(self, size: int) -> memoryview:
        """The next `size` bytes."""
        end = self._at + size
        if end > len(self._data):
            raise DecodeError(Code.MALFORMED, field="data", value=len(self._data))
        view = self._data[self._at : end]
        self._at = end
        return view

    def rest(self) -> memoryview:
        """All that is left."""
        return self.take(len(self._data) - self._at)

    def end(self) -> None:
        """Nothing may be left."""
        if self._at != len(self._data):
            raise DecodeError(
                Code.MALFORMED, field="data", value=len(self._data), expected=str(self._at)
            )


def pack_bits(digits: bytes) -> bytes:
    """A bitmap of ASCII digits 0 and 1, first one in the highest bit, unused bits zero."""
    if not digits:
        return b""
    count = len(digits)
    return (int(digits, 2) << (-count % 8)).to_bytes((count + 7) // 8, "big")


def unpack_bits(bitmap: bytes | memoryview, count: int, bit: int = 0) -> bytes:
    """One byte a bit: 0, or 1 << `bit`. Raises DecodeError if an unused bit is set."""
    if not count:
        return b""
    number = int.from_bytes(bitmap, "big")
    unused = -count % 8
    if number & ((1 << unused) - 1):
        raise DecodeError(Code.MALFORMED, field="bitmap", expected="unused bits zero")
    return format(number >> unused, f"0{count}b").encode().translate(_FROM_DIGITS[bit])


def pack_planes(values: Sequence[int], width: int) -> bytes:
    """Planes of unsigned values that all fit in `width` bits."""
    if not width:
        return b""
    size = (width + 7) // 8
    cells = array(_TYPECODES[size], values)
    stride, data = cells.itemsize, cells.tobytes()
    planes = [data[k if _LITTLE else stride - 1 - k :: stride] for k in range(size)]
    bits = width % 8
    if bits:
        top = planes.pop()
        planes += [pack_bits(top.translate(_TO_DIGITS[k])) for k in range(bits)]
    return b"".join(planes)


def unpack_planes(reader: Reader, count: int, width: int) -> list[int]:
    """`count` unsigned values of `width` bits. Raises DecodeError if there are fewer bytes."""
    if not width:
        return [0] * count
    whole, bits = divmod(width, 8)
    planes: list[bytes | memoryview] = [reader.take(count) for _ in range(whole)]
    if bits:
        top = 0
        for k in range(bits):
            digits = unpack_bits(reader.take((count + 7) // 8), count, k)
            top |= int.from_bytes(digits, "big")
        planes.append(top.to_bytes(count, "big"))
    if len(planes) == 1:
        return list(planes[0])
    cells = array(_TYPECODES[len(planes)])
    stride = cells.itemsize
    data = bytearray(stride * count)
    for k, plane in enumerate(planes):
        data[k if _LITTLE else stride - 1 - k :: stride] = plane
    cells.frombytes(data)
    return cells.tolist()


def encode_ints(values: Sequence[int]) -> bytes:
    """The shortest of the three forms, of one value or more.

    Raises DecodeError for what a signed 64-bit integer cannot hold.
    """
    low, high = min(values), max(values)
    if low < INT_MIN or high > INT_MAX:
        wrong = low if low < INT_MIN else high
        raise DecodeError(Code.OUT_OF_BOUNDS, field="int", value=wrong, expected="64 bits, signed")
    plain = _encode_plain(values, low, high)
    rows = len(values)
    if len(plain) * 8 <= rows + _DICT_BITS_MIN or _mostly_distinct(values):
        return plain
    distinct = set(values)
    count = len(distinct)
    width = (count - 1).bit_length()
    if rows * width + _DICT_BITS_MIN >= len(plain) * 8 or count * 2 > rows:
        return plain
    words = sorted(distinct)
    index = dict(zip(words, range(count), strict=True))
    table = _encode_plain(words, low, high)
    cells = pack_planes(list(map(index.__getitem__, values)), width)
    coded = b"".join((_DICT_HEAD.pack(_DICT, count), table, cells))
    return coded if len(coded) * 8 + _DICT_BITS_MIN < len(plain) * 8 else plain


def _mostly_distinct(values: Sequence[int]) -> bool:
    """Whether the first values say that a dictionary is not worth looking for."""
    sample = values[:_SAMPLE]
    return len(sample) == _SAMPLE and len(set(sample)) * 16 > _SAMPLE * 15


def decode_ints(reader: Reader, count: int) -> list[int]:
    """`count` signed 64-bit integers, as `encode_ints` wrote them. Raises DecodeError."""
    mode = reader.take(1)[0]
    if mode != _DICT:
        return _decode_plain(reader, mode, count)
    size = int.from_bytes(reader.take(4), "big")
    if not 1 <= size <= count:
        raise DecodeError(Code.OUT_OF_BOUNDS, field="size", value=size, expected=f"1..{count}")
    words = _decode_plain(reader, reader.take(1)[0], size)
    return look_up(words, unpack_planes(reader, count, (size - 1).bit_length()))


def look_up(words: Sequence[T], indices: Sequence[int]) -> list[T]:
    """Dictionary words by index. Raises DecodeError for an index outside the dictionary."""
    try:
        return list(map(words.__getitem__, indices))
    except IndexError as error:
        raise DecodeError(Code.OUT_OF_BOUNDS, field="index", value=max(indices)) from error


def _encode_plain(values: Sequence[int], low: int, high: int) -> bytes:
    """Offset or delta form, whichever spans the smaller range.

    A divisor of all offsets divides all steps too, so the smaller range is also the narrower form
    after scaling, and only one of them has to be worked out.
    """
    if low == high:
        return _OFFSET_HEAD.pack(_OFFSET, 0, 1, low)
    steps = list(map(sub, values[1:], values))
    base, top = min(steps), max(steps)
    if (top - base).bit_length() < (high - low).bit_length() and INT_MIN <= base <= INT_MAX:
        rises = list(map(sub, steps, repeat(base))) if base else steps
        scale, width = _scale(rises, top - base)
        if scale < 1 << 64:
            head = _DELTA_HEAD.pack(_DELTA, width, scale, base, values[0])
            return head + _pack_scaled(rises, scale, width)
    offsets = list(map(sub, values, repeat(low))) if low else values
    scale, width = _scale(offsets, high - low)
    return _OFFSET_HEAD.pack(_OFFSET, width, scale, low) + _pack_scaled(offsets, scale, width)


def _scale(offsets: Sequence[int], high: int) -> tuple[int, int]:
    """Greatest common divisor of offsets of 0…high, and the bits of the largest quotient."""
    if not high:
        return 1, 0
    # Most columns show within a few values that they have no divisor.
    scale = gcd(*offsets[:16])
    if scale != 1:
        scale = gcd(*offsets)
    return scale, (high // scale).bit_length()


def _pack_scaled(offsets: Sequence[int], scale: int, width: int) -> bytes:
    if scale != 1 and width:
        offsets = list(map(floordiv, offsets, repeat(scale)))
    return pack_planes(offsets, width)


def _decode_plain(reader: Reader, mode: int, count: int) -> list[int]:
    if mode not in {_OFFSET, _DELTA}:
        raise DecodeError(Code.MALFORMED, field="mode", value=mode, expected="0, 1 or 2")
    width = reader.take(1)[0]
    if width > 64 or not count:
        raise DecodeError(Code.MALFORMED, field="width", value=width, expected="0..64")
    scale = int.from_bytes(reader.take(8), "big")
    base = int.from_bytes(reader.take(8), "big", signed=True)
    if mode == _OFFSET:
        cells = _scaled(unpack_planes(reader, count, width), scale, base)
    else:
        first = int.from_bytes(reader.take(8), "big", signed=True)
        steps = _scaled(unpack_planes(reader, count - 1, width), scale, base)
        cells = list(accumulate(steps, add, initial=first))
    if min(cells) < INT_MIN or max(cells) > INT_MAX:
        raise DecodeError(Code.OUT_OF_BOUNDS, field="int", expected="64 bits, signed")
    return cells


def _scaled(cells: list[int], scale: int, base: int) -> list[int]:
    if scale != 1:
        cells = list(map(mul, cells, repeat(scale)))
    return list(map(add, cells, repeat(base))) if base else cells
