"""`shanmen-hub restore`: a backup comes back, and the ledger says so in a new generation.

Runs only where no hub serves (the folder's lock). Killed anywhere, it is simply run again.
"""

import asyncio
import shutil
from pathlib import Path

import msgspec

from hub import maintenance
from hub.faults import Exit, Fault
from hub.files import save
from hub.folder import Folder
from hub.keys import FOLDER as KEYS_FOLDER
from hub.last_checkpoint import LastCheckpoint
from hub.ledger import Ledger
from hub.maintenance import Restored
from hub.opening import log_name, read_keys, wall_us
from hub.store import migrate
from hub.store.audit import Actor
from hub.store.bodies import Bodies
from hub.store.engine import Store
from protocol.errors import ShanmenError


def bring_settings(backup: Path, config: Path) -> None:
    """On a new machine: settings and keys come from the backup; what is there is never replaced."""
    if config.exists() or not (backup / config.name).is_file():
        return
    try:
        keys = config.parent / KEYS_FOLDER
        keys.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in sorted(backup.glob("*.key")):
            if not (keys / path.name).exists():
                save(keys / path.name, path.read_bytes())
        save(config, (backup / config.name).read_bytes())
    except OSError as error:
        raise Fault(Exit.DISK, "folder-unusable", folder=config.parent, why=error) from error


async def restore(folder: Folder, backup: Path | None, *, by: Actor, above: int = 0) -> Restored:
    """Put a backup in place, or keep the database that is there, and open a new generation.

    above: the highest generation that anybody saw, where this machine cannot know it.
    The caller holds the folder's lock. Raises Fault.
    """
    keys = read_keys(folder)
    ledger = Ledger(name=log_name(keys), key=keys.log)
    bodies = Bodies(folder.packs)
    try:
        database, noted = folder.database, 0
        if backup is not None:
            database = await asyncio.to_thread(maintenance.stage, backup, folder.root)
            noted = await asyncio.to_thread(maintenance.opened_before, backup)
        store = Store(database)
        try:
            await store.write("migrate", migrate.upgrade)
            restored = await maintenance.begin_generation(
                store,
                bodies,
                ledger,
                LastCheckpoint(folder.last_checkpoint).read(),
                by=by,
                now_us=wall_us(),
                noted=noted,
                above=above,
            )
        finally:
            await store.close()
        if backup is not None:
            done = await asyncio.to_thread(maintenance.note_opened, backup, restored.generation)
            restored = msgspec.structs.replace(restored, noted=done)
            await asyncio.to_thread(maintenance.put_in_place, folder.root)
    except ShanmenError as error:
        raise Fault(Exit.DISK, "restore-failed", why=error) from error
    except (OSError, shutil.Error) as error:
        raise Fault(Exit.DISK, "restore-failed", why=error) from error
    return restored
