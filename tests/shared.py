"""What tests of several packages share, and where they find public vectors and device samples."""

import os
from pathlib import Path

import msgspec

from protocol.program.units import Between, Unit
from protocol.program.walk import bare, options

ROOT = Path(__file__).resolve().parent.parent

_CANDIDATE = Path(os.environ.get("SHANMEN_SHARED", ROOT.parent / "shared"))

#: The folder with `vectors/` and `device-samples/`, or None where it is not present.
SHARED: Path | None = _CANDIDATE if (_CANDIDATE / "vectors").is_dir() else None


def bounds_of(cls: type[msgspec.Struct]) -> dict[str, tuple[type[Unit], Between]]:
    """Durations and sizes of a settings file that have bounds, by key path."""
    found = {}
    for path, entry in options(cls).items():
        kind, metas = bare(entry.annotation)
        found |= {path: (kind, one) for one in metas if isinstance(one, Between)}
    return found
