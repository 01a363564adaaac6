"""Times, sizes and plain values as people read them."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

#: One clock for the whole country (北京时间); pages are read where their gateways stand.
_CHINA: Final = timezone(timedelta(hours=8))
_STEP: Final = 1024
#: The year 9999 ends: a gateway without a clock may have signed anything.
_LAST_US: Final = 253_402_200_000_000_000


def moment(time_us: int | None) -> str:
    """Return a time as China's clocks show it, to the second; empty for none."""
    if time_us is None:
        return ""
    if not 0 <= time_us < _LAST_US:
        return f"{time_us} µs"
    return datetime.fromtimestamp(time_us // 1_000_000, _CHINA).strftime("%Y-%m-%d %H:%M:%S")


def stamp(time_us: int) -> str:
    """Return the same time for machines: the `datetime` of a `<time>`; empty for none of a year."""
    if not 0 <= time_us < _LAST_US:
        return ""
    return datetime.fromtimestamp(time_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def number(value: int) -> str:
    """Return a whole number with its thousands apart."""
    return f"{value:,}"


def size(count: int) -> str:
    """Return a number of bytes with three digits that matter."""
    value, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < _STEP or unit == "TiB":
            break
        value /= _STEP
    return f"{count} B" if unit == "B" else f"{value:.3g} {unit} ({count:,} B)"


def plain(value: Any) -> str:
    """Return a value of a signed entry as text: structures as JSON, nothing as nothing."""
    if value is None or value == []:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return ", ".join(value)
    return json.dumps(value, ensure_ascii=False)
