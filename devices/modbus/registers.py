"""Registers: where a value stands, how wide it is, and what its words mean; pure.

Manuals write the same register in three ways (R15): `holding:0` (counted from 0, as in the frame),
`40001` (counted from 1, the first digit names the area) and hexadecimal. All three are read; a bare
`1` or `0x10` says no area and is refused.
"""

import math
import re
import struct
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal

from protocol.errors import Code, DecodeError

Words = Literal["high_first", "low_first"]
NumberType = Literal[
    "u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64", "bcd", "bcd32", "bool"
]  # fmt: skip

ADDRESS_MAX: Final = 0xFFFF
#: Registers and bits that one request may ask for (MODBUS Application Protocol V1.1b3 §6).
WORDS_MAX: Final = 125
BITS_MAX: Final = 2000


class Area(Enum):
    """One of the four tables of a unit; the value is the function code that reads it."""

    COIL = 1
    DISCRETE = 2
    HOLDING = 3
    INPUT = 4

    @property
    def is_bits(self) -> bool:
        """Whether an address of it holds one bit, not a word of 16."""
        return self in {Area.COIL, Area.DISCRETE}

    @property
    def word(self) -> str:
        """Its name in configuration and messages: `holding`."""
        return self.name.lower()


_AREAS: Final = {one.word: one for one in Area}
#: First digit of the five or six digits of older manuals, counted from 1.
_DIGITS: Final = {"0": Area.COIL, "1": Area.DISCRETE, "3": Area.INPUT, "4": Area.HOLDING}
_NAMED: Final = re.compile(r"(coil|discrete|holding|input):(0x[0-9A-Fa-f]{1,4}|\d{1,5})", re.ASCII)
_OLD: Final = re.compile(r"([0134])(\d{4}|\d{5})", re.ASCII)

#: Format of `struct` in the order of the wire, and how many registers it takes.
_FORMATS: Final = {
    "u16": "H", "i16": "h", "u32": "I", "i32": "i", "u64": "Q", "i64": "q", "f32": "f", "f64": "d",
}  # fmt: skip
_SIZES: Final[dict[str, int]] = {
    "u16": 1, "i16": 1, "u32": 2, "i32": 2, "u64": 4, "i64": 4, "f32": 2, "f64": 4,
    "bcd": 1, "bcd32": 2, "bool": 1,
}  # fmt: skip


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """One place: the area and the address as it stands in the frame, 0..65535."""

    function: int  # of the area
    at: int

    @property
    def area(self) -> Area:
        """The table that it lies in."""
        return Area(self.function)

    def __str__(self) -> str:
        return f"{self.area.word}:{self.at}"


def parse_address(text: str) -> Address | None:
    """Read `holding:0`, `input:0x20`, `40001`, `400001`; None for what is none or ambiguous."""
    named = _NAMED.fullmatch(text)
    if named is not None:
        at = int(named[2], 16 if named[2].startswith("0x") else 10)
        return Address(_AREAS[named[1]].value, at) if at <= ADDRESS_MAX else None
    old = _OLD.fullmatch(text)
    if old is None or not 1 <= int(old[2]) <= ADDRESS_MAX + 1:
        return None
    return Address(_DIGITS[old[1]].value, int(old[2]) - 1)


def size_of(kind: NumberType) -> int:
    """How many registers a value takes: 1, 2 or 4."""
    return _SIZES[kind]


def capacity(kind: NumberType) -> int | None:
    """One more than the largest total that a counter of this type shows; None for floats, bits."""
    match kind:
        case "u16" | "u32" | "u64":
            return 1 << (16 * _SIZES[kind])
        case "i16" | "i32" | "i64":
            return 1 << (16 * _SIZES[kind] - 1)
        case "bcd" | "bcd32":
            return int(10 ** (4 * _SIZES[kind]))
        case _:
            return None


def decode(
    registers: list[int], kind: NumberType, words: Words, octets: Words
) -> int | float | bool:
    """The value of `size_of(kind)` registers.

    words: which register stands first (R14). octets: which byte of a register, as some meters swap.
    Raises DecodeError for a BCD digit above 9 and for a float that is no number.
    """
    if kind == "bool":
        return registers[0] != 0
    ordered = registers if words == "high_first" else registers[::-1]
    data = struct.pack(f"{'>' if octets == 'high_first' else '<'}{len(ordered)}H", *ordered)
    if kind in {"bcd", "bcd32"}:
        return _bcd(data)
    value: int | float = struct.unpack(f">{_FORMATS[kind]}", data)[0]
    if isinstance(value, float) and not math.isfinite(value):
        raise DecodeError(Code.NOT_FINITE, value=str(value), expected="a number")
    return value


def _bcd(data: bytes) -> int:
    digits = data.hex()
    if not digits.isdecimal():
        raise DecodeError(Code.MALFORMED, value=digits, expected="decimal digits")
    return int(digits)


def bits_of(word: int, low: int, count: int) -> int:
    """`count` bits of a word from bit `low` (bit 0 is the least significant)."""
    return word >> low & ((1 << count) - 1)
