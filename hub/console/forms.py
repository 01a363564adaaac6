"""Forms: reading one strictly, and telling a form of ours from one that another site sent.

Two checks, each enough alone: the browser's word where a request comes from (`Sec-Fetch-Site`, else
`Origin`), and a token of the session that no other site can read. Login has no session yet, so it
rests on the first.
"""

from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from multidict import CIMultiDictProxy

from hub.people import Session
from protocol.errors import Code, DecodeError, RefusedError

MEDIA: Final = "application/x-www-form-urlencoded"
FIELD: Final = "csrf"
HEADER: Final = "X-CSRF-Token"
_FIELDS_MAX: Final = 64


def read(body: bytes, headers: CIMultiDictProxy[str]) -> dict[str, str]:
    """Decode a form: UTF-8, no name twice. Raises DecodeError."""
    media = headers.get("Content-Type", "").split(";")[0].strip().lower()
    if media != MEDIA:
        raise DecodeError(Code.MEDIA_TYPE, field="content-type", expected=MEDIA)
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, strict_parsing=bool(body),
            errors="strict", max_num_fields=_FIELDS_MAX,
        )  # fmt: skip
    except (ValueError, UnicodeDecodeError) as error:
        raise DecodeError(Code.MALFORMED, field="form", expected="UTF-8 pairs") from error
    found = dict(pairs)
    if len(found) != len(pairs):
        raise DecodeError(Code.DUPLICATE_KEY, field="form", expected="no name twice")
    return found


def check_origin(headers: CIMultiDictProxy[str], outside: str) -> None:
    """Raise RefusedError unless a browser says that the request comes from our own pages.

    outside: `listen.url` where a proxy may have rewritten the host, else empty. A request that says
    nothing of where it comes from is not a browser's form.
    """
    site = headers.get("Sec-Fetch-Site")
    if site is not None:
        if site == "same-origin":
            return
        raise RefusedError(Code.NOT_ALLOWED, field="origin", expected="a form of this hub")
    origin = urlsplit(headers.get("Origin", ""))
    ours = {headers.get("Host", "").lower(), urlsplit(outside).netloc.lower()} - {""}
    if origin.scheme not in {"http", "https"} or origin.netloc.lower() not in ours:
        raise RefusedError(Code.NOT_ALLOWED, field="origin", expected="a form of this hub")


def check_token(headers: CIMultiDictProxy[str], form: Mapping[str, str], session: Session) -> None:
    """Raise RefusedError unless the form carries this session's token."""
    given = headers.get(HEADER) or form.get(FIELD, "")
    if not session.fits(given):
        raise RefusedError(Code.NOT_ALLOWED, field=FIELD, expected="a form of this session")
