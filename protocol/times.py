"""Three times that stay apart: event (device), gateway, hub. All are int µs since 1970, UTC.

Event times are never rewritten; marks say what is known about them.
"""

import functools
import re
from datetime import UTC, datetime, timedelta
from enum import IntEnum, IntFlag
from typing import Annotated, Final

from msgspec import Meta, Struct

from protocol.errors import Code, DecodeError
from protocol.limits import INT_MAX, INT_MIN

WireTime = Annotated[int, Meta(ge=INT_MIN, le=INT_MAX)]  # µs UTC, as far as 64 bit reach

SECOND_US: Final = 1_000_000
DAY_US: Final = 86_400 * SECOND_US


class ClockSource(IntEnum):
    """What the gateway's clock rests on; a higher source wins."""

    NONE = 0  # never synchronised since the start: may say 1970
    HUB = 1  # offset learnt from the hub's signed time
    SYSTEM = 2  # the operating system says it is synchronised


class ClockMark(Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """How well the gateway's clock is known: [offset µs, error µs, source]."""

    offset_us: WireTime  # to be added to the gateway's wall clock to get UTC
    error_us: Annotated[int, Meta(ge=0, le=INT_MAX)]  # half-width of what is believed
    source: ClockSource

    def trusted_us(self, wall_us: int) -> int | None:
        """The UTC that a wall clock stands for, in µs; None where nobody vouches for it."""
        return None if self.source is ClockSource.NONE else wall_us + self.offset_us


class ClockReading(Struct, frozen=True, kw_only=True, array_like=True, forbid_unknown_fields=True):
    """A moment by the gateway's clock: [wall µs, offset µs, error µs, source]."""

    wall_us: WireTime  # the clock as it stood, uncorrected
    offset_us: WireTime
    error_us: Annotated[int, Meta(ge=0, le=INT_MAX)]
    source: ClockSource


class Quality(IntFlag):
    """Marks of one record; 0 is a plain good observation. Bits never change their meaning."""

    CLOCK_GATEWAY = 1 << 0  # the device gave no time: event time is the gateway's
    CLOCK_CONFLICT = 1 << 1  # device and gateway time disagree beyond the driver's bound
    LATE = 1 << 2  # arrived after its epoch was over (backfill)
    REPEAT = 1 << 3  # the same code again within the repeat window
    OUT_OF_RANGE = 1 << 4  # a value was physically impossible and stored as null
    REBASED = 1 << 5  # a counter restarted, or was clamped
    GAP_BEFORE = 1 << 6  # something before this record is missing
    ESTIMATED = 1 << 7  # computed, not observed
    TEST = 1 << 8  # made by a technician's test
    MANUAL = 1 << 9  # typed by a person
    MAYBE_REPEAT = 1 << 10  # class B: acknowledged without an id, may have come twice


@functools.lru_cache(4096)
def quality_names(quality: int) -> tuple[str, ...]:
    """The marks of a record in lower case; unknown bits as a number."""
    names = [(one.name or "").lower() for one in Quality if quality & one]
    rest = quality & ~sum(Quality)
    return (*names, str(rest)) if rest else tuple(names)


NO_MARKS: Final = Quality(0)  # made once: each `Quality(…)` and `|` runs functions of `enum`

_RFC3339 = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})[Tt ](\d{2}):(\d{2}):(\d{2})(?:\.(\d{1,18}))?"
    r"(?:([Zz])|([+-])(\d{2}):(\d{2}))",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_rfc3339(text: str) -> int:
    """Read a time with its zone, "2026-05-01T08:00:00.123456789+08:00", as µs UTC.

    Digits below the microsecond are cut off; second 60 (a leap second) is the next minute's first.
    Raises DecodeError for anything else, also for a time without a zone.
    """
    found = _RFC3339.fullmatch(text)
    wrong = DecodeError(Code.MALFORMED, field="time", value=text, expected="RFC 3339 with zone")
    if found is None:
        raise wrong
    year, month, day, hour, minute, second = (int(found[at]) for at in range(1, 7))
    fraction_us = int(((found[7] or "") + "000000")[:6])
    leap = second == 60
    try:
        moment = datetime(year, month, day, hour, minute, 59 if leap else second, tzinfo=UTC)
    except ValueError as error:
        raise wrong from error
    zone_min = 0
    if found[9]:
        if int(found[10]) > 23 or int(found[11]) > 59:
            raise wrong
        zone_min = (int(found[10]) * 60 + int(found[11])) * (1 if found[9] == "+" else -1)
    whole_s = (moment - _EPOCH) // timedelta(seconds=1) + (1 if leap else 0) - zone_min * 60
    return whole_s * SECOND_US + (0 if leap else fraction_us)


def show_time(us: int) -> str:
    """Give µs UTC as RFC 3339 with "Z"; the fraction only if there is one.

    Raises DecodeError for a time outside the years 1–9999.
    """
    try:
        moment = _EPOCH + timedelta(microseconds=us)
    except OverflowError as error:
        raise DecodeError(
            Code.OUT_OF_BOUNDS, field="time", value=us, expected="a year in 1..9999"
        ) from error
    return moment.isoformat().replace("+00:00", "Z")
