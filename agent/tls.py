"""TLS towards the hub: verified always, 1.2 or later, no switch to turn it off.

A gateway without a battery starts in 1970, where no certificate is valid yet. Then, and only then,
OpenSSL is told not to look at the clock, and the hub's certificate is judged here instead: not
expired at the newest time that has surely passed, and, as soon as the hub's signed time is known,
valid at that time. Chain, name and signature are verified as ever. What is lost while the clock is
wrong: the dates of intermediate certificates are not looked at.
"""

import ssl
from typing import Any, Final

import aiohttp
from aiohttp.client_proto import ResponseHandler

from agent.clock import Clock
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
    if clock.wall_is_impossible():
        context.verify_flags |= _NO_CHECK_TIME
    return context


class CheckedConnector(aiohttp.TCPConnector):
    """Judges the dates of the peer's certificate before a request is written."""

    def __init__(self, clock: Clock, **more: Any) -> None:
        super().__init__(**more)
        self._clock = clock
        self.certificate_ends_s: float | None = None

    async def _create_connection(self, *args: Any, **more: Any) -> ResponseHandler:
        handler = await super()._create_connection(*args, **more)
        transport = handler.transport
        certificate = transport.get_extra_info("peercert") if transport is not None else None
        if certificate:
            self.certificate_ends_s = ssl.cert_time_to_seconds(certificate["notAfter"])
        reason = judge_dates(certificate, self._clock) if certificate else ""
        if reason:
            handler.close()
            raise ssl.SSLCertVerificationError(1, reason)
        return handler


def judge_dates(certificate: dict[str, Any], clock: Clock) -> str:
    """Why a certificate's dates are not acceptable; empty if they are."""
    starts_us = ssl.cert_time_to_seconds(certificate["notBefore"]) * 1_000_000
    ends_us = ssl.cert_time_to_seconds(certificate["notAfter"]) * 1_000_000
    if clock.hub_offset_us is None:
        return "certificate has expired" if ends_us < clock.floor_us else ""
    now_us = clock.best_us()
    if now_us > ends_us:
        return "certificate has expired"
    return "certificate is not yet valid" if now_us < starts_us else ""
