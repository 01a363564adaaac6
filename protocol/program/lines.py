"""Log lines for journald: one JSON object a line, and no message more often than configured.

Messages are constants and values are fields, so a value can never look like a line of its own or
steer a terminal, and what repeats can be counted by its message.
"""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

_WINDOW_S: Final = 60.0
#: Messages are constants of the code (and of libraries), so this bound is hardly ever met.
_MESSAGES_MAX: Final = 1_000
_MESSAGE_CHARS_MAX: Final = 100
#: What JSON leaves as it is and a terminal, a log reader or an encoder would stumble over.
_STEERING: Final = re.compile(
    "[\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
VALUE_CHARS_MAX: Final = 500
TRACE_CHARS_MAX: Final = 4_000


def line(
    *,
    created_s: float,
    level: str,
    origin: str,
    message: str,
    fields: Mapping[str, object],
    trace: str,
) -> str:
    """One line without its end: time (s since 1970), level, origin, message, fields in their order.

    Names in Chinese stay readable; nothing breaks the line. An empty trace is left out.
    """
    moment = datetime.fromtimestamp(created_s, UTC).isoformat(timespec="milliseconds")
    shown: dict[str, object] = {
        "time": moment.replace("+00:00", "Z"),
        "level": level.lower(),
        "from": origin,
        "message": message,
    }
    shown |= {name: _shown(value) for name, value in fields.items()}
    if trace:
        shown["trace"] = trace[-TRACE_CHARS_MAX:]
    text = json.dumps(shown, ensure_ascii=False)
    return _STEERING.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def _shown(value: object) -> object:
    """Numbers as they are; everything else as text. Bytes only by length: they may be keys."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    text = str(value)
    return text if len(text) <= VALUE_CHARS_MAX else text[:VALUE_CHARS_MAX] + "…"


class Rate:
    """Lets each message through `per_minute` times a minute and counts the rest."""

    def __init__(self, per_minute: int) -> None:
        self._limit = per_minute
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def passes(self, origin: str, message: str, now_s: float) -> tuple[bool, int]:
        """Whether it is written, and how many of it were not in the minute that is over."""
        key = (origin, message[:_MESSAGE_CHARS_MAX])
        start, count = self._seen.get(key, (now_s, 0))
        suppressed = 0
        if now_s - start >= _WINDOW_S:
            suppressed = max(0, count - self._limit)
            start, count = now_s, 0
        if len(self._seen) > _MESSAGES_MAX:
            self._seen.clear()
        self._seen[key] = (start, count + 1)
        return count < self._limit, suppressed
