"""Records that went uncommitted: counted in memory, declared in gap notes of their own file.

A loss of what may leave is told to the hub by its note; one of the vault stays in the vault, and
its owner finds it in an export.
"""

import asyncio
import sqlite3
from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple

import msgspec

from agent.intake.outbox import queue_gap
from agent.intake.register import Register
from agent.store.database import Database
from agent.store.ports import HOUR_US, Clock, Randomness
from agent.store.resources import Bound
from devices.driver import Lost, Reading
from protocol.ids import ResourceId, StreamId

NO_ROOM: Final = "no room"
QUARANTINE_FULL: Final = "quarantine full"

MESSAGES_EVERY_US: Final = HOUR_US  # a device that is not understood speaks on for weeks

_Amount = tuple[int, int, int]  # count, first and last wall time
_STORED: Final = list[tuple[tuple[str, str, str], _Amount]]


class Loss(NamedTuple):
    """What was lost: records of a resource, or messages of a driver."""

    resource: str  # local name; empty for messages of which nobody knows whose they were
    reason: str
    driver: str = ""  # of messages: how many records they would have been is not known


class Losses:
    """What one file could not take since its last gap note."""

    def __init__(
        self, bounds: Mapping[str, Bound], feeds: Mapping[str, Collection[str]], clock: Clock
    ) -> None:
        """feeds: the resources of each driver; of a driver that is not in it, all."""
        self._bounds = bounds
        self._feeds = feeds
        self._clock = clock
        self._by: dict[Loss, _Amount] = {}
        self._messages_told_us = -MESSAGES_EVERY_US
        self._telling = asyncio.Lock()  # what a note under way tells is not told by another
        self._has_declared = False  # since the last `tell`

    def __bool__(self) -> bool:
        return bool(self._by)

    def drop(self, reading: Reading, at_us: int, *, driver: str) -> None:
        """Count a reading that nobody has any more, and for which there is no room."""
        if reading.rejected:
            self.add("", NO_ROOM, len(reading.rejected), at_us, driver=driver)
        for lost in reading.lost:
            if lost.resource in self._bounds:
                self._keep(driver, lost, at_us)
        for rows in reading.rows:
            bound = self._bounds.get(rows.resource)
            if bound is not None:
                bound.counters.lost += len(rows.records)
            self.add(rows.resource, NO_ROOM, len(rows.records), at_us)

    def add(self, local: str, reason: str, count: int, at_us: int, *, driver: str = "") -> None:
        """Count records of a resource, or messages of a driver."""
        _count(self._by, Loss(local, reason, driver), count, at_us)

    def load(self, connection: sqlite3.Connection) -> None:
        """Take back what a commit counted and no note told before the process ended."""
        self._by = _stored(connection) | self._by

    @staticmethod
    def remember(connection: sqlite3.Connection, counts: Mapping[Loss, int], at_us: int) -> None:
        """Keep what a commit only counted until a note tells it: its source was answered."""
        stored = _stored(connection)
        for loss, count in counts.items():
            _count(stored, loss, count, at_us)
        _store(connection, stored)

    def declare(
        self,
        connection: sqlite3.Connection,
        register: Register,
        random: Randomness,
        told: Iterable[tuple[str, Lost]],
        at_us: int,
    ) -> list[tuple[str, Lost]]:
        """Write what sources lost before we read it, inside the commit of what they told.

        Memory would forget it at a kill, and no source tells it again. Returns what has no stream
        yet: it waits for it in memory.
        """
        waiting: list[tuple[str, Lost]] = []
        for driver, lost in told:
            if lost.resource not in self._bounds:
                continue  # of another file
            loss = Loss(lost.resource, lost.reason, driver)
            if streams := self._streams(loss):
                amount = (0, lost.since_us, at_us)
                _queue(connection, register, random, (loss, amount), streams)
            else:
                waiting.append((driver, lost))
        return waiting

    def declared(self, waiting: Iterable[tuple[str, Lost]], at_us: int) -> None:
        """After a commit that declared losses, with what waits for its stream."""
        self._has_declared = True
        for driver, lost in waiting:
            self._keep(driver, lost, at_us)

    def _keep(self, driver: str, lost: Lost, at_us: int) -> None:
        """What a source lost, until a note can tell it."""
        loss = Loss(lost.resource, lost.reason, driver)
        since_us = self._by.get(loss, (0, lost.since_us, 0))[1]
        self._by[loss] = (0, since_us, at_us)

    async def tell(
        self, database: Database, register: Register, random: Randomness, *, at_once: bool
    ) -> bool:
        """Write what was counted as gap notes; False if nothing is to be sent.

        Raises UnavailableError. What `declare` wrote since the last time is to be sent as well.

        A note names a stream: what was lost before a resource's first record waits for it.
        at_once: also messages, which else are told once in an hour.
        """
        async with self._telling:
            told = await self._tell(database, register, random, at_once=at_once)
        declared, self._has_declared = self._has_declared, False
        return told or declared

    async def _tell(
        self, database: Database, register: Register, random: Randomness, *, at_once: bool
    ) -> bool:
        now_us = self._clock.monotonic_us()
        rests = not at_once and now_us < self._messages_told_us + MESSAGES_EVERY_US
        told = {
            loss: (amount, streams)
            for loss, amount in self._by.items()
            if (loss.resource or not rests) and (streams := self._streams(loss))
        }
        if not told:
            return False

        def work(connection: sqlite3.Connection) -> None:
            for loss, (amount, streams) in told.items():
                _queue(connection, register, random, (loss, amount), streams)
            _forget(connection, {loss: amount for loss, (amount, _) in told.items()})

        def then(_: None) -> None:
            for loss, (amount, _streams) in told.items():
                # Gone already where a caller was cancelled, and the next told the same.
                now = self._by.pop(loss, amount)
                if now != amount:  # grew meanwhile, in time at least: not all have a number
                    self._by[loss] = (now[0] - amount[0], amount[2], now[2])
                if not loss.resource:
                    self._messages_told_us = now_us

        await database.write("note", work, then=then)
        return True

    def _streams(self, loss: Loss) -> list[tuple[ResourceId, StreamId]]:
        """Where a loss is a gap: of a message nobody knows, in all that its driver feeds."""
        names = [loss.resource] if loss.resource else self._feeds.get(loss.driver, self._bounds)
        found = [self._bounds[name] for name in names if name in self._bounds]
        return [(one.id, one.stream.id) for one in found if one.stream is not None]


