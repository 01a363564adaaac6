"""Put together for one `shanmen read`: memory, client, ledger, reader."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from hub.owner.account import Account, WithheldError
from hub.owner.client import Client
from hub.owner.keyfile import OwnerKeys
from hub.owner.ledger import SetBack, open_log
from hub.owner.reader import Found, Reader
from hub.owner.sources import Fetched, Sources
from hub.owner.state import Known, Memory
from hub.owner.texts import ToldError
from protocol.errors import Code
from protocol.ids import PrincipalId, ResourceId, show
from protocol.records import Columns


@dataclass(frozen=True, slots=True)
class Interval:
    """Event time from `since`, inclusive, to `until`, exclusive, µs UTC; None leaves it open."""

    since: int | None = None
    until: int | None = None

    def has(self, event_us: int) -> bool:
        """Whether an event lies in it."""
        return self.touches(event_us, event_us)

    def touches(self, first: int, last: int) -> bool:
        """Whether anything from `first` to `last`, both inclusive, lies in it."""
        return (self.since is None or last >= self.since) and (
            self.until is None or first < self.until
        )


@dataclass(slots=True)
class Reading:
    """A resource whose heads are verified; records are fetched as they are asked for."""

    found: Found
    size: int  # of the ledger it was proven against
    _reader: Reader
    _heads: list[Fetched]

    async def records(self, interval: Interval) -> AsyncIterator[Columns]:
        """Records of the segments that touch the interval; the caller picks the records."""
        wanted = [
            one
            for one in self._heads
            if interval.touches(one.head.header.first_at, one.head.header.last_at)
        ]
        async for columns in self._reader.records(wanted, self.found.entries):
            yield columns


@asynccontextmanager
async def open_reading(
    key: Path, keys: OwnerKeys, name: str, *, hub: str | None
) -> AsyncIterator[Reading]:
    """Verify the ledger and all heads of one resource.

    What was learned of the hub is remembered as soon as its ledger is proven. Raises UnprovenError,
    VerifyError, RefusedError, UnavailableError, ConfigError.
    """
    memory = Memory(key)
    known = memory.find(hub)
    async with Client(known.url, PrincipalId(known.hub), keys.signing, ca=known.ca) as client:
        sources = Sources(client, dict(known.agents))
        resource = _only(await sources.resolve(name), name)
        reader, heads, found, known = await _verified(client, sources, keys, resource, memory)
        memory.put(msgspec.structs.replace(known, agents=sources.agents))
        yield Reading(found, reader.ledgers[0].checkpoint.size, reader, heads)


async def _verified(
    client: Client, sources: Sources, keys: OwnerKeys, resource: ResourceId, memory: Memory
) -> tuple[Reader, list[Fetched], Found, Known]:
    """Heads, wraps and ledger, held against each other and against what the ledger names.

    A hub that took segments while we listed shows them when asked again: it must then show all
    that stood under the checkpoint which was verified before. So only the second answer accuses.
    """
    known = memory.find(client.url)
    before: tuple[int, int] | None = None
    told: list[SetBack] = []
    while True:
        reader = Reader(client, sources, [], keys.owner, keys.sealing, resource)
        # Wraps before the checkpoint: what an agent has seen is then never newer than what we see.
        heads, wraps = await reader.fetch()
        ledgers, known, lost = await open_log(client, known)
        told += lost
        if lost:  # what a restored hub lost may be missing: it is told, and remembered anew
            known = msgspec.structs.replace(known, tops={}, scanned={})
        memory.put(msgspec.structs.replace(known, agents=sources.agents))
        reader.ledgers.extend(ledgers)
        found = Found(set_back=told)
        await reader.check(heads, wraps, found)
        account = Account(sources, known, ledgers, before)
        agents = {one.head.header.agent for one in heads} | {await sources.agent_of(resource)}
        try:
            account.check_tops(heads, resource)
            done = await account.check_leaves(heads, resource, agents)
        except WithheldError:
            if before is not None:
                raise
            newest = ledgers[0].checkpoint
            before = newest.generation, newest.size
            continue
        found.others = done.others
        streams = {bytes(one.head.header.stream) for one in heads}
        found.notes = [one async for one in sources.notes(resource, agents, streams)]
        return reader, heads, found, done.known


def _only(found: list[ResourceId], name: str) -> ResourceId:
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(show(one) for one in found)
        raise ToldError(Code.CONFLICT, "read.ambiguous", name=name, ids=ids)
    raise ToldError(Code.UNKNOWN_RESOURCE, "read.unknown", name=name)
