"""What waits here, for the hub's page: a few counts, made at most once a second.

In a batch the report is about what the batch leaves behind, for the hub shows it after it took the
batch; in a poll it is about everything.
"""

import sqlite3
from collections.abc import Sequence
from typing import Final

from agent.core import Core
from agent.host.clock import Clock
from agent.seal.batch import SpoolItem
from protocol.report import Report

EVERY_US: Final = 1_000_000


class Reporter:
    """Counts what the main lane holds; the vault has no part in what a hub hears."""

    def __init__(self, core: Core, clock: Clock) -> None:
        self._core = core
        self._clock = clock
        self._sending: frozenset[int] = frozenset()  # rows of bodies in the batch under way
        self._next_us = 0

    async def with_batch(self, items: Sequence[SpoolItem]) -> Report | None:
        """The report that goes with a batch; None if one went a moment ago."""
        self._sending = frozenset(one.ref.row for one in items if one.ref.kind == "body")
        now_us = self._core.clock.monotonic_us()
        if now_us < self._next_us:
            return None
        self._next_us = now_us + EVERY_US
        return await self._report(besides=self._sending)

    async def with_poll(self) -> Report:
        """The report that goes with a poll."""
        return await self._report(besides=frozenset())

    def batch_over(self) -> None:
        """The batch was answered, or was not."""
        self._sending = frozenset()

    async def _report(self, *, besides: frozenset[int]) -> Report:
        def work(connection: sqlite3.Connection) -> tuple[int, int, int | None]:
            count, size = connection.execute(
                "SELECT coalesce(sum(due_n), 0), coalesce(sum(due_bytes), 0) FROM stream"
            ).fetchone()
            first = connection.execute(
                "SELECT id, at, size FROM body WHERE state = 2 ORDER BY id LIMIT ?",
                (len(self._sending) + 1,),
            ).fetchall()
            rest = [at for row, at, _ in first if row not in besides]
            taken = sum(one for row, _, one in first if row in self._sending)
            return int(count), max(0, int(size) - taken), rest[0] if rest else None

        count, size, sealed_us = await self._core.main.database.read(work)
        streams = [
            bound.stream
            for bound in self._core.main.bounds.values()
            if bound.stream is not None and bound.stream.rows
        ]
        offset_us = self._clock.best_us() - self._clock.now_us()
        moments = [stream.rows[0].wall_us for stream in streams]
        moments += [] if sealed_us is None else [sealed_us]
        return Report(
            at=self._clock.best_us(),
            records=sum(stream.waiting for stream in streams),
            segments=max(0, count - len(self._sending)),
            bytes=size,
            sending=len(self._sending),
            oldest=min(moments) + offset_us if moments else None,
        )
