"""Checks that serial devices put behind their data: 校验. Pure.

Names differ between vendors, so each is given by what it computes: `xor` is also called BCC or, in
ISO 1155, LRC; `lrc` here is the two's complement of the sum (Modbus ASCII).
"""

from collections.abc import Callable
from functools import cache
from typing import Final, Literal, NamedTuple

Kind = Literal[
    "xor",
    "sum8",
    "lrc",
    "crc16-modbus",
    "crc16-arc",
    "crc16-ccitt",
    "crc16-xmodem",
    "crc16-kermit",
    "crc16-x25",
]


class _Crc16(NamedTuple):
    """A CRC-16 by its parameters (Rocksoft model); `is_reflected` is refin = refout."""

    poly: int
    init: int
    is_reflected: bool
    xor_out: int


#: Check values of "123456789": 4b37, bb3d, 29b1, 31c3, 2189, 906e.
_CRC16: Final[dict[str, _Crc16]] = {
    "crc16-modbus": _Crc16(0x8005, 0xFFFF, is_reflected=True, xor_out=0),
    "crc16-arc": _Crc16(0x8005, 0, is_reflected=True, xor_out=0),
    "crc16-ccitt": _Crc16(0x1021, 0xFFFF, is_reflected=False, xor_out=0),
    "crc16-xmodem": _Crc16(0x1021, 0, is_reflected=False, xor_out=0),
    "crc16-kermit": _Crc16(0x1021, 0, is_reflected=True, xor_out=0),
    "crc16-x25": _Crc16(0x1021, 0xFFFF, is_reflected=True, xor_out=0xFFFF),
}


def width_of(kind: Kind) -> int:
    """Bytes of a check: 1, or 2 for a CRC-16."""
    return 2 if kind in _CRC16 else 1


def check_of(kind: Kind, data: bytes) -> int:
    """The check of `data` as a number of `width_of(kind)` bytes."""
    return _SMALL[kind](data) if kind in _SMALL else _crc16(_CRC16[kind], data)


def _xor(data: bytes) -> int:
    found = 0
    for byte in data:
        found ^= byte
    return found


_SMALL: Final[dict[str, Callable[[bytes], int]]] = {
    "xor": _xor,
    "sum8": lambda data: sum(data) & 0xFF,
    "lrc": lambda data: -sum(data) & 0xFF,
}


def _crc16(rule: _Crc16, data: bytes) -> int:
    table = _table(rule.poly, is_reflected=rule.is_reflected)
    found = rule.init  # the same both ways round: 0 or all ones
    for byte in data:
        if rule.is_reflected:
            found = (found >> 8) ^ table[(found ^ byte) & 0xFF]
        else:
            found = ((found << 8) & 0xFFFF) ^ table[(found >> 8) ^ byte]
    return found ^ rule.xor_out


@cache
def _table(poly: int, *, is_reflected: bool) -> tuple[int, ...]:
    if is_reflected:
        poly = int(f"{poly:016b}"[::-1], 2)
    table: list[int] = []
    for byte in range(256):
        value = byte if is_reflected else byte << 8
        for _ in range(8):
            if is_reflected:
                value = (value >> 1) ^ (poly if value & 1 else 0)
            else:
                value = (value << 1) ^ (poly if value & 0x8000 else 0)
        table.append(value & 0xFFFF)
    return tuple(table)
