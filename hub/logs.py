"""Log lines for journald: one JSON object a line, a constant message, values as fields.

Text that came from outside (a device's name, a header) stands only in fields and is escaped, so
that nobody can forge a line or steer a terminal. A message that repeats is written up to a rate,
counted above it, and the count is written when the minute is over.
"""

import json
import logging
import re
import sys
import time
from collections.abc import Callable
from typing import TextIO

_WINDOW_S = 60.0
_FIELDS_OF_LOGGING = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
#: What JSON leaves as it is and a terminal or a log reader would obey.
_STEERING = re.compile("[\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")
FIELD_CHARACTERS_MAX = 500


def _plain(value: object) -> object:
    """Return a value that is safe and short in a line; bytes are shown as hex."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, bytes):
        value = value.hex()
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= FIELD_CHARACTERS_MAX else text[:FIELD_CHARACTERS_MAX] + "…"


class JsonLines(logging.Formatter):
    """Formats a log record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; an exception stands in `trace`, escaped like everything else."""
        line: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "from": record.name,
            "message": record.getMessage(),
        }
        for name, value in vars(record).items():
            if name not in _FIELDS_OF_LOGGING and not name.startswith("_"):
                line[name] = _plain(value)
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        text = json.dumps(line, ensure_ascii=False, default=_plain)
        return _STEERING.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


class RateLimit(logging.Filter):
    """Lets a message through so many times a minute; the rest is counted, never lost silently."""

    def __init__(self, lines_per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._limit = lines_per_minute
        self._clock = clock
        self._windows: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether the line is written; the first of a new minute carries `suppressed`."""
        now = self._clock()
        key = (record.name, str(record.msg))
        begun, count = self._windows.get(key, (now, 0))
        if now - begun >= _WINDOW_S:
            if count > self._limit:
                record.suppressed = count - self._limit
            begun, count = now, 0
        if len(self._windows) > 1000:  # messages are constants, so this bound is never met
            self._windows.clear()
        self._windows[key] = (begun, count + 1)
        return count < self._limit


def set_up(level: str, lines_per_minute: int, stream: TextIO | None = None) -> None:
    """Send the program's log to `stream` (standard error) as JSON lines."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    handler.addFilter(RateLimit(lines_per_minute))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    # aiohttp names peers and paths itself on broken requests; ours are counted in the metrics.
    logging.getLogger("aiohttp").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.WARNING)
