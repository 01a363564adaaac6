"""Where drivers hand over: a reading goes to the files of its resources, then is acknowledged.

Nothing is awaited per record. Which records are good, which resource they belong to and what they
look like as columns is decided once a commit group (`groups.prepare`), not once a record.
"""

import asyncio
import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from agent.intake.covered import Key
from agent.intake.groups import MAY_WAIT, Pending
from agent.intake.routes import Routes
from agent.intake.seen import KEY_BYTES
from agent.lane import Lane
from agent.store.disk import DiskLevel
from agent.store.ports import Clock
from agent.store.resources import Bound, Counters
from agent.store.rest import RootKey
from devices.driver import Promise, Reading
from protocol.errors import Code, UnavailableError

#: How long a stop waits for the second commit of a reading; a full vault may take nothing.
SETTLE_S: Final = 2.0
_REJECTED_BYTES: Final = 256  # of a rejection beside its raw bytes


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
        feeds: Mapping[str, Collection[str]],
    ) -> None:
        """feeds: the resources of each driver; of a driver that is not in it, any."""
        self._main = main
        self._vault = vault
        self._routes = Routes(vault.bounds if vault is not None else (), feeds)
        #: By source: the file (None: both, or not known yet) and the future of its last reading.
        self._last: dict[Key, tuple[Lane | None, asyncio.Future[None]]] = {}
        self._open: set[asyncio.Future[None]] = set()  # of readings that go to both, in turn
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
        if self._vault is None or not self._routes.reaches_vault(driver):
            return self._submit(self._main, reading, driver)
        parts = self._routes.split(reading, driver=driver, known=self._bounds)
        lane = None if len(parts) > 1 else self._vault if parts[0][0] else self._main
        sources = [(driver, mark.source) for mark in reading.watermarks]
        before = [self._last[one] for one in sources if one in self._last]
        waits = [future for other, future in before if other is not lane and not future.done()]
        if lane is not None and not waits:
            future = self._submit(lane, parts[0][1], driver)
        else:
            future = asyncio.ensure_future(self._in_turn(self._vault, parts, driver, waits))
            self._open.add(future)
            future.add_done_callback(self._open.discard)
            lane = None
        self._last.update(dict.fromkeys(sources, (lane, future)))
        return future

    async def room(self, promise: Promise) -> None:
        """Wait until a source of this class is welcome; polled ones stop at 85 % of the disk."""
        if not self._main.journal.has_room:
            await self._main.journal.room()
        if promise in MAY_WAIT:
            await self._main.polled_room.wait()

    async def settle(self) -> None:
        """Before a stop: wait for readings that are in one file and not yet in the other."""
        if self._open:
            await asyncio.wait(tuple(self._open), timeout=SETTLE_S)

    def watermark(self, driver: str, source: str) -> bytes | None:
        """The last committed watermark of a driver's source; from memory."""
        return self._main.journal.watermarks.values.get((driver, source))

    def counters(self) -> dict[str, Counters]:
        """Totals by local name of every resource that may leave; the vault's are with the vault."""
        return {local: bound.counters for local, bound in self._bounds.items() if bound.leaves}

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
        for bad in reading.rejected:
            size += len(bad.raw) + _REJECTED_BYTES
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

    async def _in_turn(
        self,
        vault: Lane,
        parts: Sequence[tuple[bool, Reading]],
        driver: str,
        before: Sequence[asyncio.Future[None]],
    ) -> None:
        """Commits in two files, one after the other: the newest position must be the last one.

        Raises UnavailableError BUSY where what is handed over may be counted again: the commit
        before it failed, or the hub set the driver's sources back meanwhile.
        """
        resets = self._main.journal.resets[driver]
        counts = parts[0][1].promise is not Promise.C  # what cannot be asked again is not refused
        for future in before:
            await asyncio.wait((future,))
            if not counts:
                continue
            if future.cancelled() or future.exception() is not None:
                raise UnavailableError(Code.BUSY, field="journal", value=driver)
        for is_inside, part in parts:
            if counts and self._main.journal.resets[driver] != resets:
                raise UnavailableError(Code.BUSY, field="journal", value=driver)
            await self._submit(vault if is_inside else self._main, part, driver)
