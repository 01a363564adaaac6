"""Where the tests find public vectors and device samples that are not part of the repository."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

_CANDIDATE = Path(os.environ.get("SHANMEN_SHARED", ROOT.parent / "shared"))

#: The folder with `vectors/` and `device-samples/`, or None where it is not present.
SHARED: Path | None = _CANDIDATE if (_CANDIDATE / "vectors").is_dir() else None
