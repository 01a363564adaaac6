"""Takes away packs that no segment refers to: what a killed hub or a lost race left behind.

A pack goes only if nothing refers to it *and* it is older than a day, both checked again under the
write lock. The day covers a transaction that is still to commit: writing the same bodies again
refreshes the age, so a pack that somebody is about to refer to is never old.
"""

import time
from typing import Final

from hub.store import inbox, nonces, packs
from hub.store.bodies import Bodies
from hub.store.engine import Store, Tx, point

ORPHAN_AGE_S: Final = 24 * 3600


class Sweeper:
    """Finds and removes orphans; `sweep` may run at any time, in any of several processes."""

    def __init__(self, store: Store, bodies: Bodies) -> None:
        self._store = store
        self._bodies = bodies

    async def sweep(self, now_us: int) -> int:
        """Remove orphaned packs and expired rows; returns how many files went.

        now_us: wall time, the clock of file times.
        """
        await self._store.write("expire", _expire, now_us)
        limit_s = now_us / 1_000_000 - ORPHAN_AGE_S
        removed = 0
        for prefix in self._bodies.prefixes():
            for file_name in await self._store.read(self._candidates, prefix, limit_s):
                removed += await self._store.write("sweep", self._remove, file_name, limit_s)
        return removed

    def _candidates(self, tx: Tx, prefix: str, limit_s: float) -> list[str]:
        """Old files of one prefix that nothing refers to as this snapshot has it."""
        old = [name for name, modified_s in self._bodies.files(prefix) if modified_s < limit_s]
        known = packs.names(tx, prefix) if old else set()
        return [one for one in old if one.partition(".")[0] not in known]

    def _remove(self, tx: Tx, file_name: str, limit_s: float) -> int:
        """Under the write lock: nobody can begin to refer to the pack between check and removal."""
        name = file_name.partition(".")[0]
        modified_s = self._bodies.age_reference(file_name)
        if modified_s is None or modified_s >= limit_s or packs.is_used(tx, name):
            return 0
        packs.forget(tx, name)
        point("sweep.remove")
        self._bodies.remove(file_name)
        point("sweep.removed")
        return 1


def _expire(tx: Tx, now_us: int) -> None:
    nonces.sweep(tx, now_us)
    inbox.sweep(tx, now_us)


def wall_us() -> int:
    """Wall time, µs UTC."""
    return time.time_ns() // 1000
