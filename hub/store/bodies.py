"""Segment bodies on disk: immutable packs, named by the hash of their bytes.

A pack is written once and never changed, so readers need no lock. It becomes visible in two steps:
the file (here, durable at return), then the transaction whose rows point into it. A pack without
rows is an orphan: harmless, and swept after a day.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from hub.files import sync_folder
from hub.store.engine import point
from protocol.errors import Code, UnavailableError

_TEMPORARY: Final = ".tmp"


class Written(NamedTuple):
    """A durable pack, and where each body lies in it."""

    name: str  #: hex SHA-256 of the pack's bytes
    size: int  #: bytes
    offsets: list[int]  #: of each body, in the order given


class Bodies:
    """A folder of packs: `packs/ab/abcdef….pack`."""

    def __init__(self, folder: Path) -> None:
        """folder: made if absent, readable by its owner only.

        Synced once at start: a process killed between its mkdir and the fsync after it leaves a
        prefix folder that later packs would otherwise be lost with.
        """
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_folder(folder)
        sync_folder(folder.parent)

    def write(self, bodies: Sequence[bytes | memoryview]) -> Written:
        """Join bodies to one pack; at return it survives a power cut. Blocks: not on the loop.

        System calls, in this order (new pack):
            mkdir(packs/ab), fsync(packs)          only the first time for this prefix
            openat(packs/ab/<name>.tmp, O_CREAT | O_TRUNC)
            writev                                 until all is written
            fsync(file), close
            rename(<name>.tmp, <name>.pack)
            fsync(packs/ab)
        Writing the same bodies again finds the file, refreshes its age (so that the sweeper leaves
        it alone) and syncs file and folder again: the first writer may have been cut off between
        its rename and its fsync. Raises UnavailableError if the disk is full or fails; what was
        begun is taken away.
        """
        hasher, offsets, size = hashlib.sha256(), [], 0
        for body in bodies:
            offsets.append(size)
            size += len(body)
            hasher.update(body)
        name = hasher.hexdigest()
        try:
            self._write(name, bodies, size)
        except OSError as error:
            self._path(name).with_suffix(_TEMPORARY).unlink(missing_ok=True)
            raise UnavailableError(Code.DISK_FULL, field="packs", value=error.strerror) from error
        return Written(name, size, offsets)

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Bytes of a pack. Raises FileNotFoundError if it is gone, EOFError if it is shorter."""
        with self._path(name).open("rb") as file:
            found = os.pread(file.fileno(), length, offset)
        if len(found) != length:
            raise EOFError(name)
        return found

    def prefixes(self) -> list[str]:
        """The folders that packs are spread over: the first two digits of their names."""
        return sorted(path.name for path in self._folder.iterdir() if path.is_dir())

    def files(self, prefix: str) -> list[tuple[str, float]]:
        """(file name, mtime in seconds) of one prefix's packs, and of what is half-written."""
        with os.scandir(self._folder / prefix) as found:
            return [
                (one.name, one.stat().st_mtime)
                for one in found
                if one.name.endswith((".pack", _TEMPORARY))
            ]

    def age_reference(self, file_name: str) -> float | None:
        """When one file was last written or refreshed, seconds; None if it is gone."""
        try:
            return (self._folder / file_name[:2] / file_name).stat().st_mtime
        except FileNotFoundError:
            return None

    def remove(self, file_name: str) -> None:
        """Take one file away (an orphan; the sweeper has checked under the write lock)."""
        (self._folder / file_name[:2] / file_name).unlink(missing_ok=True)

    def size_of(self, name: str) -> int | None:
        """Size of a pack in bytes, or None if it is gone."""
        try:
            return self._path(name).stat().st_size
        except FileNotFoundError:
            return None

    def _path(self, name: str) -> Path:
        return self._folder / name[:2] / f"{name}.pack"

    def _write(self, name: str, bodies: Sequence[bytes | memoryview], size: int) -> None:
        path = self._path(name)
        if not path.parent.is_dir():
            path.parent.mkdir(mode=0o700, exist_ok=True)
            sync_folder(self._folder)
        if self.size_of(name) == size:
            self._refresh(path)
            return
        temporary = path.with_suffix(_TEMPORARY)
        point("pack.open")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            write_all(handle, bodies)
            point("pack.written")
            os.fsync(handle)
            point("pack.synced")
        finally:
            os.close(handle)
        temporary.rename(path)
        point("pack.renamed")
        sync_folder(path.parent)
        point("pack.folder-synced")

    @staticmethod
    def _refresh(path: Path) -> None:
        os.utime(path)
        sync_file(path)
        sync_folder(path.parent)

    def copy_to(self, name: str, other: "Bodies") -> bool:
        """Copy one pack into another folder of packs, durably; False if it is there already.

        Raises FileNotFoundError if it is gone here, UnavailableError if it cannot be written or
        its bytes are not those that its name says.
        """
        size = self._path(name).stat().st_size
        if other.size_of(name) == size:
            return False
        written = other.write([self._path(name).read_bytes()])
        if written.name != name:
            raise UnavailableError(Code.STORAGE_DAMAGED, field="pack", value=name)
        return True


def write_all(handle: int, chunks: Sequence[bytes | memoryview]) -> None:
    """Write every chunk, however little the system takes at a time."""
    waiting = [memoryview(chunk) for chunk in chunks if len(chunk)]
    while waiting:
        done = os.writev(handle, waiting[:512])
        while waiting and done >= len(waiting[0]):
            done -= len(waiting.pop(0))
        if done:
            waiting[0] = waiting[0][done:]


def sync_file(path: Path) -> None:
    """Make a file's bytes durable: fsync."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