def _count(losses: dict[Loss, _Amount], loss: Loss, count: int, at_us: int) -> None:
    before = losses.get(loss, (0, at_us, at_us))
    losses[loss] = (before[0] + count, before[1], at_us)


def _forget(connection: sqlite3.Connection, told: Mapping[Loss, _Amount]) -> None:
    """Of what was remembered, only what was counted since stays."""
    stored = _stored(connection)
    if not stored:
        return
    for loss, (count, _, last_us) in told.items():
        now = stored.pop(loss, None)
        if now is not None and now[0] > count:
            stored[loss] = (now[0] - count, last_us, now[2])
    _store(connection, stored)


def _stored(connection: sqlite3.Connection) -> dict[Loss, _Amount]:
    row = connection.execute("SELECT v FROM meta WHERE k = 'losses'").fetchone()
    try:
        found = msgspec.msgpack.decode(row[0], type=_STORED) if row else []
    except (msgspec.MsgspecError, UnicodeDecodeError, TypeError):
        return {}  # changed on the disk
    return {Loss(*names): amount for names, amount in found}


def _store(connection: sqlite3.Connection, losses: Mapping[Loss, _Amount]) -> None:
    data = msgspec.msgpack.encode([[list(loss), amount] for loss, amount in losses.items()])
    connection.execute("INSERT OR REPLACE INTO meta(k, v) VALUES('losses', ?)", (data,))


def _queue(
    connection: sqlite3.Connection,
    register: Register,
    random: Randomness,
    told: tuple[Loss, _Amount],
    streams: Iterable[tuple[ResourceId, StreamId]],
) -> None:
    loss, (count, first_us, last_us) = told
    for resource, stream in streams:
        queue_gap(
            connection,
            (resource, stream),
            ("time", first_us, max(first_us, last_us)),
            count=None if loss.driver else count,
            reason=loss.reason,
            signer=register.identity.signing,
            random=random,
        )
