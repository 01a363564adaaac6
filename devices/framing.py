"""What a frame of a serial line is: marks, length, check; and what is none. Pure values."""

import re
from dataclasses import dataclass
from typing import Final, Literal

from devices.checksums import Kind, check_of, width_of

#: Kept of one piece of junk, in bytes; its size is counted whole.
JUNK_BYTES_MAX: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Where a frame's check stands and what it covers."""

    kind: Kind
    form: Literal["binary", "hex"] = "binary"  # hex: two or four hexadecimal digits
    order: Literal["big", "little"] = "big"  # of the bytes of a CRC-16
    over: Literal["bytes", "hex"] = "bytes"  # hex: the data are digits, and their bytes are meant
    place: Literal["before_end", "after_end"] = "before_end"
    first: int | None = None  # covered from this byte of the frame; None: from behind the start
    with_end: bool = False  # after_end: the end is covered, too

    @property
    def size(self) -> int:
        """Bytes of the check in the frame."""
        return width_of(self.kind) * (2 if self.form == "hex" else 1)

    def is_right(self, data: bytes, check: bytes) -> bool:
        """Whether `check` is that of `data`."""
        try:
            covered = bytes.fromhex(data.decode("ascii")) if self.over == "hex" else data
            told = bytes.fromhex(check.decode("ascii")) if self.form == "hex" else check
        except ValueError:
            return False
        width = width_of(self.kind)
        return len(told) == width and told == check_of(self.kind, covered).to_bytes(
            width, self.order
        )


@dataclass(frozen=True, slots=True)
class LengthField:
    """A number in the frame that says how long it is: total = number + adjust."""

    offset: int
    size: int
    order: Literal["big", "little"]
    adjust: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Framing:
    """How frames are told apart: by `ends`, `fixed` or `length`; by none, a quiet line ends one.

    Raises ValueError with a message key where the parts contradict each other.
    """

    start: bytes = b""
    ends: tuple[bytes, ...] = ()
    fixed: int | None = None  # bytes between start and check or end
    length: LengthField | None = None
    check: Check | None = None
    #: Replies of the reader to other commands, glued to its data; None stands for any byte (R04).
    strip: tuple[tuple[int | None, ...], ...] = ()
    max_bytes: int = 512  # of a whole frame

    def __post_init__(self) -> None:
        if (self.fixed is not None) + (self.length is not None) + (len(self.ends) > 1) > 1:
            raise ValueError("frame-ends-twice")
        if self.length is not None and self.ends:
            raise ValueError("frame-ends-twice")
        if self.check is not None and self.check.place == "after_end" and len(self.ends) != 1:
            raise ValueError("check-needs-one-end")
        if self.start and self.start in self.ends:
            raise ValueError("start-is-end")
        if any(len(e) - len(s) > 1 for s in self.ends for e in self.ends if e.startswith(s)):
            raise ValueError("end-in-end")

    @property
    def body_from(self) -> int:
        """Where the body begins: behind the start and a length that stands there."""
        behind = 0 if self.length is None else self.length.offset + self.length.size
        return max(len(self.start), behind)

    @property
    def is_quiet_ended(self) -> bool:
        """Whether only a quiet line ends a frame."""
        return not self.ends and self.fixed is None and self.length is None


@dataclass(frozen=True, slots=True)
class Frame:
    """One whole frame whose check, if there is one, is right."""

    body: bytes  # between start (and length) and check or end
    raw: bytes  # as received


@dataclass(frozen=True, slots=True)
class Junk:
    """Bytes that are no frame: noise, bad-checksum, bad-end, bad-length, overlong, half-frame."""

    reason: str
    raw: bytes  # the first JUNK_BYTES_MAX
    size: int


Event = Frame | Junk


class Strip:
    """Takes one pattern out of a stream, wherever the reads cut it."""

    def __init__(self, pattern: tuple[int | None, ...]) -> None:
        parts = [b"." if one is None else re.escape(bytes((one,))) for one in pattern]
        self._whole = re.compile(b"".join(parts), re.DOTALL)
        heads = range(len(parts) - 1, 0, -1)
        self._heads = [(n, re.compile(b"".join(parts[:n]), re.DOTALL)) for n in heads]
        self.held = b""

    def feed(self, data: bytes) -> bytes:
        """What is certainly not of the pattern; what may be its beginning is held back."""
        data = self.held + data
        kept: list[bytes] = []
        at = 0
        for found in self._whole.finditer(data):
            kept.append(data[at : found.start()])
            at = found.end()
        rest = data[at:]  # only behind the last pattern may another begin
        size = next((n for n, head in self._heads if head.fullmatch(rest[-n:])), 0)
        self.held = rest[len(rest) - size :]
        kept.append(rest[: len(rest) - size])
        return b"".join(kept)

    def release(self) -> bytes:
        """Give back what was held: it is not the pattern's beginning after all."""
        held, self.held = self.held, b""
        return held
