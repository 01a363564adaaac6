"""How often strangers may try: a count per address and in all, judged before any signature is.

Memory is bounded: at most as many addresses are remembered as attempts are allowed in all.
"""

from collections import deque

WINDOW_S = 600.0


class Attempts:
    """A sliding window of attempts; the clock is an argument."""

    def __init__(self, *, per_address: int, total: int, window_s: float = WINDOW_S) -> None:
        self._per_address = per_address
        self._window_s = window_s
        self._all: deque[tuple[float, str]] = deque()
        self._total = total
        self._by_address: dict[str, int] = {}
        self.refused = 0

    def admit(self, address: str, now_s: float) -> float:
        """Count an attempt; 0 if it may go on, else the seconds until the next may."""
        while self._all and now_s - self._all[0][0] >= self._window_s:
            _, old = self._all.popleft()
            self._by_address[old] -= 1
            if not self._by_address[old]:
                del self._by_address[old]
        if len(self._all) < self._total and self._by_address.get(address, 0) < self._per_address:
            self._all.append((now_s, address))
            self._by_address[address] = self._by_address.get(address, 0) + 1
            return 0.0
        self.refused += 1
        first = next((at for at, who in self._all if who == address), self._all[0][0])
        if len(self._all) >= self._total:
            first = self._all[0][0]
        return max(1.0, first + self._window_s - now_s)

    def give_back(self, address: str) -> None:
        """Take back an attempt that turned out to be nobody's guess."""
        for at, (_, who) in enumerate(reversed(self._all), 1):
            if who == address:
                del self._all[-at]
                self._by_address[address] -= 1
                if not self._by_address[address]:
                    del self._by_address[address]
                return
