"""Opening a hub's data: keys, store, bodies, ledger, and the use cases over them.

Done the same way by the serving process and by a command that finds no server, always under the
folder's lock, so that there is one writer.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from hub import keys as hub_keys
from hub.admin import Admin
from hub.config import HubConfig
from hub.enrol import Enrolments
from hub.faults import Exit, Fault
from hub.folder import Folder
from hub.keys import HubKeys
from hub.last_checkpoint import LastCheckpoint
from hub.ledger import Ledger
from hub.reading import Reading
from hub.record import Recorder
from hub.store import leaves, migrate
from hub.store.bodies import Bodies
from hub.store.engine import Store, Tx
from protocol import ids
from protocol.checkpoint import parse_note
from protocol.errors import ConfigError, FatalError, ShanmenError


def wall_us() -> int:
    """Wall time, µs UTC."""
    return time.time_ns() // 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An open hub, not serving yet."""

    config: HubConfig
    folder: Folder
    keys: HubKeys
    store: Store
    bodies: Bodies
    ledger: Ledger
    last: LastCheckpoint
    recorder: Recorder
    reading: Reading
    enrolments: Enrolments
    admin: Admin


def public_url(config: HubConfig) -> str:
    """What sites reach the hub by."""
    listen = config.listen
    if listen.url:
        return listen.url.rstrip("/")
    host = f"[{listen.host}]" if ":" in listen.host else listen.host
    return f"{'https' if listen.certificate else 'http'}://{host}:{listen.port}"


@asynccontextmanager
async def opened(config: HubConfig, folder: Folder) -> AsyncIterator[Opened]:
    """Open everything, migrate the schema, begin the ledger where there is none; close at the end.

    The caller holds the folder's lock. Raises Fault with the remedy.
    """
    keys = read_keys(folder)
    store = Store(folder.database)
    last = LastCheckpoint(folder.last_checkpoint)
    ledger = Ledger(name=f"shanmen-hub/{ids.show(keys.hub)}", key=keys.log)
    try:
        try:
            await store.write("migrate", _prepare, ledger)
        except FatalError as error:
            raise Fault(Exit.DISK, "schema-newer", why=error.expected) from error
        except ShanmenError as error:
            raise Fault(Exit.DISK, "store-unusable", why=str(error)) from error
        recorder = Recorder(store, ledger, last)
        bodies = Bodies(folder.packs)
        yield Opened(
            config=config,
            folder=folder,
            keys=keys,
            store=store,
            bodies=bodies,
            ledger=ledger,
            last=last,
            recorder=recorder,
            reading=Reading(store, bodies),
            enrolments=Enrolments(
                store, recorder, keys, approve_agents=config.hub.approve_agents
            ),
            admin=Admin(
                store, recorder, keys, region=config.hub.region, url=public_url(config),
                clock_us=wall_us,
            ),
        )  # fmt: skip
    finally:
        last.close()
        await store.close()


def read_keys(folder: Folder) -> HubKeys:
    """Read the hub's keys. Raises Fault."""
    try:
        return hub_keys.read(folder.root)
    except ConfigError as error:
        raise Fault(
            Exit.KEYS, "keys-unusable", file=error.field, expected=error.expected
        ) from error


def _prepare(tx: Tx, ledger: Ledger) -> None:
    migrate.upgrade(tx)
    if leaves.live(tx) is None:
        ledger.begin(tx, wall_us(), reason="init")


async def check_not_older(opened_hub: Opened) -> None:
    """Compare the database with the checkpoint outside it. Raises Fault if it was put back.

    A hub that signed beyond what its database holds would fork its own ledger by serving.
    """
    head = await opened_hub.store.read(leaves.live)
    assert head is not None
    for note in opened_hub.last.read():
        known = parse_note(note)
        if (known.generation, known.size) > (head.generation, head.size):
            raise Fault(
                Exit.RESTORE, "database-older", have=head.size, signed=known.size,
                generation=known.generation,
            )  # fmt: skip
