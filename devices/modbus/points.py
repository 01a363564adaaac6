"""A number in registers: its place checked once, its value read from what a unit answered."""

from collections.abc import Mapping
from dataclasses import dataclass

from devices.modbus.config import FieldTable, RegisterTable
from devices.modbus.plan import Span
from devices.modbus.registers import (
    ADDRESS_MAX,
    NumberType,
    Words,
    bits_of,
    capacity,
    decode,
    parse_address,
    size_of,
)
from protocol.program.walk import Walk

#: What a unit answered: (function code, address) -> word or bit.
Image = Mapping[tuple[int, int], int]


@dataclass(frozen=True, slots=True)
class Number:
    """Where a value stands and how it is read."""

    name: str
    span: Span
    kind: NumberType
    words: Words
    octets: Words
    bits: tuple[int, int] | None  # lowest bit and how many, of one register

    @property
    def capacity(self) -> int | None:
        """One more than the largest total that it can show; None for floats and bits."""
        return 1 << self.bits[1] if self.bits is not None else capacity(self.kind)

    def registers(self, image: Image) -> list[int] | None:
        """Its registers, or None where the unit did not answer for one of them."""
        start = self.span.start
        found = [image.get((start.function, start.at + at)) for at in range(self.span.count)]
        return None if None in found else [one for one in found if one is not None]

    def read(self, registers: list[int]) -> int | float | bool:
        """The value. Raises DecodeError where the registers hold no number of this type."""
        if self.bits is not None:
            return bits_of(registers[0], *self.bits)
        return decode(registers, self.kind, self.words, self.octets)


def place(
    name: str, table: RegisterTable, points: Mapping[str, RegisterTable], walk: Walk, path: str
) -> Number | None:
    """Check where a value stands; None if `walk` has new problems.

    A point gives what the table itself does not say.
    """
    if (table.register is None) == (table.point is None):
        walk.add(path, "register-or-point")
        return None
    point = RegisterTable() if table.point is None else points.get(table.point)
    if point is None:
        known = ", ".join(points) or "-"
        walk.add(f"{path}.point", "unknown-point", table.point, known=known)
        return None
    start = parse_address(table.register or point.register or "")
    kind = table.type or point.type or ("bool" if start and start.area.is_bits else "u16")
    if start is None or start.at + size_of(kind) > ADDRESS_MAX + 1:
        walk.add(f"{path}.register", "impossible", table.register, expected="register")
        return None
    if start.area.is_bits != (kind == "bool"):
        walk.add(f"{path}.type", "type-of-area", kind, area=start.area.word)
        return None
    bits = table.bits if isinstance(table, FieldTable) else None
    if bits is not None and not _are_bits(bits, kind):
        walk.add(f"{path}.bits", "impossible", str(bits), expected="bits")
        return None
    return Number(
        name=name,
        span=Span(start, size_of(kind)),
        kind=kind,
        words=table.words or point.words or "high_first",
        octets=table.bytes or point.bytes or "high_first",
        bits=(bits[0], bits[1]) if bits is not None else None,
    )


def _are_bits(bits: list[int], kind: NumberType) -> bool:
    """Whether they name bits of one register: the lowest from 0, and how many."""
    low, count = bits
    return kind in {"u16", "i16"} and low >= 0 and count >= 1 and low + count <= 16
