"""Spools as released versions wrote them, each frozen by `make.py` when its version was current.

`spool-<user_version>.db.gz` is never written again: what it holds must be delivered by every later
release. What is in it stands in `make.FIRST` and `make.WAITING`.
"""

import gzip
from pathlib import Path

FOLDER = Path(__file__).parent


def frozen(version: int) -> Path:
    """Where the file of a version lies."""
    return FOLDER / f"spool-{version}.db.gz"


def thaw(version: int, target: Path) -> None:
    """Put a copy of it where an agent would have left it."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    target.write_bytes(gzip.decompress(frozen(version).read_bytes()))
