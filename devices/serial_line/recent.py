"""What a reader said last: one card held before it is one scan, one frame sent twice is one event.

The memory is written as a watermark in the commit of each record, so that a restart of the agent
forgets nothing that matters: see `Recent`. Only keyed digests are remembered, never a code.
"""

from collections import OrderedDict
from enum import Enum
from typing import Final

import msgspec

from protocol.errors import Code, DecodeError

#: Codes remembered: cards that are held before one reader at a time.
CODES_MAX: Final = 64
#: Of these, written with each record: the newest, 20 bytes each.
STORED_MAX: Final = 8
#: Longer than anybody holds a card before a reader, µs.
HELD_US: Final = 300_000_000


class Heard(Enum):
    """What is known of a code or frame."""

    NEW = "new"
    MAYBE = "maybe"  # perhaps the same event: what happened while we were away is not known
    REPEAT = "repeat"  # surely the same


class Memory(msgspec.Struct, frozen=True, array_like=True):
    """The watermark: codes with the time of the event (µs), and the last frame with its arrival."""

    codes: list[tuple[bytes, int]] = []
    frame: tuple[bytes, int] | None = None

    def dump(self) -> bytes:
        """The watermark's bytes."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def load(cls, data: bytes) -> "Memory":
        """Read a watermark of ours; raises DecodeError for anything else."""
        try:
            return msgspec.msgpack.decode(data, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise DecodeError(Code.MALFORMED, field="watermark", expected="recent") from error


class Recent:
    """Judges codes by time of event and frames by order of arrival.

    After a restart the stored time is that of the first sight, while the card may have been held
    longer: the first code of a new instance that was known before and is older than the window is
    therefore a MAYBE up to `HELD_US`.
    """

    def __init__(self, *, window_us: int | None, resend_us: int | None, stored: Memory) -> None:
        self._window_us = window_us
        self._resend_us = resend_us
        self._codes = OrderedDict(stored.codes)
        self._frame = stored.frame
        self._is_first_code = True
        self._is_first_frame = True

    def reconnected(self) -> None:
        """The line was away: the next frame may be one that was never answered."""
        self._is_first_frame = True

    def code(self, digest: bytes, at_us: int) -> Heard:
        """Judge and remember a code; each sight of it keeps it alive for another window."""
        if self._window_us is None:
            return Heard.NEW
        last_us = self._codes.pop(digest, None)
        is_first, self._is_first_code = self._is_first_code, False
        self._codes[digest] = at_us
        while len(self._codes) > CODES_MAX:
            self._codes.popitem(last=False)
        if last_us is None:
            return Heard.NEW
        age_us = abs(at_us - last_us)
        if age_us < self._window_us:
            return Heard.REPEAT
        return Heard.MAYBE if is_first and age_us < HELD_US else Heard.NEW

    def frame(self, digest: bytes, at_us: int) -> Heard:
        """Judge and remember a frame of a reader that waits, whose frames have no id."""
        if self._resend_us is None:
            return Heard.NEW
        last, self._frame = self._frame, (digest, at_us)
        is_first, self._is_first_frame = self._is_first_frame, False
        if last is None or last[0] != digest:
            return Heard.NEW
        return Heard.MAYBE if is_first or abs(at_us - last[1]) < self._resend_us else Heard.NEW

    def memory(self) -> Memory | None:
        """What to write with a record; None if nothing is remembered."""
        if self._window_us is None and self._resend_us is None:
            return None
        return Memory(list(self._codes.items())[-STORED_MAX:], self._frame)
