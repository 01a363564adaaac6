"""Ask the hub what time it is: the way in for a gateway whose clock says 1970."""

import secrets
from typing import Final

from msgspec import Struct

from agent.clock import Clock
from agent.hub_client import HubClient
from protocol import envelope, limits
from protocol.envelope import only_key, open_as
from protocol.errors import Code, VerifyError
from protocol.sync import HubIdentity
from protocol.times import WireTime

#: An answer that took longer says too little about the time.
_TRIP_NS_MAX: Final = 30_000_000_000


class TimeAnswer(Struct, frozen=True, kw_only=True):
    """Payload of the hub's `time`; what else it says is ignored."""

    time: WireTime  # hub time, µs UTC
    nonce: bytes  # as asked: an old answer cannot be played again


async def learn_time(client: HubClient, clock: Clock, hub: HubIdentity) -> int:
    """Learn the hub's time from its signed answer; returns its offset in µs.

    Raises VerifyError for an answer that is false, old or slow; UnavailableError.
    """
    nonce = secrets.token_bytes(limits.NONCE_BYTES)
    was_impossible = clock.is_impossible()
    sent_ns = clock.boot_ns()
    raw = await client.time(nonce)
    received_ns = clock.boot_ns()
    answer = open_as(envelope.parse(raw), "time", TimeAnswer, only_key(hub.signing_public))
    if answer.nonce != nonce:
        raise VerifyError(Code.REPLAYED, field="nonce", value=answer.nonce)
    if received_ns - sent_ns > _TRIP_NS_MAX:
        raise VerifyError(Code.EXPIRED, field="time", value=(received_ns - sent_ns) // 1_000_000)
    offset = clock.learn_hub(answer.time, sent_ns=sent_ns, received_ns=received_ns)
    if was_impossible:
        # The connection was made when the dates of its certificate could not be judged.
        await client.renew()
    return offset
