"""Who holds an inbox poll now, and how to wake it: the hub's only way to reach a gateway."""

import asyncio
from typing import Final

from protocol.errors import Code, UnavailableError

#: An agent that began no poll for this long is away (失联). A poll ends by itself after 8 s and the
#: next begins at once, so a gateway that is there is heard of well before.
AWAY_AFTER_S: Final = 13.0


class Bells:
    """Who polls now, and how to wake them. Used on the event loop only."""

    def __init__(self, most: int, now_s: float) -> None:
        """most: polls that may stand at one time. now_s: the loop's time at the hub's start."""
        self._most = most
        self._began_s = now_s
        self._standing: dict[bytes, asyncio.Event] = {}
        self._last_s: dict[bytes, float] = {}

    @property
    def standing(self) -> int:
        """Polls open now."""
        return len(self._standing)

    def heard(self, agent: bytes, now_s: float) -> None:
        """A poll of the agent has begun: the only thing that a gateway which hangs cannot do."""
        self._last_s[agent] = now_s

    def stand(self, agent: bytes) -> asyncio.Event:
        """Hold a poll open; one that the agent had before ends. Raises UnavailableError."""
        old = self._standing.pop(agent, None)
        if old is not None:
            old.set()
        elif len(self._standing) >= self._most:
            raise UnavailableError(Code.BUSY, field="inbox", expected="fewer polls, later")
        self._standing[agent] = bell = asyncio.Event()
        return bell

    def leave(self, agent: bytes, bell: asyncio.Event) -> None:
        """End a poll."""
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
        """Tell whether the agent began no poll for too long; a hub waits so long at first."""
        return now_s - self._last_s.get(agent, self._began_s) > AWAY_AFTER_S

    def was_heard(self, agent: bytes) -> bool:
        """Tell whether the agent has polled since the hub started."""
        return agent in self._last_s
