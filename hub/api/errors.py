"""From the tree of errors to an HTTP answer: status, code, and a text for people in zh and en.

Nothing that the caller sent is repeated but names of fields that are ours; the value stays out.
"""

from typing import Final

import msgspec

from hub.api.exchange import Reply, json_reply
from hub.messages import text
from protocol.errors import Code, ShanmenError, UnavailableError

#: Seconds after which trying again makes sense, for what is not permanent.
_RETRY_AFTER_S: Final = {
    Code.BUSY: 2,
    Code.RATE_LIMITED: 30,
    Code.DISK_FULL: 60,
    Code.STOPPING: 5,
    Code.AGENT_WAITING: 60,
    Code.STORAGE_UNKNOWN: 5,
}


class LaterError(UnavailableError):
    """Try again after so many seconds."""

    def __init__(self, code: Code, retry_after_s: float, *, field: str = "") -> None:
        super().__init__(code, field=field, expected=f"another try in {retry_after_s:.0f} s")
        self.retry_after_s = retry_after_s


class ErrorDetail(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request was not done."""

    key: str  #: stable, for programs
    number: int  #: stable, for telephones
    field: str  #: what is meant, empty for the whole request
    expected: str  #: what would be right
    zh: str
    en: str
    request_id: str  #: stands in the hub's log too
    hub_time_us: int  #: so that a wrong clock can be seen


class ErrorAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The body of every answer that is not a success."""

    error: ErrorDetail


def error_reply(
    error: ShanmenError, *, request_id: str, now_us: int, retry_after_s: float = 0.0
) -> Reply:
    """Answer with an error of ours; 5xx only where the hub itself is the reason."""
    code = error.code
    detail = ErrorDetail(
        key=code.key,
        number=code.number,
        field=error.field,
        expected=error.expected,
        zh=text(f"code.{code.key}", "zh"),
        en=text(f"code.{code.key}", "en"),
        request_id=request_id,
        hub_time_us=now_us,
    )
    reply = json_reply(ErrorAnswer(error=detail), status=code.http_status)
    if code is Code.METHOD:
        reply.headers["Allow"] = error.expected
    if code.http_status == 401:
        reply.headers["WWW-Authenticate"] = 'Bearer realm="shanmen-hub"'
    wait_s = retry_after_s or _RETRY_AFTER_S.get(code, 0)
    if wait_s:
        reply.headers["Retry-After"] = str(int(wait_s + 0.999))
    return reply
