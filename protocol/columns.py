"""Records of one column group as typed columns in one compressed frame.

    plain = raw length u32 ‖ frame length u32 ‖ one zstd frame ‖ zeros (only where padding is asked)
    raw   = directory length u32 ‖ directory ‖ for each column, in its order: nulls ‖ data
    directory = msgpack map: column name -> {type, encoding, nulls, data}, the last two in bytes

nulls is a bitmap (first row in the highest bit, 1 = null) or empty where no row is null; data holds
the other rows only. The form of data by type and encoding (lists of integers: `planes`):

| type | encoding | data |
|---|---|---|
| any | null | nothing: every row is null, and nulls is empty |
| bool | bits | bitmap |
| int | ints | integers |
| float | decimal | exponent u8 (0…9) ‖ integers (at most 2^53): value = integer / 10^exponent |
| float | bits | integers: the IEEE 754 bits as signed 64-bit |
| string, bytes | plain | integers: lengths in bytes ‖ the bytes, one after another (UTF-8) |
| string, bytes | dict | d u32 ‖ lengths and bytes of d words, as plain ‖ planes of their indices |

The columns that every record has, @event_time @gateway_time @device_time @device @quality, travel
in group 0. Reading is bounded before it is done: a `Budget` of bytes, taken from what the frame and
the rows will need, is shared by all parts of a segment.
"""

from array import array
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise, repeat
from math import isfinite
from operator import is_, mul, truediv
from typing import TypeVar

import msgspec

from protocol import wire
from protocol.errors import Code, DecodeError, TooLargeError
from protocol.frame import pack_frame, unpack_frame
from protocol.ids import WireU32
from protocol.limits import (
    COLUMN_NAME_CHARS_MAX,
    COLUMNS_MAX,
    DECODED_BYTES_MAX,
    DIRECTORY_BYTES_MAX,
)
from protocol.planes import (
    Reader,
    decode_ints,
    encode_ints,
    look_up,
    pack_bits,
    pack_planes,
    unpack_bits,
    unpack_planes,
)
from protocol.records import Columns, Value

#: The columns of every record, in group 0: three times (µs UTC), device, quality marks.
FIXED = ("@event_time", "@gateway_time", "@device_time", "@device", "@quality")

T = TypeVar("T", str, bytes)
_Encoded = tuple[str, bytes, int]  # encoding, data, bytes of text that a reader will hold
_Decoder = Callable[[Reader, int, "Budget"], list[Value]]

_EXPONENT_MAX, _EXPONENT_TRIED_MAX = 9, 6
_EXACT_MAX = 2**53
_DIGITS = bytes.maketrans(b"\x00\x01", b"01")
_INVERTED = bytes.maketrans(b"\x00\x01", b"\x01\x00")
# What a row costs a reader (CPython, 64 bits): a reference, and a number or a text of its own.
_REFERENCE = 8
_COSTS = {"bool": 8, "int": 40, "float": 32, "string": 64, "bytes": 48}


