"""Who holds an inbox poll now, and how to wake it: the hub's only way to reach a gateway."""

import asyncio
from typing import Final

from protocol.errors import Code, UnavailableError

AWAY_AFTER_S: Final = 15.0  # an agent without a poll for this long is away


class Bells:
    """Who polls now, and how to wake them. Used on the event loop only."""

    def __init__(self, most: int) -> None:
        """most: polls that may stand at one time."""
        self._most = most
        self._standing: dict[bytes, asyncio.Event] = {}
        self._last_s: dict[bytes, float] = {}

    @property
    def standing(self) -> int:
        """Polls open now."""
        return len(self._standing)

    def stand(self, agent: bytes) -> asyncio.Event:
        """Begin a poll; one that the agent had before ends. Raises UnavailableError."""
        old = self._standing.pop(agent, None)
        if old is not None:
            old.set()
        elif len(self._standing) >= self._most:
            raise UnavailableError(Code.BUSY, field="inbox", expected="fewer polls, later")
        self._standing[agent] = bell = asyncio.Event()
        return bell

    def leave(self, agent: bytes, bell: asyncio.Event, now_s: float) -> None:
        """End a poll."""
        self._last_s[agent] = now_s
        if self._standing.get(agent) is bell:
            del self._standing[agent]

    def ring(self, agent: bytes) -> None:
        """Wake an agent's poll: a message was put into its inbox."""
        bell = self._standing.get(agent)
        if bell is not None:
            bell.set()

    def ring_all(self) -> None:
        """Wake everybody: the hub stops."""
        for bell in self._standing.values():
            bell.set()

    def is_away(self, agent: bytes, now_s: float) -> bool:
        """Tell whether no poll of the agent stood for 15 s."""
        if agent in self._standing:
            return False
        last = self._last_s.get(agent)
        return last is None or now_s - last > AWAY_AFTER_S
