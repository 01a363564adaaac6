"""A bitmap of parking bays (车位): which bits are which bay, and what became of each; pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from devices.modbus.config import BaysTable
from devices.modbus.plan import Span
from devices.modbus.points import Image
from devices.modbus.registers import ADDRESS_MAX, Address, bits_of, parse_address
from protocol.packs import Pack
from protocol.program.walk import Walk
from protocol.records import Value

#: A bay's state in the watermark: one character each, in the order of the labels.
_LETTERS = {"free": "f", "occupied": "o", "unknown": "u"}
STATES = {letter: state for state, letter in _LETTERS.items()}
UNSEEN = "-"
_CODES = {"0": "free", "1": "occupied"}


@dataclass(frozen=True, slots=True)
class BaySource:
    """The bays of one unit."""

    labels: tuple[str, ...]
    start: Address
    width: int  # bits of one bay
    high_first: bool
    codes: Mapping[str, str]
    constants: Mapping[str, Value]

    @property
    def spans(self) -> tuple[Span, ...]:
        """What must be read, one register or bit each."""
        per = 1 if self.start.area.is_bits else 16 // self.width
        count = -(-len(self.labels) // per)
        start = self.start
        return tuple(Span(Address(start.function, start.at + at), 1) for at in range(count))

    def states(self, image: Image) -> tuple[str, int]:
        """The state of each bay as a letter, and how many bits had no meaning.

        A bay that was not read, or whose code is not in the list, is UNSEEN.
        """
        letters: list[str] = []
        wrong = 0
        for at in range(len(self.labels)):
            value = self._value(image, at)
            state = None if value is None else self.codes.get(str(value))
            wrong += value is not None and state is None
            letters.append(UNSEEN if state is None else _LETTERS[state])
        return "".join(letters), wrong

    def _value(self, image: Image, at: int) -> int | None:
        function, first = self.start.function, self.start.at
        if self.start.area.is_bits:
            return image.get((function, first + at))
        register, slot = divmod(at, 16 // self.width)
        word = image.get((function, first + register))
        if word is None:
            return None
        low = slot * self.width
        if self.high_first:
            low = 16 - self.width - low
        return bits_of(word, low, self.width)

    def values(self, at: int, letter: str) -> dict[str, Value]:
        """The fields of one bay's record."""
        return {**self.constants, "bay_no": self.labels[at], "state": STATES[letter]}


def compile_bays(table: BaysTable, pack: Pack, walk: Walk, path: str) -> BaySource | None:
    """Check the bays of one unit; None if `walk` has new problems."""
    before = len(walk.problems)
    start = parse_address(table.register)
    if pack.id != "parking.bay":
        walk.add(path, "bays-pack", pack.id)
    if start is None:
        walk.add(f"{path}.register", "impossible", table.register, expected="register")
        return None
    if len(set(table.labels)) < len(table.labels):
        twice = next(one for one in table.labels if table.labels.count(one) > 1)
        walk.add(f"{path}.labels", "eui-twice", twice)
    longest = next(one.length_max or 32 for one in pack.fields if one.name == "bay_no") if (
        pack.id == "parking.bay") else 32  # fmt: skip
    for label in table.labels:
        if len(label) > longest:
            walk.add(f"{path}.labels", "file-too-long", label, longest=str(longest))
    if start.area.is_bits and table.width != 1:
        walk.add(f"{path}.width", "type-of-area", table.width, area=start.area.word)
    constants = {"lot_id": table.lot_id, "floor": table.floor}
    found = BaySource(
        labels=tuple(table.labels),
        start=start,
        width=table.width,
        high_first=table.first == "high",
        codes=dict(table.codes or _CODES),
        constants={name: value for name, value in constants.items() if value is not None},
    )
    if found.spans[-1].end > ADDRESS_MAX + 1:
        walk.add(f"{path}.register", "impossible", table.register, expected="register")
    return None if len(walk.problems) > before else found
