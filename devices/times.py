"""Device time -> event time: which clock is believed, and what is said about it (R34-R37).

Device time is kept beside the event time whatever is decided. Formats are an explicit list;
anything else is reported, never guessed.
"""

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from protocol.times import NO_MARKS, Quality

#: Older device times are a reset clock (1970, 2000), not old data: 2020-01-01T00:00:00Z, µs.
PLAUSIBLE_FROM_US: Final = 1_577_836_800_000_000
_US_MAX: Final = 4_102_444_800_000_000  # 2100-01-01, µs
_LOOSE: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9}))?"
    r"(?:(Z)|([+-])(\d{1,2}):?(\d\d))?"
)
_COMPACT: Final = re.compile(r"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)()()()()()")


class Trust(NamedTuple):
    """How far the device's clock is believed."""

    mode: str = "if_within"  # never | always | if_within
    within_us: int = 300_000_000
    future_us: int = 10_000_000  # a device ahead of us by more is wrong
    bulk_old_ok: bool = True  # older than `within`: kept back by a broker, not wrong


class Judged(NamedTuple):
    """The event time of a record, and what is to be said about it."""

    event_us: int
    device_us: int | None  # the device's, where it differs from the event time
    quality: Quality


def judge(device_us: int | None, gateway_us: int, trust: Trust) -> Judged:
    """Choose between the device's clock and the gateway's."""
    if device_us is None or trust.mode == "never":
        return Judged(gateway_us, device_us, Quality.CLOCK_GATEWAY)
    age = gateway_us - device_us
    if trust.mode == "always":
        return Judged(device_us, None, NO_MARKS)
    if gateway_us < PLAUSIBLE_FROM_US <= device_us:
        # The gateway woke up without a battery for its clock (R38): the device knows better.
        return Judged(device_us, None, NO_MARKS)
    believed = -trust.future_us <= age <= trust.within_us
    kept_back = trust.bulk_old_ok and age > trust.within_us and device_us >= PLAUSIBLE_FROM_US
    if believed or kept_back:
        return Judged(device_us, None, NO_MARKS)
    return Judged(gateway_us, device_us, Quality.CLOCK_GATEWAY | Quality.CLOCK_CONFLICT)


def parse(value: object, style: str, zone: tzinfo) -> int | None:
    """Read a device's time: µs UTC, or None if it is not in `style`.

    style: `iso` (RFC 3339, also without offset, with `-5:00` or `+0800`, or yyyyMMddHHmmss),
    `epoch_s`, `epoch_ms`, `epoch_us`. zone: of texts without an offset.
    """
    if style == "iso":
        return _iso(value, zone) if isinstance(value, str) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    scale = {"epoch_s": 1_000_000, "epoch_ms": 1_000, "epoch_us": 1}.get(style, 0)
    at_us = int(value * scale) if abs(value) < _US_MAX else _US_MAX
    return at_us if 0 < at_us < _US_MAX else None


def _iso(text: str, zone: tzinfo) -> int | None:
    match = _LOOSE.fullmatch(text) or _COMPACT.fullmatch(text)
    if match is None:
        return None
    fraction = int(((match[7] or "") + "000000")[:6])
    offset: tzinfo = zone
    if match[8]:
        offset = UTC
    elif match[9]:
        minutes = int(match[10]) * 60 + int(match[11])
        if minutes > 14 * 60:
            return None
        offset = timezone(timedelta(minutes=minutes if match[9] == "+" else -minutes))
    try:
        instant = datetime(
            *(int(match[i]) for i in range(1, 7)),  # type: ignore[arg-type, misc]  # six ints
            microsecond=fraction,
            tzinfo=offset,
        )
        at_us = (instant - _EPOCH) // timedelta(microseconds=1)
    except (ValueError, OverflowError):
        return None
    return at_us if 0 < at_us < _US_MAX else None


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def zone_of(name: str) -> tzinfo | None:
    """The time zone of a name; None if there is none of that name."""
    if name in {"Asia/Shanghai", "Asia/Chongqing", "PRC"}:
        return timezone(timedelta(hours=8))  # no summer time since 1991, and no tzdata needed
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None
