"""Log lines for journald: one JSON object a line, and no message more often than configured.

Messages are constants and values are fields (`extra={"device": name}`), so a value can never look
like a line of its own or steer a terminal, and what repeats can be counted by its message.
"""

import json
import logging
import re
import sys
import time
from collections.abc import Callable
from typing import Final, TextIO

_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}
_WINDOW_S: Final = 60.0
#: What JSON leaves as it is and a terminal, a log reader or an encoder would stumble over.
_STEERING: Final = re.compile(
    "[\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
VALUE_CHARS_MAX: Final = 500
TRACE_CHARS_MAX: Final = 4_000


class JsonLines(logging.Formatter):
    """One record as one line of JSON; names in Chinese stay readable, nothing breaks the line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line: time, level, origin, message, then the fields in their order."""
        line: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "from": record.name,
            "message": record.getMessage(),
        }
        for name, value in record.__dict__.items():
            if name not in _STANDARD:
                line[name] = _shown(value)
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)[-TRACE_CHARS_MAX:]
        text = json.dumps(line, ensure_ascii=False)
        return _STEERING.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def _shown(value: object) -> object:
    """Numbers as they are; everything else as text. Bytes only by length: they may be keys."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    text = str(value)
    return text if len(text) <= VALUE_CHARS_MAX else text[:VALUE_CHARS_MAX] + "…"


class RateLimit(logging.Filter):
    """Lets each message through `per_minute` times a minute and counts the rest.

    The first line of the next minute carries the count as `suppressed`.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._limit = per_minute
        self._clock = clock
        # Messages are constants of the code (and of libraries), so this map stays small.
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this record is written."""
        key = (record.name, str(record.msg)[:100])
        now = self._clock()
        start, count = self._seen.get(key, (now, 0))
        if now - start >= _WINDOW_S:
            if count > self._limit:
                record.suppressed = count - self._limit
            start, count = now, 0
        if len(self._seen) > 1_000:
            self._seen.clear()
        self._seen[key] = (start, count + 1)
        return count < self._limit


def setup(level: str, per_minute: int, stream: TextIO | None = None) -> None:
    """Send every logger's lines to the stream (stderr by default), once."""
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(JsonLines())
    handler.addFilter(RateLimit(per_minute))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Asks for frames and task names of every record otherwise; nobody reads them.
    logging.logThreads = False
    logging.logProcesses = False
    logging.logMultiprocessing = False
    # They log what peers sent, or each step; what matters of it is counted and logged by ours.
    logging.getLogger("aiohttp").setLevel(logging.ERROR)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
