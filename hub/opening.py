"""Opening a hub's data: keys, store, bodies, ledger, and the use cases over them.

Done the same way by the serving process and by a command that finds no server, always under the
folder's lock, so that there is one writer.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from hub import keys as hub_keys
from hub import maintenance
from hub.admin import Admin
from hub.config import FILE_NAME, HubConfig
from hub.enrol import Enrolments
from hub.faults import Exit, Fault
from hub.folder import Folder
from hub.keys import FOLDER as KEYS_FOLDER
from hub.keys import HubKeys
from hub.last_checkpoint import LastCheckpoint
from hub.ledger import Ledger
from hub.reading import Reading
from hub.record import Recorder
from hub.store import leaves, migrate
from hub.store.bodies import Bodies
from hub.store.engine import Store, Tx
from protocol.checkpoint import log_origin
from protocol.errors import ConfigError, FatalError, ShanmenError
from protocol.program.faults import Phrase


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


def log_name(keys: HubKeys) -> str:
    """The origins' first part: the ledger's name without its generation."""
    return log_origin(keys.hub, 0).rpartition("/")[0]


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
    kept = [*sorted((folder.root / KEYS_FOLDER).glob("*.key")), folder.root / FILE_NAME]
    also = [one for one in kept if one.is_file()]
    store = Store(folder.database)
    last = LastCheckpoint(folder.last_checkpoint)
    ledger = Ledger(name=log_name(keys), key=keys.log)
    try:
        try:
            await store.write("migrate", _prepare, ledger)
            await store.read(_check, ledger, last.read())
        except FatalError as error:
            raise Fault(Exit.DISK, "schema-newer", why=Phrase(error.expected)) from error
        except ShanmenError as error:
            raise Fault(Exit.DISK, "store-unusable", why=error) from error
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
                store,
                recorder,
                keys,
                bodies=bodies,
                also=also,
                region=config.hub.region, url=public_url(config),
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
            Exit.KEYS, "keys-unusable", file=error.field, expected=Phrase(error.expected)
        ) from error


def _prepare(tx: Tx, ledger: Ledger) -> None:
    migrate.upgrade(tx)
    if leaves.live(tx) is None:
        ledger.begin(tx, wall_us(), reason="init")


def _check(tx: Tx, ledger: Ledger, notes: list[str]) -> None:
    """Refuse a database that was put back in time. Raises Fault.

    A hub that signed beyond what its database holds would fork its own ledger by serving, and an
    operator's command would append to the wrong history.
    """
    try:
        maintenance.check_start(tx, ledger, notes)
    except FatalError as error:
        raise Fault(
            Exit.RESTORE, "database-older", have=error.value, expected=Phrase(error.expected)
        ) from error
