"""Where drivers hand over: a reading goes to the files of its resources, then is acknowledged.

Nothing is awaited per record. Which records are good, which resource they belong to and what they
look like as columns is decided once a commit group (`groups.prepare`), not once a record.
"""

import asyncio
import hashlib
from collections.abc import Mapping

from agent.intake.groups import MAY_WAIT, Pending
from agent.intake.seen import KEY_BYTES
from agent.lane import Lane
from agent.store.disk import DiskLevel
from agent.store.ports import Clock
from agent.store.resources import Bound, Counters
from agent.store.rest import RootKey
from devices.driver import Promise, Reading, Rows


class Pipeline:
    """The one door for readings. All methods are for the loop's thread."""

    def __init__(
        self,
        *,
        main: Lane,
        vault: Lane | None,
        bounds: Mapping[str, Bound],
        clock: Clock,
        root: RootKey,
    ) -> None:
        self._main = main
        self._vault = vault
        self._in_vault = frozenset(vault.bounds) if vault is not None else frozenset()
        self._bounds = bounds
        self._clock = clock
        self._seen_key = root.derive(b"seen")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._hashes: dict[str, hashlib.blake2b] = {}  # state after key and driver's name

    @property
    def level(self) -> DiskLevel:
        """What the disk still allows: at POLLED_STOP drivers that poll stop."""
        return self._main.database.level

    def submit(self, reading: Reading, *, driver: str) -> asyncio.Future[None]:
        """Hand a reading over; the future is done after its commit, and never before.

        driver: stable name of the driver instance; owner of identities and watermarks. `ack` is
        called on the loop after the commit, whether the future is awaited or not. Raises
        UnavailableError BUSY when `room` was ignored, FatalError after a storage failure.
        """
        if self._vault is None or not self._touches_vault(reading):
            return self._submit(self._main, reading, driver)
        if all(rows.resource in self._in_vault for rows in reading.rows):
            return self._submit(self._vault, reading, driver)
        return asyncio.ensure_future(self._submit_both(self._vault, reading, driver))

    async def room(self, promise: Promise) -> None:
        """Wait until a source of this class is welcome; polled ones stop at 85 % of the disk."""
        if not self._main.journal.has_room:
            await self._main.journal.room()
        if promise in MAY_WAIT:
            await self._main.polled_room.wait()

    def watermark(self, driver: str, source: str) -> bytes | None:
        """The last committed watermark of a driver's source; from memory."""
        key = (driver, source)
        found = self._main.journal.watermarks.get(key)
        if found is None and self._vault is not None:
            found = self._vault.journal.watermarks.get(key)
        return found

    def counters(self) -> dict[str, Counters]:
        """Totals by local name of every resource that may leave; the vault's are with the vault."""
        return {local: bound.counters for local, bound in self._bounds.items() if bound.leaves}

    def _touches_vault(self, reading: Reading) -> bool:
        return any(rows.resource in self._in_vault for rows in reading.rows)

    def _submit(self, lane: Lane, reading: Reading, driver: str) -> asyncio.Future[None]:
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        records, size = 0, 0.0
        for rows in reading.rows:
            bound = self._bounds.get(rows.resource)
            count = len(rows.records)
            records += count
            size += count * (bound.record_bytes if bound is not None else 256.0)
        key = None
        if reading.identity is not None:
            state = self._hashes.get(driver)
            if state is None:
                state = hashlib.blake2b(key=self._seen_key, digest_size=KEY_BYTES)
                state.update(driver.encode() + b"\0")
                self._hashes[driver] = state
            state = state.copy()
            state.update(reading.identity)
            key = state.digest()
        clock = self._clock
        lane.journal.submit(
            Pending(
                reading,
                driver,
                clock.now_us(),
                clock.monotonic_us(),
                records,
                future,
                size,
                key,
            )
        )
        return future

    async def _submit_both(self, vault: Lane, reading: Reading, driver: str) -> None:
        """A message over both files: the vault first, so that no watermark runs ahead of it."""
        inside: list[Rows] = []
        outside: list[Rows] = []
        for rows in reading.rows:
            (inside if rows.resource in self._in_vault else outside).append(rows)
        await self._submit(
            vault,
            Reading(
                rows=inside,
                identity=reading.identity,
                urgent=reading.urgent,
                promise=reading.promise,
            ),
            driver,
        )
        await self._submit(
            self._main,
            Reading(
                rows=outside,
                identity=reading.identity,
                watermarks=reading.watermarks,
                rejected=reading.rejected,
                lost=reading.lost,
                urgent=reading.urgent,
                promise=reading.promise,
                ack=reading.ack,
            ),
            driver,
        )
