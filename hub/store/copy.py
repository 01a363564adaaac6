"""A consistent copy of the running database, in one file."""

import sqlite3
from pathlib import Path

from hub.store.bodies import sync_file
from protocol.errors import Code, UnavailableError

#: Pages copied before other threads of this process may go on, 4 KiB each.
_PAGES_A_STEP = -1  # all in one step: a copy that is interrupted by writes would begin anew


def copy_database(source: Path, target: Path) -> None:
    """Copy the database as it is committed now; readers and the writer go on meanwhile.

    One read snapshot over a connection of its own, which never writes; the WAL grows as long as it
    stands. The copy is durable at return (not its name: sync the folder). Blocks. Raises
    UnavailableError if the disk is full or the source cannot be read.
    """
    target.unlink(missing_ok=True)
    try:
        reader = sqlite3.connect(f"file:{source}?mode=ro", uri=True)
        writer = sqlite3.connect(target)
        try:
            reader.backup(writer, pages=_PAGES_A_STEP)
            # A copy has no WAL beside it: it must be whole in one file.
            writer.execute("PRAGMA journal_mode=DELETE")
        finally:
            writer.close()
            reader.close()
        target.chmod(0o600)
        sync_file(target)
    except (sqlite3.Error, OSError) as error:
        raise UnavailableError(
            Code.DISK_FULL, field="backup", value=str(error), expected="room and a readable source"
        ) from error
