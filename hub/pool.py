"""The one bounded pool of memory for request bodies, taken from the declared length."""


class Pool:
    """Counts bytes promised to bodies in flight. Used on the event loop only."""

    def __init__(self, limit: int) -> None:
        """limit: bytes for all bodies together."""
        self.limit = limit
        self.used = 0
        self.refused = 0

    def take(self, size: int) -> bool:
        """Promise `size` bytes; False if they are not there now (the caller answers `busy`)."""
        if self.used + size > self.limit:
            self.refused += 1
            return False
        self.used += size
        return True

    def give(self, size: int) -> None:
        """Take a promise back, once."""
        self.used -= size
