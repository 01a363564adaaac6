"""Leases: while a page is looked at, the gateways of what it shows are asked for short segments.

    tab, every 10 s ─▶ renew ─▶ [today's seconds ─▶ one inbox message an agent] ─▶ bell ─▶ gateway

A lease is for 30 s: a tab that is gone costs at most that. A message names everything of its agent
that tabs show now, so that it replaces the one before; that one is taken out of the inbox in the
same transaction. What nobody shows any more is not renewed, and let go with the next message. No
leaf, no audit row: nothing piles up. How long a resource was watched today is counted in the
database, by China's day, and bounded (`console.live_minutes`).
"""

import asyncio
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from hub.bells import Bells
from hub.store import inbox, leaves, live_use
from hub.store.engine import Store, Tx
from hub.store.inbox import InboxRow
from hub.store.overview import ResourceLine
from protocol.envelope import SigningKey
from protocol.ids import PrincipalId, ResourceId
from protocol.inbox import InboxMessage, InboxNumber, Live, make_inbox
from protocol.times import DAY_US

LEASE_US: Final = 30_000_000
#: A lease that still has so long is not renewed: three tabs cost as many messages as one.
ENOUGH_US: Final = 18_000_000
VIEW_MAX: Final = 20  #: resources that one tab may ask for
LEASED_MAX: Final = 200  #: of all tabs together; a message names at most 256
_CHINA_US: Final = 8 * 3600 * 1_000_000


@dataclass(frozen=True, slots=True)
class Lease:
    """What a tab was given."""

    until_us: int
    live: frozenset[int]  #: ResourceRow.n
    used_up: frozenset[int]  #: watched for as long as a day allows


@dataclass(frozen=True, slots=True)
class _Held:
    """A resource whose seconds are counted until then."""

    line: ResourceLine
    until_us: int  # hub time
    is_named: bool = True  # False: the newest message lets it go


@dataclass(frozen=True, slots=True)
class _View:
    """What a tab showed when it last asked."""

    lines: Mapping[int, ResourceLine]  # by ResourceRow.n
    until_us: int  # hub time; who looks asks again before


class Leases:
    """Who is asked for short segments now. One renewal at a time."""

    def __init__(
        self,
        store: Store,
        key: SigningKey,
        bells: Bells,
        *,
        minutes_a_day: int,
        clock_us: Callable[[], int],
    ) -> None:
        self._store = store
        self._key = key
        self._bells = bells
        self._seconds = minutes_a_day * 60
        self._clock_us = clock_us
        self._held: dict[int, _Held] = {}  # by ResourceRow.n
        self._views: dict[object, _View] = {}  # by tab
        self._sent: dict[bytes, tuple[int, int]] = {}  # agent → its newest message of ours
        self._by_operator: dict[bytes, int] = {}
        self._turn = asyncio.Lock()

    def asked_by_operator(self, agent: bytes, until_us: int) -> None:
        """An operator asked for everything of an agent until then: no shorter wish cuts it."""
        self._by_operator[agent] = until_us

    def live(self, now_us: int) -> frozenset[int]:
        """Resources that are leased now (ResourceRow.n)."""
        return frozenset(
            n for n, one in self._held.items() if one.is_named and one.until_us > now_us
        )

    def forget(self, tab: object) -> None:
        """A tab is gone: nothing is renewed for it."""
        self._views.pop(tab, None)

    async def renew(self, tab: object, wanted: Sequence[ResourceLine]) -> Lease:
        """Lease what a tab shows in place of what it showed before, as far as the day allows.

        Raises UnavailableError (disk full).
        """
        async with self._turn:
            now_us = self._clock_us()
            self._held = {n: one for n, one in self._held.items() if one.until_us > now_us}
            asked = self._look(tab, wanted, now_us)
            live = self.live(now_us)
            due = {
                one.agent
                for n, one in asked.items()
                if n not in live or self._held[n].until_us - now_us < ENOUGH_US
            }
            if due:
                await self._grant(due, now_us)
            live = self.live(now_us)
            return Lease(
                until_us=now_us + LEASE_US,
                live=live & asked.keys(),
                used_up=frozenset(asked.keys() - live),
            )

    def _look(
        self, tab: object, wanted: Sequence[ResourceLine], now_us: int
    ) -> Mapping[int, ResourceLine]:
        """Remember what a tab shows now, as far as there is room beside what others show."""
        self._views = {
            one: view for one, view in self._views.items() if one != tab and view.until_us > now_us
        }
        others = self._shown()
        room = LEASED_MAX - len(others)
        asked: dict[int, ResourceLine] = {}
        for line in wanted[:VIEW_MAX]:
            room -= line.n not in others
            if room >= 0 or line.n in others:
                asked[line.n] = line
        self._views[tab] = _View(asked, now_us + LEASE_US)
        return asked

    def _shown(self) -> dict[int, ResourceLine]:
        """Everything that some tab shows."""
        return {n: line for view in self._views.values() for n, line in view.lines.items()}

    async def _grant(self, due: Collection[bytes], now_us: int) -> None:
        """Count the seconds and put one message for each agent, in one transaction.

        A message holds for all that it names, so all that is shown of the agent is renewed.
        """
        day = (now_us + _CHINA_US) // DAY_US
        until_us = now_us + LEASE_US
        renewed = {n: line for n, line in self._shown().items() if line.agent in due}

        def write(tx: Tx) -> tuple[dict[int, _Held], dict[bytes, tuple[int, int]]]:
            used = live_use.of(tx, day, renewed)
            granted: dict[int, _Held] = {}
            charges: dict[int, int] = {}
            for n, line in renewed.items():
                if used.get(n, 0) < self._seconds:
                    granted[n] = _Held(line, until_us)
                    before = self._held[n].until_us if n in self._held else now_us
                    charges[n] = -(-(until_us - before) // 1_000_000)
            live_use.add(tx, day, charges)
            sent = {}
            asked_for = {one.line.agent for one in granted.values()}
            for agent in sorted(a for a in asked_for if self._by_operator.get(a, 0) < until_us):
                names = [one.line.id for one in granted.values() if one.line.agent == agent]
                sent[agent] = self._put(tx, agent, names, until_us)
            return granted, sent

        granted, sent = await self._store.write("live", write)
        # What is let go stays counted to its end: who comes back to it does not pay twice.
        told = {one.line.agent for one in granted.values()}
        let_go = {
            n: replace(one, is_named=False)
            for n, one in self._held.items()
            if one.line.agent in told
        }
        self._held |= let_go | granted
        self._sent |= sent
        for agent in sent:
            self._bells.ring(agent)

    def _put(
        self, tx: Tx, agent: bytes, resources: Sequence[bytes], until_us: int
    ) -> tuple[int, int]:
        """Put the agent's message in place of the one before; returns its number."""
        head = leaves.live(tx)
        assert head is not None
        number = inbox.next_number(tx, agent, head.generation)
        message = InboxMessage(
            agent=PrincipalId(agent),
            number=InboxNumber(head.generation, number),
            expires=until_us,
            message=Live(resources=tuple(map(ResourceId, resources)), until=until_us),
            nonce=secrets.token_bytes(16),
        )
        row = InboxRow(
            agent=agent,
            generation=head.generation,
            n=number,
            expires_us=until_us,
            raw=make_inbox(message, self._key).raw,
        )
        inbox.put(tx, row)
        if agent in self._sent:
            inbox.take_back(tx, agent, self._sent[agent])
        return head.generation, number
