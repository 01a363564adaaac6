"""Errors of the conversation with the hub, said to a person with the remedy."""

from typing import Final

from agent.host.clock import Clock
from agent.host.faults import Exit, Fault
from agent.host.version import SOFTWARE
from agent.link.hub_client import CertificateError, UnrecognisedError
from agent.link.tls import CaFileError
from protocol.errors import Code, ShanmenError, UnavailableError, VerifyError
from protocol.times import show_time

_BY_CODE: Final[dict[Code, tuple[Exit, str]]] = {
    Code.TOKEN_UNKNOWN: (Exit.REFUSED, "token-unknown"),
    Code.TOKEN_USED: (Exit.REFUSED, "token-used"),
    Code.TOKEN_EXPIRED: (Exit.REFUSED, "token-expired"),
    Code.WRONG_HUB: (Exit.REFUSED, "token-other-hub"),
    Code.UNKNOWN_KEY: (Exit.REFUSED, "agent-unknown"),
    Code.UNKNOWN_AGENT: (Exit.REFUSED, "agent-unknown"),
    Code.AGENT_WAITING: (Exit.REFUSED, "agent-waiting"),
    Code.AGENT_SUSPENDED: (Exit.REFUSED, "agent-suspended"),
    Code.CLOCK_SKEW: (Exit.REFUSED, "clock-skew"),
    Code.EXPIRED: (Exit.REFUSED, "clock-skew"),
    Code.VERSION_UNSUPPORTED: (Exit.REFUSED, "version-unsupported"),
    Code.PLAIN_HTTP: (Exit.UNTRUSTED, "plain-http"),
    Code.UNREACHABLE: (Exit.UNAVAILABLE, "unreachable"),
    Code.TIMEOUT: (Exit.UNAVAILABLE, "timeout"),
}


def fault_of(error: ShanmenError, *, url: str, ca: str | None, clock: Clock) -> Fault:
    """The fault for an error of an exchange with the hub at `url`."""
    offset_us = clock.hub_offset_us or 0
    about = {
        "url": url.rstrip("/"),
        "reason": error.expected or error.code.key,
        "expected": error.expected,
        "file": ca or "",
        "now": show_time(clock.now_us()),
        "offset": f"{abs(offset_us) / 1e6:.0f}",
        "hub_time": show_time(clock.hub_us())[:19].replace("T", " "),
        "version": SOFTWARE,
    }
    if isinstance(error, CaFileError):
        return Fault(Exit.CONFIG, "ca-file", **about)
    if isinstance(error, CertificateError):
        return Fault(Exit.UNTRUSTED, "certificate", **about)
    known = _BY_CODE.get(error.code)
    if known is not None:
        return Fault(known[0], known[1], **about)
    about["reason"], about["code"], about["where"] = str(error), error.code.key, error.field
    if isinstance(error, UnavailableError):
        return Fault(Exit.UNAVAILABLE, "later", **about)
    if isinstance(error, VerifyError) and not isinstance(error, UnrecognisedError):
        return Fault(Exit.UNTRUSTED, "answer-untrusted", **about)
    return Fault(Exit.REFUSED, "hub-refused", **about)
