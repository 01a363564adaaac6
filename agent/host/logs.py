"""The program's log as JSON lines (`protocol.program.lines` says how) on standard error."""

import logging
import sys
import time
from collections.abc import Callable
from typing import Final, TextIO

from protocol.program.lines import Rate, line

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class JsonLines(logging.Formatter):
    """One record as one line of JSON; what `extra` gave are its fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return line(
            created_s=record.created,
            level=record.levelname,
            origin=record.name,
            message=record.getMessage(),
            fields={k: v for k, v in vars(record).items() if k not in _STANDARD},
            trace=self.formatException(record.exc_info) if record.exc_info else "",
        )


class RateLimit(logging.Filter):
    """Writes each message so many times a minute; the next minute's first says `suppressed`."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._rate = Rate(per_minute)
        self._clock = clock

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this record is written."""
        passes, suppressed = self._rate.passes(record.name, str(record.msg), self._clock())
        if suppressed:
            record.suppressed = suppressed
        return passes


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
