"""The event stream of one open page."""

import re
from typing import Final

from hub.api.exchange import Reply
from hub.console.parts import Console
from hub.console.visit import Visit
from protocol.errors import Code, DecodeError

MEDIA: Final = "text/event-stream; charset=utf-8"
_TAB: Final = re.compile(r"[0-9a-f]{16,64}")


def tab_of(text: str) -> str:
    """Read the name that a page gave itself. Raises DecodeError."""
    if not _TAB.fullmatch(text):
        raise DecodeError(Code.MALFORMED, field="tab", expected="16 to 64 hexadecimal digits")
    return text


async def stream(console: Console, visit: Visit) -> Reply:
    """Everything first, then what moves; `feed` says in what form."""
    assert visit.session is not None
    tab = tab_of(visit.query.get("tab", ""))
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Reply(media=MEDIA, headers=headers, stream=console.feed.stream(tab, visit.session))
