"""The feed of the live page: one task makes deltas and values, every tab takes them from a queue.

    overview, once a second ─▶ delta, encoded once ─┐
    tap, as segments come   ─▶ values of a ring ────┴▶ a bounded queue a tab ─▶ event stream

A tab gets everything first, then what moved. One that reads too slowly has its stream ended: the
browser comes again and gets everything. Nothing is made while no tab is there.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from hub.leases import Leases
from hub.overview import Overview, Snapshot, may_show
from hub.people import People, Session
from hub.reading import Reading
from hub.store import objects, overview
from hub.store.engine import Store, Tx
from hub.store.overview import ResourceLine
from hub.tap import Point, Ring, Tap, add, decoded, shown_fields
from protocol import envelope
from protocol.errors import Code, RefusedError, ShanmenError, UnavailableError
from protocol.registration import Registration
from protocol.schema import Field, open_schema

TICK_S: Final = 1.0
#: Values that came within so long go out together.
GATHER_S: Final = 0.2
HEARTBEAT_S: Final = 10.0
RETRY_MS: Final = 2000
TABS_MAX: Final = 64
TABS_OF_SESSION_MAX: Final = 8
QUEUE_MAX: Final = 32
FIRST_SEGMENTS: Final = 5  # of a resource that comes into view, so that its chart is not empty
_COMMENT: Final = b": \n\n"
_ENCODE: Final = msgspec.json.Encoder().encode


def event(name: str, value: object) -> bytes:
    """One server-sent event."""
    return b"event: " + name.encode() + b"\ndata: " + _ENCODE(value) + b"\n\n"


@dataclass(eq=False, slots=True)
class Tab:
    """One open page."""

    name: str  #: made by the page, so that its lease finds its stream
    session: Session
    queue: deque[bytes] = field(default_factory=deque)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    view: dict[int, int] = field(default_factory=dict)  #: n → last point that was sent
    until_us: int = 0  #: of its lease, hub time
    over: bool = False  #: too slow, came again, or the hub stops

    def put(self, piece: bytes) -> None:
        """Queue a piece; the tab is over if it has not taken the ones before."""
        if len(self.queue) >= QUEUE_MAX:
            self.over = True
            self.queue.clear()
        else:
            self.queue.append(piece)
        self.wake.set()


class Feed:
    """All tabs. Used on the loop only."""

    def __init__(
        self,
        *,
        store: Store,
        reading: Reading,
        overview: Overview,
        leases: Leases,
        tap: Tap,
        people: People,
        clock_us: Callable[[], int],
    ) -> None:
        self._store = store
        self._reading = reading
        self._overview = overview
        self._leases = leases
        self._tap = tap
        self._people = people
        self._clock_us = clock_us
        self._tabs: set[Tab] = set()
        self._some = asyncio.Event()
        self._moved = asyncio.Event()
        self._stopping = False
        tap.moved = self._moved.set

    @property
    def tabs(self) -> int:
        """Streams that are open now."""
        return len(self._tabs)

    def stop(self) -> None:
        """End every stream: the hub stops."""
        self._stopping = True
        for tab in self._tabs:
            tab.over = True
            tab.wake.set()

    async def run(self) -> None:
        """Make deltas and values while somebody looks; until cancelled."""
        last: Snapshot | None = None
        loop = asyncio.get_running_loop()
        while True:
            if not self._tabs:
                self._some.clear()
                self._tap.keep_only(())
                await self._some.wait()
                last = None
            next_s = loop.time() + TICK_S
            with contextlib.suppress(ShanmenError):  # a store that cannot be read now: later
                last = await self._tick(last)
            while (left_s := next_s - loop.time()) > 0:
                self._moved.clear()
                self._send_values()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left_s):
                        await self._moved.wait()
                        await asyncio.sleep(GATHER_S)

    async def _tick(self, last: Snapshot | None) -> Snapshot:
        now = await self._overview.look(self._clock_us())
        self._forget_views(now)
        if last is not None and last.shape() != now.shape():
            self._tell(event("shape", {}))
        delta = {} if last is None else now.since(last)
        if delta:
            self._tell(event("delta", delta))
        return now

    def _tell(self, piece: bytes) -> None:
        for tab in self._tabs:
            tab.put(piece)

    def _forget_views(self, now: Snapshot) -> None:
        watched: set[int] = set()
        for tab in self._tabs:
            if tab.until_us < now.at_us:
                tab.view.clear()
            watched |= tab.view.keys()
        self._tap.keep_only([now.resources[n].id for n in watched if n in now.resources])

    def _send_values(self) -> None:
        """Send each tab the points of its view that it does not have."""
        made: dict[tuple[int, int], dict[str, Any]] = {}
        rings = self._tap.rings()
        for tab in self._tabs:
            news: dict[str, dict[str, Any]] = {}
            for n, seen in tab.view.items():
                ring = rings.get(n)
                if ring is None or ring.count == seen:
                    continue
                key = (n, seen)
                if key not in made:
                    made[key] = _values(ring, seen)
                news[str(n)] = made[key]
                tab.view[n] = ring.count
            if news:
                tab.put(event("values", news))

    def _end(self, tab: Tab) -> None:
        """Let a tab's stream end; from now on it is nobody's."""
        tab.over = True
        tab.wake.set()
        self._tabs.discard(tab)
        self._leases.forget(tab)

    def _end_before(self, new: Tab) -> None:
        """A page that connected anew reads its stream of before no more, noticed or not."""
        for tab in tuple(self._tabs):
            if tab.name == new.name and tab.session.id == new.session.id:
                self._end(tab)

    def _make_room(self, new: Tab) -> None:
        """Hold the bounds. Raises UnavailableError."""
        self._end_before(new)
        mine = [tab for tab in self._tabs if tab.session.id == new.session.id and not tab.over]
        if len(self._tabs) >= TABS_MAX or len(mine) >= TABS_OF_SESSION_MAX:
            for tab in mine:  # to one that went it cannot be written: next time there is room
                if not tab.queue:
                    tab.put(_COMMENT)
            raise UnavailableError(Code.BUSY, field="live", expected="fewer open pages")

    # --- tabs ------------------------------------------------------------------------------------

    async def stream(self, name: str, session: Session) -> AsyncGenerator[bytes, None]:
        """Everything first, then what moves; ends with the session. Raises UnavailableError."""
        tab = Tab(name, session)
        self._make_room(tab)
        now = await self._overview.look(self._clock_us())
        self._end_before(tab)
        self._tabs.add(tab)
        self._some.set()
        try:
            yield b"retry: %d\n\n" % RETRY_MS + event("state", now.state())
            loop = asyncio.get_running_loop()
            look_s = loop.time() + HEARTBEAT_S
            while not self._stopping:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(look_s):
                        await tab.wake.wait()
                if loop.time() >= look_s:
                    if not await self._people.lives(session):
                        yield event("bye", {})
                        return
                    look_s = loop.time() + HEARTBEAT_S
                    tab.queue.append(_COMMENT)
                tab.wake.clear()
                if tab.over:
                    return
                pieces = b"".join(tab.queue)
                tab.queue.clear()
                if pieces:
                    yield pieces
        finally:
            self._end(tab)

    async def view(self, name: str, session: Session, wanted: list[int]) -> dict[str, Any]:
        """Renew the lease of what a tab shows; what may be read comes by its stream.

        Raises RefusedError for a tab without a stream, UnavailableError.
        """
        tab = next(
            (one for one in self._tabs if one.name == name and one.session.id == session.id), None
        )
        if tab is None:
            raise RefusedError(Code.NOT_FOUND, field="tab", expected="a tab with an open stream")
        now = await self._overview.look(self._clock_us())
        lines = [now.resources[n] for n in wanted if n in now.resources]
        lease = await self._leases.renew(
            tab, [one for one in lines if now.agents[one.agent].state == "active"]
        )
        tab.until_us = lease.until_us
        shown = [one for one in lines if may_show(one)]
        for gone in tab.view.keys() - {one.n for one in shown}:
            del tab.view[gone]
        for line in shown:
            if line.n not in tab.view:
                await self._begin(tab, line)
        return {"live": sorted(lease.live), "used_up": sorted(lease.used_up)}

    async def _begin(self, tab: Tab, line: ResourceLine) -> None:
        """Show a resource in a tab: what it has, and from now on what comes."""
        ring = self._tap.ring(line.id)
        if ring is None:
            fields, raws = await self._store.read(_first, self._reading, line)
            ring = Ring(line.n, fields)
            rows = await asyncio.to_thread(lambda: [decoded(raw, fields) for raw in raws])
            for one in rows:
                add(ring, one)
            ring = self._tap.watch(line.id, ring)
        tab.view[line.n] = ring.count
        tab.put(event("values", {str(line.n): _values(ring, 0) | {"fields": _fields(ring)}}))


def _values(ring: Ring, seen: int) -> dict[str, Any]:
    points: list[Point] = [one for one in ring.points if one[0] > seen]
    return {"points": [one[1:] for one in points]}


def _fields(ring: Ring) -> list[Mapping[str, Any]]:
    return [{"zh": one.zh, "en": one.en, "unit": one.unit, "type": one.type} for one in ring.fields]


def _first(tx: Tx, reading: Reading, line: ResourceLine) -> tuple[tuple[Field, ...], list[bytes]]:
    """The fields of an open resource, and its last segments, oldest first."""
    record = objects.get(tx, line.entry)
    if record is None or not may_show(line):
        return (), []
    entry = envelope.decode_payload(envelope.parse(record.raw), Registration)
    newest = [one for one in overview.newest(tx, line.n, FIRST_SEGMENTS) if one.has_body]
    raws = [reading.whole(tx, one.id) for one in reversed(newest)]
    return shown_fields(open_schema(entry.schema)), raws
