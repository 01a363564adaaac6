"""Which requests read a unit: values that stand near each other share one; pure.

A request costs two turn-arounds of the line and 8 + 5 bytes whatever it asks for, so a few
registers that nobody wanted are cheaper than a second one. Devices that refuse blocks with holes
exist (R21): a refused block is split at its holes, then between its values, and the answer is
remembered by whoever holds the blocks.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from devices.modbus.registers import Address, Area


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Registers (or bits) that belong to one value and are never split between requests."""

    start: Address
    count: int

    @property
    def end(self) -> int:
        """The address after the last one."""
        return self.start.at + self.count


@dataclass(frozen=True, slots=True)
class Block:
    """One request: an area, a start, a count, and the spans that it is for, in order."""

    start: Address
    count: int
    spans: tuple[Span, ...]

    @property
    def area(self) -> Area:
        """The table that it reads."""
        return self.start.area

    @property
    def end(self) -> int:
        """The address after the last one."""
        return self.start.at + self.count

    @property
    def answer_bytes(self) -> int:
        """Length of the answer's frame on a serial line: unit, function, count, data, CRC."""
        return 5 + (-(-self.count // 8) if self.area.is_bits else 2 * self.count)

    def __str__(self) -> str:
        return f"{self.start}" if self.count == 1 else f"{self.start}-{self.end - 1}"


def group(spans: Iterable[Span], *, gap: int, words_max: int, bits_max: int) -> list[Block]:
    """The fewest requests that read all spans, in the order of their addresses.

    gap: unwanted registers that may lie between two values of one request.
    """
    blocks: list[list[Span]] = []
    end = 0
    for span in sorted(set(spans)):
        limit = bits_max if span.start.area.is_bits else words_max
        if blocks:
            first = blocks[-1][0]
            fits = max(end, span.end) - first.start.at <= limit
            if first.start.area is span.start.area and fits and span.start.at - end <= gap:
                blocks[-1].append(span)
                end = max(end, span.end)
                continue
        blocks.append([span])
        end = span.end
    return [_block(one) for one in blocks]


def split(block: Block) -> list[Block]:
    """Smaller requests for the same values: without holes, else half of the values each.

    Empty if the block is one value already, so that nothing smaller can be asked.
    """
    pieces: list[list[Span]] = []
    end = 0
    for span in block.spans:
        if pieces and span.start.at <= end:
            pieces[-1].append(span)
            end = max(end, span.end)
        else:
            pieces.append([span])
            end = span.end
    if len(pieces) > 1:
        return [_block(one) for one in pieces]
    if len(block.spans) < 2:
        return []
    half = len(block.spans) // 2
    return [_block(list(block.spans[:half])), _block(list(block.spans[half:]))]


def _block(spans: list[Span]) -> Block:
    start = spans[0].start
    return Block(start, max(one.end for one in spans) - start.at, tuple(spans))
