"""A hub that was restored does not know this gateway: show it what it had signed itself.

The enrolment and the hub's `enrolled` are kept for this. The hub enters the gateway again as
waiting; an operator approves it, and what is still held here is sent again. Identity, spool and
what the gateway believes of the hub stay as they are: the hub's statement about its new
generation comes with the next answer.
"""

from agent.host.identity import IdentityFiles
from agent.link.hub_client import HubClient
from protocol import envelope, wire
from protocol.enrolment import Enrolment, open_enrolled
from protocol.envelope import SigningKey
from protocol.errors import Code, RefusedError


class Readmission:
    """Asks to be let in again."""

    def __init__(self, client: HubClient, stored: IdentityFiles, key: SigningKey) -> None:
        self._client = client
        self._stored = stored
        self._key = key

    async def __call__(self) -> bool:
        """Show both envelopes; true if an operator must still approve.

        Raises RefusedError UNKNOWN_AGENT if a file of the two is gone, else what the exchange or
        the verification of its answer raises.
        """
        request, enrolled = self._stored.pending(), self._stored.enrolled_raw()
        if request is None or enrolled is None:
            raise RefusedError(Code.UNKNOWN_AGENT, field="enrolled", expected="the stored answer")
        raw = await self._client.enrol(wire.encode([request.raw, enrolled]))
        answer = open_enrolled(
            raw,
            hub=envelope.decode_payload(request, Enrolment).hub,
            request=request.object_id,
            agent=self._key.principal,
            record_hash=request.record_hash,
        )
        return answer.state == "waiting"
