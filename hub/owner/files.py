"""Files that must survive: written beside, synced, renamed, and the folder synced."""

import os
from pathlib import Path


def write_durably(path: Path, data: bytes, *, replace: bool) -> None:
    """Write a file that only its owner may read (0600), whole or not at all, on the disk.

    replace: otherwise an existing file is refused. Raises FileExistsError, OSError.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    descriptor = os.open(temporary, flags, 0o600)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if replace:
            temporary.replace(path)
        else:
            os.link(temporary, path)  # fails where the name exists: two runs cannot both win
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
