"""Ask the hub what time it is: the way in for a gateway whose clock says 1970."""

import secrets
from typing import Final

from msgspec import Struct

from agent.host.clock import Clock
from agent.link.hub_client import CertificateError, HubClient
from protocol import envelope, limits
from protocol.envelope import KeyLookup, open_as
from protocol.errors import Code, ShanmenError, VerifyError
from protocol.times import WireTime

#: An answer that took longer says too little about the time.
_TRIP_NS_MAX: Final = 30_000_000_000
_CLOCK_CODES: Final = frozenset({Code.CLOCK_SKEW, Code.EXPIRED})


class TimeAnswer(Struct, frozen=True, kw_only=True):
    """Payload of the hub's `time`; what else it says is ignored."""

    time: WireTime  # hub time, µs UTC
    nonce: bytes  # as asked: an old answer cannot be played again


async def learn_time(client: HubClient, clock: Clock, keys: KeyLookup) -> int:
    """Learn the hub's time from its signed answer; returns its offset in µs.

    keys: finds the hub's key.
    Raises VerifyError for an answer that is false, old or slow; UnavailableError.
    """
    nonce = secrets.token_bytes(limits.NONCE_BYTES)
    sent_ns = clock.boot_ns()
    raw = await client.time(nonce)
    received_ns = clock.boot_ns()
    answer = open_as(envelope.parse(raw), "time", TimeAnswer, keys)
    if answer.nonce != nonce:
        raise VerifyError(Code.REPLAYED, field="nonce", value=answer.nonce)
    if received_ns - sent_ns > _TRIP_NS_MAX:
        raise VerifyError(Code.EXPIRED, field="time", value=(received_ns - sent_ns) // 1_000_000)
    offset = take_time(client, clock, answer.time, sent_ns=sent_ns, received_ns=received_ns)
    if not clock.is_synchronised:
        # Connections that are open were judged by another time, or by none.
        await client.renew()
    return offset


def take_time(
    client: HubClient, clock: Clock, hub_us: int, *, sent_ns: int, received_ns: int
) -> int:
    """Take the hub's time out of a verified answer of `client`; returns the offset in µs."""
    ends_s = client.certificate_ends_s
    return clock.learn_hub(
        hub_us,
        sent_ns=sent_ns,
        received_ns=received_ns,
        certificate_ends_us=None if ends_s is None else int(ends_s * 1e6),
    )


def may_be_time(error: BaseException | None, clock: Clock) -> bool:
    """Whether a false idea of the hub's time may be why an exchange failed: then ask for it."""
    if isinstance(error, CertificateError):
        return not clock.is_synchronised
    return isinstance(error, ShanmenError) and error.code in _CLOCK_CODES
