"""Records that went uncommitted: counted in memory, declared in gap notes of their own file.

A loss of what may leave is told to the hub by its note; one of the vault stays in the vault, and
its owner finds it in an export.
"""

import sqlite3
from collections.abc import Mapping
from typing import Final

from agent.database import Database
from agent.ports import Randomness
from agent.register import NONCE_BYTES, Register, queue_object
from agent.resources import Bound
from devices.driver import Reading
from protocol.notes import Gap, make_gap

NO_ROOM: Final = "no room"

_Key = tuple[str, str]  # local name, reason
_Loss = tuple[int, int, int]  # count, first and last wall time


class Losses:
    """What one file could not take since its last gap note."""

    def __init__(self, bounds: Mapping[str, Bound]) -> None:
        self._bounds = bounds
        self._by: dict[_Key, _Loss] = {}

    def __bool__(self) -> bool:
        return bool(self._by)

    def drop(self, reading: Reading, at_us: int) -> None:
        """Count a reading that nobody has any more, and for which there is no room."""
        for rows in reading.rows:
            bound = self._bounds.get(rows.resource)
            if bound is not None:
                bound.counters.lost += len(rows.records)
            self.add(rows.resource, NO_ROOM, len(rows.records), at_us)

    def add(self, local: str, reason: str, count: int, at_us: int) -> None:
        """Count records of a resource."""
        before = self._by.get((local, reason), (0, at_us, at_us))
        self._by[local, reason] = (before[0] + count, before[1], at_us)

    async def tell(self, database: Database, register: Register, random: Randomness) -> bool:
        """Write what was counted as gap notes; False if there was nothing. Raises UnavailableError.

        A note names a stream: what was lost before a resource's first record waits for it.
        """
        streams = {
            key: bound
            for key in self._by
            if (bound := self._bounds.get(key[0])) is not None and bound.stream is not None
        }
        told = {key: self._by[key] for key in streams}
        if not told:
            return False

        def work(connection: sqlite3.Connection) -> None:
            for key, (count, first_us, last_us) in told.items():
                bound = streams[key]
                if bound.stream is None:
                    continue
                note = Gap(
                    resource=bound.id,
                    stream=bound.stream.id,
                    unit="time",
                    first=first_us,
                    last=max(first_us, last_us),
                    count=count,
                    reason=key[1],
                    nonce=random(NONCE_BYTES),
                )
                queue_object(connection, make_gap(note, register.identity.signing))

        def then(_: None) -> None:
            for key, (count, _first_us, last_us) in told.items():
                now = self._by.pop(key)
                if now[0] > count:
                    self._by[key] = (now[0] - count, last_us, now[2])

        await database.write("note", work, then=then)
        return True
