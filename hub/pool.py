"""The one bounded pool of memory for request bodies, taken from the declared length."""

from collections.abc import Iterator
from contextlib import contextmanager

from protocol.errors import Code, UnavailableError


class Pool:
    """Counts bytes promised to bodies in flight. Used on the event loop only."""

    def __init__(self, limit: int) -> None:
        """limit: bytes for all bodies together."""
        self.limit = limit
        self.used = 0
        self.refused = 0

    @contextmanager
    def held(self, size: int) -> Iterator[None]:
        """Promise `size` bytes. Raises UnavailableError BUSY if they are not there now."""
        if self.used + size > self.limit:
            self.refused += 1
            raise UnavailableError(Code.BUSY, field="body", expected="memory for it, later")
        self.used += size
        try:
            yield
        finally:
            self.used -= size
