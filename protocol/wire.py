"""Strict msgpack: what no decoder refuses by itself is refused here, before any type is looked at.

Maps with string keys and no duplicates, integers ≤ 64 bit, finite 64-bit floats, valid UTF-8,
depth ≤ DEPTH_MAX, no extension types, nothing after the object. Only then is the result converted
into a struct; structs of signed objects refuse unknown keys (`forbid_unknown_fields`).
"""

import re
from collections.abc import Iterable
from math import isfinite
from typing import NoReturn, TypeVar

import msgpack
import msgspec

from protocol.errors import Code, DecodeError, TooLargeError
from protocol.limits import ARRAY_ITEMS_MAX, DEPTH_MAX, MAP_ITEMS_MAX

T = TypeVar("T")

_encoder = msgspec.msgpack.Encoder()
_PATH = re.compile(r" - at `\$?(.*)`$")
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
_LIMIT_EXCEEDED = re.compile(r"^(\d+) exceeds max_(\w+)_len")


def encode(obj: object) -> bytes:
    """Give the msgpack bytes of a struct or of plain values; struct fields in declared order.

    Raises DecodeError if a value does not fit the wire (integer over 64 bit, a foreign type).
    """
    try:
        return _encoder.encode(obj)
    except (OverflowError, TypeError, ValueError, msgspec.MsgspecError) as error:
        raise DecodeError(Code.MALFORMED, expected=f"encodable values ({error})") from error


def decode(
    data: bytes | bytearray | memoryview,
    type: type[T],  # noqa: A002
    *,
    limit: int,
) -> T:
    """Read one object of a type.

    data: at most `limit` bytes. Raises DecodeError with field path and value, TooLargeError.
    """
    return convert(decode_any(data, limit=limit), type)


def convert(obj: object, type: type[T]) -> T:  # noqa: A002
    """Give plain values, read by `decode_any`, as a struct. Raises DecodeError with path."""
    try:
        return msgspec.convert(obj, type, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise _described(obj, str(error)) from error


def decode_any(data: bytes | bytearray | memoryview, *, limit: int) -> object:
    """Read one object as plain values: None, bool, int, float, str, bytes, list, dict.

    Raises TooLargeError if `data` is longer than `limit` bytes or claims too long a container,
    DecodeError for everything else that is not strict msgpack.
    """
    if len(data) > limit:
        raise TooLargeError(Code.TOO_LARGE, value=len(data), expected=f"≤ {limit} bytes")
    try:
        obj: object = msgpack.unpackb(
            data,
            raw=False,
            object_pairs_hook=_unique,
            ext_hook=_extension,
            max_array_len=ARRAY_ITEMS_MAX,
            max_map_len=MAP_ITEMS_MAX,
            max_ext_len=len(data),
        )
    except msgpack.ExtraData as error:
        raise DecodeError(Code.TRAILING_BYTES, value=len(error.extra)) from error
    except UnicodeDecodeError as error:
        raise DecodeError(Code.INVALID_UTF8, expected="UTF-8") from error
    except (msgpack.StackError, RecursionError) as error:
        raise DecodeError(Code.TOO_DEEP, expected=f"depth ≤ {DEPTH_MAX}") from error
    except (ValueError, OverflowError, msgpack.UnpackException) as error:
        exceeded = _LIMIT_EXCEEDED.match(str(error))
        if exceeded:
            raise TooLargeError(
                Code.TOO_LARGE, field=exceeded[2], value=int(exceeded[1])
            ) from error
        raise DecodeError(Code.MALFORMED, expected="one msgpack object") from error
    if _check(obj, DEPTH_MAX, ()) and 0xCA in bytes(data):
        _refuse_float32(bytes(data))
    return obj


def _unique(pairs: list[tuple[object, object]]) -> dict[object, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise DecodeError(Code.DUPLICATE_KEY, field=str(twice), expected="each key once")
    return found


def _extension(code: int, _data: bytes) -> NoReturn:
    raise DecodeError(Code.EXTENSION_TYPE, value=code, expected="no extension types")


_SCALARS = frozenset((int, str, bytes, bool, type(None)))


def _check(obj: object, depth: int, path: tuple[object, ...]) -> bool:
    """Refuse what msgpack lets through: depth, keys that are bytes, NaN, timestamps.

    Gives whether there is a float in it.
    """
    if type(obj) in _SCALARS:
        return False
    if isinstance(obj, float):
        if not isfinite(obj):
            where = _shown_path(path)
            raise DecodeError(Code.NOT_FINITE, field=where, value=obj, expected="a finite number")
        return True
    if depth == 0:
        raise DecodeError(Code.TOO_DEEP, field=_shown_path(path), expected=f"depth ≤ {DEPTH_MAX}")
    floats = False
    for step, item in _items(obj, path):
        if type(item) not in _SCALARS:
            floats |= _check(item, depth - 1, (*path, step))
    return floats


def _items(obj: object, path: tuple[object, ...]) -> Iterable[tuple[object, object]]:
    if isinstance(obj, list):
        return enumerate(obj)
    if not isinstance(obj, dict):
        raise DecodeError(Code.EXTENSION_TYPE, field=_shown_path(path), value=obj)
    foreign = set(map(type, obj)) - {str}
    if foreign:
        raise DecodeError(Code.WRONG_TYPE, field=_shown_path(path), expected="text keys")
    return obj.items()


# Bytes behind a type byte: of a fixed size, or (size of the length, bytes beside the content).
_FIXED_SIZES = {0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
_FIXED_SIZES |= {0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8, 0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}
_LENGTH_SIZES = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}


def _refuse_float32(data: bytes) -> None:
    """Walk the type bytes of one valid object: msgpack's reader does not tell the two floats apart.

    Only objects that have a float and a byte 0xCA anywhere come here.
    """
    at = 0
    while at < len(data):
        head = data[at]
        at += 1
        if head == 0xCA:
            raise DecodeError(Code.WRONG_TYPE, value="float 32", expected="floats of 64 bit")
        if 0xA0 <= head <= 0xBF:
            at += head - 0xA0
        elif head in _LENGTH_SIZES:
            size = _LENGTH_SIZES[head]
            at += size + int.from_bytes(data[at : at + size], "big")
        else:
            at += _FIXED_SIZES.get(head, 0)


def _shown_path(path: tuple[object, ...]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)[:200]


def _described(obj: object, message: str) -> DecodeError:
    """Turn msgspec's sentence into code, path and value; it names the path but never the value."""
    where = _PATH.search(message)
    path = where[1] if where else ""
    said = message[: where.start()] if where else message
    if said.startswith("Object contains unknown field"):
        name = said.split("`")[1]
        return DecodeError(Code.UNKNOWN_FIELD, field=f"{path}.{name}", expected="only known fields")
    if said.startswith("Object missing required field"):
        name = said.split("`")[1]
        return DecodeError(Code.MISSING_FIELD, field=f"{path}.{name}", expected="to be present")
    code = Code.WRONG_TYPE if ", got " in said else Code.OUT_OF_BOUNDS
    value = _value_at(obj, path)
    expected = said.removeprefix("Expected ").replace("`", "")
    return DecodeError(code, field=path or "$", value=value, expected=expected)


def _value_at(obj: object, path: str) -> object:
    for name, index in _STEP.findall(path):
        if name and isinstance(obj, dict):
            obj = obj.get(name)
        elif index.isdigit() and isinstance(obj, list) and int(index) < len(obj):
            obj = obj[int(index)]
        else:
            return None
    return obj
