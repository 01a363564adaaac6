"""A stream that cannot go on: fork after an image restore, overlap, a chain that the hub lost.

What stands before the segment that the hub did not take is at the hub, or can still go there, and
stays in its stream: after a restore of the hub it is due again, and answered as a duplicate. In a
new stream its old rows would overlap with themselves, and old watermarks would be taken for new.
The rest goes on in a new stream that names what it continues; what the hub has goes
(`succession.py`), under the gates of journal and sealer, so that nothing comes between.
"""

import logging
import sqlite3
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from typing import Final

from agent.intake.covered import Covered
from agent.lane import Lane
from agent.store.ports import Identity, Randomness
from agent.store.resources import Bound
from agent.store.schema import StreamState
from agent.succession import End, Succeeded, Succession
from protocol.ids import StreamId

_LOG: Final = logging.getLogger(__name__)


class Forks:
    """Ends streams and begins the ones that follow them."""

    def __init__(
        self, lane: Lane, vault: Lane | None, identity: Identity, random: Randomness
    ) -> None:
        """vault: its readings have the same sources; they are judged by where those stand."""
        self.identity = identity
        self.on_resumed: Callable[[frozenset[str]], None] = lambda _drivers: None
        self._lane = lane
        self._vault = vault
        self._random = random

    async def succeed(
        self,
        bound: Bound,
        *,
        reason: str,
        covered: Covered | None = None,
        stream: bytes | None = None,
        first: int = 0,
    ) -> bool:
        """End the live stream of a resource; what the hub lacks goes on in a new one.

        False: nothing was to be moved, so the hub's answer to the next batch will be the same.

        reason: stands in `continues`, e.g. "fork". covered: what the hub has, None: nothing
        proven. stream: the one that cannot go on; where it had ended before, its segments
        without a receipt join the live stream. first: the segment that it cannot go on with; those
        before it stay. Drivers whose watermark was taken back are named to `on_resumed`: an
        instance in use trusts what it has yielded.
        """
        lane = self._lane
        of_vault = self._vault.journal.gate if self._vault is not None else nullcontext()
        async with lane.sealer.gate, lane.journal.gate, of_vault:
            live = bound.stream
            if live is None:
                return False
            shown = covered or Covered()
            turn = lane.journal.watermarks.turn()
            end = End(StreamId(stream or live.id), first, shown.durable, reason, turn)

            def work(connection: sqlite3.Connection) -> Succeeded:
                return self._write(connection, bound, end, shown)

            def then(result: Succeeded) -> None:
                bound.epoch = max(bound.epoch, shown.epoch)
                self._follow(bound, result)

            result = await lane.database.write("fork", work, then=then)
        _LOG.warning(
            "stream ended",
            extra={
                "resource": bound.local,
                "reason": reason,
                "dropped": result.dropped,
                "returned": result.returned,
                "lost": result.lost,
                "regained": result.regained,
            },
        )
        lane.journal.grew.set()
        return result.has_moved or end.stream == live.id

    def _follow(self, bound: Bound, result: Succeeded) -> None:
        """Move memory after the commit."""
        lane, stream = self._lane, result.stream
        bound.stream = stream
        stream.rows = deque(result.rows)
        stream.next_row = result.next_row
        stream.waiting = sum(row.count for row in result.rows)
        stream.oldest_us = result.rows[0].boot_us if result.rows else None
        stream.state = StreamState.LIVE
        bound.counters.lost += result.lost
        bound.counters.accepted += result.dropped
        lane.epochs.close(bound)
        lane.journal.take_back(bound.id, result.watermarks)
        if result.watermarks:
            # In this turn of the loop: no reading of the old instances may come between.
            drivers = frozenset(driver for driver, _ in result.watermarks)
            if self._vault is not None:
                self._vault.journal.refuse_from(drivers)
            self.on_resumed(drivers)

    def wake(self) -> None:
        """Let the sealer look again: a stream that waited goes on."""
        self._lane.journal.grew.set()

    # --- on the database's thread ----------------------------------------------------------------

    def _write(
        self, connection: sqlite3.Connection, bound: Bound, end: End, covered: Covered
    ) -> Succeeded:
        live = bound.stream
        if live is None:
            raise RuntimeError("no live stream")
        target = live
        if live.id == end.stream:
            target = self._lane.register.follow(connection, bound, live, reason=end.reason)
        succession = Succession(
            connection=connection,
            lane=self._lane,
            identity=self.identity,
            random=self._random,
            bound=bound,
            end=end,
            covered=covered,
            result=Succeeded(target, next_row=target.next_row),
        )
        return succession.run(live)
