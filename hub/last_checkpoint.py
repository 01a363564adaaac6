"""The newest checkpoint, outside the database: how a hub notices that it was put back in time.

A hub whose database was replaced by an older copy would sign a second history. So each checkpoint
that leaves the hub is first written to the file `last-checkpoint`, and a start compares: a
database behind the file serves nothing until `shanmen-hub restore` opens a new generation.

The file has slots of 4 KiB, each `sha256 ‖ newline ‖ note`, padded. Two are written in turn and not
synced each time: a write that a power cut loses leaves the file *behind* the database (which syncs
each commit), and that is harmless; only a file *ahead* of the database says restore. A cut may
tear both, so a third, the anchor, is written now and then between two syncs.
"""

import hashlib
import os
from pathlib import Path
from typing import Final

from hub.files import save
from hub.store.engine import point
from protocol.errors import Code, UnavailableError
from protocol.limits import NOTE_BYTES_MAX

SLOT_BYTES: Final = NOTE_BYTES_MAX + 128
ANCHOR: Final = 2  # number of the slot
ANCHOR_EVERY: Final = 1024  # writes: two syncs among a thousand are nothing


class LastCheckpoint:
    """The file; of its notes the newest is that of the largest (generation, size)."""

    def __init__(self, path: Path) -> None:
        """path: made on first write."""
        self._path = path
        self._handle: int | None = None
        self._writes = 0

    def read(self) -> list[str]:
        """The notes that can be read, in no order; empty where there is no file."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return []
        slots = (_unpack(data[i : i + SLOT_BYTES]) for i in range(0, len(data), SLOT_BYTES))
        return [note for note in slots if note is not None]

    def write(self, note: str) -> None:
        """Write a checkpoint before it leaves the hub.

        System calls: pwrite of one slot; each ANCHOR_EVERY times fsync, pwrite, fsync. First time:
        save (see `hub.files`), which syncs.
        Raises UnavailableError if the file cannot be written: then the answer must not go out.
        """
        point("last-checkpoint.before")
        try:
            if self._handle is None:
                self._open(note)
            else:
                self._write(self._handle, _pack(note))
        except OSError as error:
            raise UnavailableError(
                Code.DISK_FULL, field="last-checkpoint", value=error.strerror
            ) from error
        point("last-checkpoint.after")

    def close(self) -> None:
        """Sync and close."""
        if self._handle is not None:
            os.fsync(self._handle)
            os.close(self._handle)
            self._handle = None

    def _open(self, note: str) -> None:
        save(self._path, _pack(note) * (ANCHOR + 1))
        self._handle = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
        self._writes = 0

    def _write(self, handle: int, slot: bytes) -> None:
        os.pwrite(handle, slot, self._writes % ANCHOR * SLOT_BYTES)
        self._writes += 1
        if self._writes % ANCHOR_EVERY == 0:
            os.fsync(handle)
            os.pwrite(handle, slot, ANCHOR * SLOT_BYTES)
            os.fsync(handle)


def _pack(note: str) -> bytes:
    data = note.encode()
    return (hashlib.sha256(data).hexdigest().encode() + b"\n" + data).ljust(SLOT_BYTES, b"\n")


def _unpack(slot: bytes) -> str | None:
    digest, _, rest = slot.partition(b"\n")
    data = rest.rstrip(b"\n") + b"\n"  # a note ends with exactly one newline
    if hashlib.sha256(data).hexdigest().encode() != digest:
        return None
    return data.decode()
