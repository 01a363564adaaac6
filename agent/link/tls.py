"""TLS towards the hub: verified always, 1.2 or later, no switch to turn it off.

While the system's clock is synchronised, OpenSSL judges the dates by it. While it is not, it may
say 1970 or 2040: then OpenSSL is told not to look at it, and the dates of the hub's certificate are
judged here, by the hub's signed time. As long as that is not known, and always for the question
that learns it, "not expired at a time that has surely passed" must do; if the answer to an earlier
question judged the next one, a hub that was once wrong could not be asked again. Chain, name and
signature are verified as ever. What is lost while the clock is not synchronised: the dates of
intermediate certificates are not looked at.
"""

import ssl
from collections.abc import Callable
from typing import Any, Final

import aiohttp
from aiohttp.client_proto import ResponseHandler

from agent.host.clock import Clock
from protocol.errors import Code, VerifyError

#: X509_V_FLAG_NO_CHECK_TIME of OpenSSL, which Python does not name.
_NO_CHECK_TIME: Final = 0x200000


class CaFileError(VerifyError):
    """The file of `hub.ca` cannot be read or holds no certificate."""


def context_for(ca: str | None, clock: Clock) -> ssl.SSLContext:
    """The context for the hub; with `ca`, that authority alone is trusted. Raises CaFileError."""
    try:
        context = ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise CaFileError(
            Code.CONFIG_INVALID, field="hub.ca", value=ca, expected="a PEM file"
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not clock.is_synchronised:
        context.verify_flags |= _NO_CHECK_TIME
    return context


class CheckedConnector(aiohttp.TCPConnector):
    """Judges the dates of the peer's certificate before a request is written.

    asks_time: for the question what time it is. note_end: told when a certificate ends, in seconds
    since 1970.
    """

    def __init__(
        self, clock: Clock, *, asks_time: bool, note_end: Callable[[float], None], **more: Any
    ) -> None:
        super().__init__(**more)
        self._clock = clock
        self._asks_time = asks_time
        self._note_end = note_end

    async def _create_connection(self, *args: Any, **more: Any) -> ResponseHandler:
        handler = await super()._create_connection(*args, **more)
        transport = handler.transport
        certificate = transport.get_extra_info("peercert") if transport is not None else None
        if not certificate:
            return handler
        self._note_end(ssl.cert_time_to_seconds(certificate["notAfter"]))
        if reason := judge_dates(certificate, self._clock, asks_time=self._asks_time):
            handler.close()
            raise ssl.SSLCertVerificationError(1, reason)
        return handler


def judge_dates(certificate: dict[str, Any], clock: Clock, *, asks_time: bool) -> str:
    """Why a certificate's dates are not acceptable; empty if they are."""
    starts_us = ssl.cert_time_to_seconds(certificate["notBefore"]) * 1_000_000
    ends_us = ssl.cert_time_to_seconds(certificate["notAfter"]) * 1_000_000
    now_us = None if asks_time and not clock.is_synchronised else clock.known_us()
    if (clock.floor_us if now_us is None else now_us) > ends_us:
        return "certificate has expired"
    return "certificate is not yet valid" if now_us is not None and now_us < starts_us else ""