class Column(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One column in the directory; the table above says how its data is laid out."""

    type: str  # bool, int, float, string, bytes
    encoding: str  # null, bits, ints, decimal, plain, dict
    nulls: WireU32  # bytes of the bitmap; 0: no row is null
    data: WireU32  # bytes


class Budget:
    """Bytes that decoding one segment may still take; over it is a TooLargeError."""

    __slots__ = ("left",)

    def __init__(self, total: int = DECODED_BYTES_MAX) -> None:
        self.left = total

    def spend(self, size: int) -> None:
        """Take `size` bytes before they are allocated."""
        if size > self.left:
            raise TooLargeError(
                Code.TOO_LARGE, field="decoded bytes", value=size, expected=f"≤ {self.left}"
            )
        self.left -= size

    def release(self, size: int) -> None:
        """Give back what was freed again."""
        self.left += size


def encode_part(
    cols: Columns, fields: Sequence[str], *, fixed: bool = False, level: int = 3, pad: bool = False
) -> bytes:
    """The plain bytes of one part: the named fields of `cols`, and the fixed columns if `fixed`.

    pad: append zeros to the Padmé length (personal groups, and packs that ask). Raises
    TooLargeError if a reader would refuse the result, DecodeError for a value no column can hold.
    """
    columns: dict[str, Sequence[Value]] = {}
    if fixed:
        columns.update(fixed_columns(cols))
    columns.update((name, cols.fields[name]) for name in fields if name in cols.fields)
    budget = Budget()
    if len(columns) > COLUMNS_MAX:
        raise TooLargeError(Code.TOO_LARGE, field="columns", value=len(columns))
    directory: dict[str, Column] = {}
    body: list[bytes] = []
    for name, values in columns.items():
        directory[name], nulls, data = _encode_column(name, values, cols.count, budget)
        body += (nulls, data)
    head = wire.encode(directory)
    raw = b"".join((len(head).to_bytes(4, "big"), head, *body))
    budget.spend(len(raw))
    return pack_frame(raw, level=level, pad=pad)


def decode_part(
    data: bytes | memoryview, count: int, budget: Budget | None = None
) -> dict[str, list[Value]]:
    """Columns of one part by name, `count` rows each. Raises DecodeError, TooLargeError."""
    budget = budget or Budget()
    raw = unpack_frame(data, budget.spend)
    reader = Reader(raw)
    head = reader.take(int.from_bytes(reader.take(4), "big"))
    columns = wire.decode(head, dict[str, Column], limit=DIRECTORY_BYTES_MAX)
    decoded: dict[str, list[Value]] = {}
    for name, column in columns.items():
        present = _present(name, reader.take(column.nulls), count)
        values = Reader(reader.take(column.data))
        decoded[name] = _decode_column(name, column, present, values, count, budget)
        values.end()
    reader.end()
    budget.release(len(raw))
    return decoded


def fixed_columns(cols: Columns) -> Mapping[str, Sequence[Value]]:
    """The columns of every record, by the names they travel under."""
    lists: tuple[Sequence[Value], ...] = (
        cols.event_time,
        cols.gateway_time,
        cols.device_time,
        cols.device,
        cols.quality,
    )
    return dict(zip(FIXED, lists, strict=True))


def _encode_column(
    name: str, values: Sequence[Value], count: int, budget: Budget
) -> tuple[Column, bytes, bytes]:
    if not 1 <= len(name) <= COLUMN_NAME_CHARS_MAX:
        raise DecodeError(Code.OUT_OF_BOUNDS, field="column", value=name)
    if len(values) != count or not count:
        raise DecodeError(Code.MALFORMED, field=name, value=len(values), expected=str(count))
    kinds = set(map(type, values))
    nulls = b""
    if type(None) in kinds:
        kinds.discard(type(None))
        if not kinds:
            budget.spend(count * _REFERENCE)
            return Column(type="int", encoding="null", nulls=0, data=0), b"", b""
        nulls = pack_bits(bytes(map(is_, values, repeat(None))).translate(_DIGITS))
        values = [value for value in values if value is not None]
    if kinds == {int, float}:
        values, kinds = list(map(float, values)), {float}  # type: ignore[arg-type]  # numbers only
    form = _ENCODERS.get(kinds.pop()) if len(kinds) == 1 else None
    if form is None:
        raise DecodeError(Code.WRONG_TYPE, field=name, expected="values of one type")
    kind, encode = form
    encoding, data, text_bytes = encode(values)
    budget.spend(count * _COSTS[kind] + text_bytes)
    column = Column(type=kind, encoding=encoding, nulls=len(nulls), data=len(data))
    return column, nulls, data


def _encode_bools(values: Sequence[bool]) -> _Encoded:
    return "bits", pack_bits(bytes(values).translate(_DIGITS)), 0


def _encode_integers(values: Sequence[int]) -> _Encoded:
    return "ints", encode_ints(values), 0


def _encode_floats(values: Sequence[float]) -> _Encoded:
    if not isfinite(sum(values)) and not all(map(isfinite, values)):
        raise DecodeError(Code.NOT_FINITE, field="float", expected="finite numbers")
    bits = array("d", values).tobytes()
    exponent = _places(values[:8])
    top, bottom = max(values), min(values)
    largest = max(-bottom, top)
    while exponent <= _EXPONENT_TRIED_MAX and largest * 10**exponent <= _EXACT_MAX:
        integers = list(map(round, map(mul, values, repeat(10**exponent))))
        exact = array("d", map(truediv, integers, repeat(10**exponent)))
        if exact.tobytes() == bits:
            return "decimal", bytes([exponent]) + encode_ints(integers), 0
        exponent += 1
    return "bits", encode_ints(array("q", bits)), 0


def _places(sample: Sequence[float]) -> int:
    """Decimal places that a few values need: where the search over all values begins."""
    places = 0
    for value in sample:
        while places <= _EXPONENT_TRIED_MAX and round(value, places) != value:
            places += 1
    return places


def _encode_strings(values: Sequence[str]) -> _Encoded:
    try:
        return _encode_texts(values, str.encode)
    except UnicodeEncodeError as error:
        raise DecodeError(Code.INVALID_UTF8, field="string", expected="Unicode text") from error


def _encode_bytes(values: Sequence[bytes]) -> _Encoded:
    return _encode_texts(values, bytes)


def _encode_texts(values: Sequence[T], raw: Callable[[T], bytes]) -> _Encoded:
    words = list(dict.fromkeys(values))
    size = len(words)
    if size * 2 > len(values):
        texts = list(map(raw, values))
        return "plain", _join(texts), sum(map(len, texts))
    index = dict(zip(words, range(size), strict=True))
    indices = list(map(index.__getitem__, values))
    texts = list(map(raw, words))
    cells = pack_planes(indices, (size - 1).bit_length())
    return "dict", size.to_bytes(4, "big") + _join(texts) + cells, _total(texts, indices)


def _total(texts: Sequence[bytes], indices: Sequence[int]) -> int:
    """Bytes of all rows' texts together."""
    lengths = list(map(len, texts))
    if min(lengths) == max(lengths):
        return lengths[0] * len(indices)
    return sum(map(lengths.__getitem__, indices))


def _join(texts: Sequence[bytes]) -> bytes:
    return encode_ints(list(map(len, texts))) + b"".join(texts)


def _decode_column(  # noqa: PLR0917  the parts of one step, not options
    name: str, column: Column, present: bytes | None, reader: Reader, count: int, budget: Budget
) -> list[Value]:
    if not 1 <= len(name) <= COLUMN_NAME_CHARS_MAX:
        raise DecodeError(Code.OUT_OF_BOUNDS, field="column", value=name)
    if column.encoding == "null":
        if present or column.data or column.type != "int":
            raise DecodeError(Code.MALFORMED, field=name, expected="no data in a null column")
        budget.spend(count * _REFERENCE)
        return [None] * count
    decode = _DECODERS.get((column.type, column.encoding))
    if decode is None:
        raise DecodeError(Code.MALFORMED, field=name, value=(column.type, column.encoding))
    budget.spend(count * _COSTS[column.type])
    values = decode(reader, count if present is None else sum(present), budget)
    if present is None:
        return values
    following = iter(values)
    return [next(following) if there else None for there in present]


def _present(name: str, nulls: memoryview, count: int) -> bytes | None:
    """One byte a row, 1 = there is a value; None where every row has one."""
    if not nulls:
        return None
    if len(nulls) != (count + 7) // 8:
        raise DecodeError(Code.MALFORMED, field=name, value=len(nulls), expected="a bit a row")
    missing = unpack_bits(nulls, count)
    if not 0 < sum(missing) < count:
        raise DecodeError(Code.MALFORMED, field=name, expected="some rows null, not all")
    return missing.translate(_INVERTED)


def _decode_bools(reader: Reader, count: int, _: Budget) -> list[Value]:
    return list(map(bool, unpack_bits(reader.take((count + 7) // 8), count)))


def _decode_integers(reader: Reader, count: int, _: Budget) -> list[Value]:
    return list(decode_ints(reader, count))


def _decode_decimals(reader: Reader, count: int, _: Budget) -> list[Value]:
    exponent = reader.take(1)[0]
    integers = decode_ints(reader, count)
    if exponent > _EXPONENT_MAX or max(map(abs, integers)) > _EXACT_MAX:
        raise DecodeError(Code.OUT_OF_BOUNDS, field="decimal", value=exponent)
    return list(map(truediv, integers, repeat(10**exponent)))


def _decode_float_bits(reader: Reader, count: int, _: Budget) -> list[Value]:
    floats = array("d", array("q", decode_ints(reader, count)).tobytes()).tolist()
    if not all(map(isfinite, floats)):
        raise DecodeError(Code.NOT_FINITE, field="float", expected="finite numbers")
    return list(floats)


def _decode_texts(
    reader: Reader, count: int, budget: Budget, read: Callable[[memoryview], T]
) -> tuple[list[T], list[int]]:
    """`count` texts, and their lengths in bytes; no view of a text outlives its reading."""
    lengths = decode_ints(reader, count)
    if min(lengths) < 0:
        raise DecodeError(Code.MALFORMED, field="length", value=min(lengths), expected="≥ 0")
    total = sum(lengths)
    budget.spend(total)
    data = reader.take(total)
    try:
        return [read(data[a:b]) for a, b in pairwise(accumulate(lengths, initial=0))], lengths
    except UnicodeDecodeError as error:
        raise DecodeError(Code.INVALID_UTF8, field="string", expected="valid UTF-8") from error


def _text(raw: memoryview) -> str:
    return str(raw, "utf-8")


def _plain_of(read: Callable[[memoryview], T]) -> _Decoder:
    def decode(reader: Reader, count: int, budget: Budget) -> list[Value]:
        return list(_decode_texts(reader, count, budget, read)[0])

    return decode


def _dict_of(read: Callable[[memoryview], T]) -> _Decoder:
    def decode(reader: Reader, count: int, budget: Budget) -> list[Value]:
        size = int.from_bytes(reader.take(4), "big")
        if not 1 <= size <= count:
            raise DecodeError(
                Code.OUT_OF_BOUNDS, field="dictionary", value=size, expected=f"1..{count}"
            )
        words, lengths = _decode_texts(reader, size, Budget(budget.left), read)
        indices = unpack_planes(reader, count, (size - 1).bit_length())
        budget.spend(sum(look_up(lengths, indices)))
        return list(look_up(words, indices))

    return decode


_ENCODERS: dict[type, tuple[str, Callable[..., _Encoded]]] = {
    bool: ("bool", _encode_bools),
    int: ("int", _encode_integers),
    float: ("float", _encode_floats),
    str: ("string", _encode_strings),
    bytes: ("bytes", _encode_bytes),
}
_DECODERS: dict[tuple[str, str], _Decoder] = {
    ("bool", "bits"): _decode_bools,
    ("int", "ints"): _decode_integers,
    ("float", "decimal"): _decode_decimals,
    ("float", "bits"): _decode_float_bits,
    ("string", "plain"): _plain_of(_text),
    ("string", "dict"): _dict_of(_text),
    ("bytes", "plain"): _plain_of(bytes),
    ("bytes", "dict"): _dict_of(bytes),
}
