"""Durable small files: either the old content or the new one after a power cut, never half.

System calls in order: open(tmp) · write · fsync · rename · open(folder) · fsync(folder).
"""

import os
from pathlib import Path


def save(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write `path` durably; at return the new content survives a power cut. Raises OSError."""
    # One fixed name: what a crash leaves behind is overwritten, not collected.
    temporary = path.with_name(f".{path.name}.new")
    try:
        _write(temporary, data, os.O_TRUNC, mode)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def _write(path: Path, data: bytes, how: int, mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | how
    descriptor = os.open(path, flags, mode)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Unlink durably; a file that is not there is fine."""
    try:
        path.unlink()
    except FileNotFoundError:
        return
    sync_folder(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder that only its owner may enter (0700). Raises OSError."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
