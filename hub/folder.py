"""The data folder: where everything lies, and the lock that keeps two writers apart.

    hub.toml  hub.db  packs/  keys/ (0700, files 0600)  last-checkpoint  hub.lock  admin.sock (0600)

Whoever opens the store holds `hub.lock`: the serving process for as long as it runs, an operator's
command for its moment. A command that finds it held talks to the server over `admin.sock`.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hub import config as configs
from hub.config import HubConfig
from hub.faults import Exit, Fault
from protocol.program.settings import FILE_BYTES_MAX


@dataclass(frozen=True, slots=True)
class Folder:
    """Paths of one hub."""

    root: Path

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.root / "hub.db"

    @property
    def packs(self) -> Path:
        """Bodies of segments."""
        return self.root / "packs"

    @property
    def last_checkpoint(self) -> Path:
        """The newest checkpoint, outside the database."""
        return self.root / "last-checkpoint"

    @property
    def socket(self) -> Path:
        """Where the serving process takes commands of the operator."""
        return self.root / "admin.sock"

    @contextmanager
    def locked(self) -> Iterator[bool]:
        """Try to be the one that opens the store; yields whether it is."""
        try:
            handle = os.open(self.root / "hub.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Fault(Exit.DISK, "folder-unusable", folder=self.root, why=error) from error
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held = True
            except BlockingIOError:
                held = False
            yield held
        finally:
            os.close(handle)


def read_config(path: Path) -> tuple[HubConfig, Folder]:
    """Read hub.toml and find the data folder. Raises ConfigProblems, Fault."""
    try:
        with path.open("rb") as file:
            text = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError as error:
        raise Fault(Exit.CONFIG, "config-missing", file=path) from error
    except OSError as error:
        raise Fault(Exit.CONFIG, "config-unreadable", file=path, why=error) from error
    loaded = configs.load(text, file=str(path))
    return loaded, Folder((path.parent / loaded.hub.data).resolve())
