"""What inbox messages move: how often segments close and how much is sent. Nothing else."""

import dataclasses
from collections.abc import Sequence

from agent.core import Core
from agent.host.clock import Clock
from agent.link.uplink import Uplink
from agent.seal.spool import get, put
from agent.store.database import Database


class SpoolKeep:
    """Small values of the shell in the agent's file; each write is one transaction `keep`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, name: str) -> bytes | None:
        """The value or None."""
        found = await self._database.read(lambda connection: get(connection, f"shell.{name}"))
        return found if isinstance(found, bytes) else None

    async def put(self, name: str, value: bytes) -> None:
        """Durable at return."""
        await self._database.write(
            "keep", lambda connection: put(connection, f"shell.{name}", value)
        )


class CoreEffects:
    """Implements `inbox.Effects` on the core and the uplink."""

    def __init__(self, core: Core, clock: Clock, uplink: Uplink) -> None:
        self._core = core
        self._clock = clock
        self._uplink = uplink

    def live(self, resources: Sequence[bytes], until_us: int) -> None:
        """Short segments for a while; the vault has no part in what the hub asks for."""
        seconds = max(0.0, (until_us - self._clock.hub_us()) / 1e6)
        wanted = set(resources)
        bounds = [one for one in self._core.bounds.values() if one.leaves]
        self._core.live({one.id: seconds for one in bounds if not wanted or one.id in wanted})

    def budget(self, batch_bytes: int, bytes_per_s: int) -> None:
        """Smaller batches, or pauses between them."""
        self._uplink.budget(batch_bytes, bytes_per_s)

    def segment_age(self, resources: Sequence[bytes], seconds: int) -> None:
        """Another age of segments; what has an age of its own in the configuration keeps it."""
        if not resources:
            self._core.sealer.age_s = float(seconds)
        wanted = set(resources)
        for bound in self._core.bounds.values():
            if bound.leaves and bound.id in wanted:
                bound.settings = dataclasses.replace(bound.settings, segment_age_s=float(seconds))
        self._core.main.journal.grew.set()
