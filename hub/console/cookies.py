"""Cookies: reading them strictly, and the two that the pages set.

Over TLS the session's cookie has the `__Host-` prefix, so that no neighbouring host or path can
plant one. Plain HTTP exists on loopback only (hub.toml refuses it elsewhere); there browsers do
not agree on `Secure`, so the cookie goes without it and under another name.
"""

import re
from typing import Final

from multidict import CIMultiDictProxy

from hub.config import HubConfig

LANGUAGE: Final = "shanmen-language"
_PAIR: Final = re.compile(
    r"([A-Za-z0-9_-]{1,64})=([\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]{0,256})"
)
_YEAR_S: Final = 365 * 86_400


def read(headers: CIMultiDictProxy[str]) -> dict[str, str]:
    """Return the cookies of a request; one that is named twice is not believed at all."""
    found: dict[str, str] = {}
    twice: set[str] = set()
    for field in headers.getall("Cookie", []):
        for piece in field.split(";"):
            match = _PAIR.fullmatch(piece.strip(" "))
            if match is None:
                continue
            if match[1] in found:
                twice.add(match[1])
            found[match[1]] = match[2]
    return {name: value for name, value in found.items() if name not in twice}


class SessionCookie:
    """The session's cookie as this hub is reached."""

    def __init__(self, config: HubConfig) -> None:
        listen = config.listen
        self._secure = bool(listen.certificate) or listen.url.startswith("https://")
        self._seconds = config.console.session_hours * 3600
        self.name = "__Host-shanmen" if self._secure else "shanmen"

    def set(self, token: str) -> str:
        """Return the header's value that gives the browser a token."""
        return f"{self.name}={token}; Max-Age={self._seconds}{self._attributes}"

    def clear(self) -> str:
        """Return the header's value that takes it back."""
        return f"{self.name}=; Max-Age=0{self._attributes}"

    @property
    def _attributes(self) -> str:
        return "; Path=/; HttpOnly; SameSite=Lax" + ("; Secure" if self._secure else "")


def language(value: str) -> str:
    """Return the header's value that keeps a choice of language: no secret, so plain."""
    return f"{LANGUAGE}={value}; Max-Age={_YEAR_S}; Path=/; HttpOnly; SameSite=Lax"
