"""Scripts and styles: read once at start, served under a name that changes with their content."""

import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import Final

_MEDIA: Final = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file."""

    body: bytes
    media: str


class Assets:
    """All files of `static/`; `digest` is over all of them, so that modules can name each other."""

    def __init__(self) -> None:
        folder = resources.files(__package__).joinpath("static")
        self._files = {
            one.name: Asset(one.read_bytes(), _MEDIA[one.name.rpartition(".")[2]])
            for one in folder.iterdir()
            if one.is_file()
        }
        whole = hashlib.sha256()
        for name in sorted(self._files):
            whole.update(name.encode() + b"\x00" + self._files[name].body)
        self.digest = whole.hexdigest()[:16]

    def find(self, digest: str, name: str) -> Asset | None:
        """The file; None for an unknown name, or one of another release."""
        return self._files.get(name) if digest == self.digest else None

    def url(self, name: str) -> str:
        """Where a file of ours is. Raises KeyError for one that is not there."""
        self._files[name]
        return f"/static/{self.digest}/{name}"
