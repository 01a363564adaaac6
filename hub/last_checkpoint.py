"""The newest checkpoint, outside the database: how a hub notices that it was put back in time.

A hub whose database was replaced by an older copy would sign a second history. So each checkpoint
that leaves the hub is first written to the file `last-checkpoint`, and a start compares: a
database behind the file serves nothing until `shanmen-hub restore` opens a new generation.

The file has two slots of 4 KiB written in turn, each `sha256 ‖ newline ‖ note`, padded: a torn
write spoils one of them and the other is the one before. It is synced when it is made and at
stop, not with each write: a write that a power cut loses leaves the file *behind* the database
(which syncs each commit), and that is harmless; only a file *ahead* of the database says restore.
"""

import hashlib
import os
from pathlib import Path
from typing import Final

from hub.store.bodies import replace_file
from hub.store.engine import point
from protocol.errors import Code, UnavailableError
from protocol.limits import NOTE_BYTES_MAX

SLOT_BYTES: Final = NOTE_BYTES_MAX + 128


class LastCheckpoint:
    """The file; the newest valid slot is the one of the larger (generation, size)."""

    def __init__(self, path: Path) -> None:
        """path: made on first write."""
        self._path = path
        self._handle: int | None = None
        self._next = 0

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

        System calls: pwrite of one slot. First time: replace_file (see `bodies`), which syncs.
        Raises UnavailableError if the file cannot be written: then the answer must not go out.
        """
        point("last-checkpoint.before")
        try:
            if self._handle is None:
                self._open(note)
            else:
                os.pwrite(self._handle, _pack(note), self._next * SLOT_BYTES)
                self._next ^= 1
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
        kept = self.read()[-1:] or [note]
        replace_file(self._path, _pack(kept[0]) + _pack(note))
        self._handle = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
        self._next = 0


def _pack(note: str) -> bytes:
    data = note.encode()
    return (hashlib.sha256(data).hexdigest().encode() + b"\n" + data).ljust(SLOT_BYTES, b"\n")


def _unpack(slot: bytes) -> str | None:
    digest, _, rest = slot.partition(b"\n")
    data = rest.rstrip(b"\n") + b"\n"  # a note ends with exactly one newline
    if hashlib.sha256(data).hexdigest().encode() != digest:
        return None
    return data.decode()
