"""An agent that was let in after the backup shows the hub's own word for it, and waits again.

    enrolment ‖ enrolled ─▶ our signature ─▶ leaf under our log key ─▶ [waiting, leaf, audit trail]

The hub that was put back does not know the agent, its site perhaps neither; the agent's token is
void. What it holds is the `enrolled` envelope that this hub signed, with the enrolment's leaf in a
tree that this hub's log key signed. That is proof of the past and no decision about the present
(the agent may have been suspended in the lost time): so it waits until an operator approves it.
"""

from typing import Final, TypeAlias

from hub.domain.agents import AgentState
from hub.enrol import Enrolments
from hub.keys import HubKeys
from hub.record import Recorded, Recorder
from hub.store import agents, leaves, sites
from hub.store.agents import AgentRow
from hub.store.audit import Actor
from hub.store.engine import Store, Tx
from hub.store.sites import SiteRow
from protocol import envelope as envelopes
from protocol import ids, wire
from protocol.checkpoint import LogKey, log_origin
from protocol.enrolment import Enrolled, Enrolment, open_enrolled
from protocol.envelope import Envelope
from protocol.errors import Code, DecodeError, RefusedError, VerifyError
from protocol.ids import PrincipalId

#: What an agent shows: its enrolment and the hub's `enrolled`, as they were sent.
Shown: TypeAlias = tuple[bytes, bytes]

REASON: Final = "let in before the restore"


def shown(body: bytes, *, limit: int) -> Shown | None:
    """Read a body of `[enrolment, enrolled]`; None for an enrolment alone. Raises DecodeError."""
    outer = wire.decode_any(body, limit=limit)
    if not isinstance(outer, list) or len(outer) != 2:
        return None
    first, second = outer
    if not isinstance(first, bytes) or not isinstance(second, bytes):
        raise DecodeError(Code.WRONG_TYPE, field="enrolment", expected="two envelopes")
    return first, second


class Readmission:
    """The use case; the caller has counted the attempt before it asks."""

    def __init__(
        self, store: Store, recorder: Recorder, keys: HubKeys, enrolments: Enrolments
    ) -> None:
        self._store = store
        self._recorder = recorder
        self._keys = keys
        self._enrolments = enrolments

    async def readmit(self, said: Shown, *, source: str, now_us: int) -> bytes:
        """Enter the agent as waiting; returns an `enrolled` envelope of the present generation.

        Asked again it answers again and changes nothing. Raises DecodeError; VerifyError for what
        this hub did not sign; RefusedError UNKNOWN_AGENT if no restore explains that it is unknown,
        AGENT_SUSPENDED.
        """
        asked, request, enrolled = self._verified(said)
        agent = enrolled.agent

        def step(tx: Tx) -> tuple[Recorded, bool]:
            head = leaves.live(tx)
            if agents.get(tx, agent) is not None:
                return self._recorder.find(tx, request.object_id), True
            if head is None or enrolled.generation >= head.generation:
                raise RefusedError(
                    Code.UNKNOWN_AGENT, field="generation", expected="one before a restore"
                )
            by = Actor(who=ids.show(agent), source=source)
            if sites.get(tx, enrolled.site) is None:
                sites.add(tx, _site(asked, enrolled, now_us), by)
            agents.add(tx, _row(asked, request, enrolled, now_us), by)
            made = self._recorder.append(tx, "enrolment", request, signer=agent, now_us=now_us)
            return made, False

        recorded, _ = await self._recorder.commit("readmit", step)
        return await self._enrolments.answer(asked, request, recorded, enrolled.suites)

    def _verified(self, said: Shown) -> tuple[Enrolment, Envelope, Enrolled]:
        """Both envelopes, as far as our own two keys vouch for them.

        The token's key is lost with the token. The leaf holds the hash of the whole enrolment,
        which was verified when it was written.
        """
        request = envelopes.parse(said[0])
        envelopes.expect_kind(request, "enrolment")
        asked = envelopes.decode_payload(request, Enrolment)
        agent = ids.principal_id(asked.signing_key, suite=request.suite)
        hub = PrincipalId(self._keys.hub)
        enrolled = open_enrolled(
            said[1],
            hub=hub,
            request=request.object_id,
            agent=agent,
            record_hash=request.record_hash,
        )
        ours = LogKey(log_origin(hub, enrolled.generation), self._keys.log.public).text
        if enrolled.log_key != ours:
            raise VerifyError(Code.WRONG_SIGNER, field="log_key", expected="this hub's log key")
        return asked, request, enrolled


def _row(asked: Enrolment, request: Envelope, enrolled: Enrolled, now_us: int) -> AgentRow:
    return AgentRow(
        id=enrolled.agent,
        site=enrolled.site,
        name=asked.name,
        software=asked.software,
        signing=asked.signing_key,
        sealing=asked.sealing_key,
        owner=asked.owner,
        state=AgentState.WAITING,
        reason=REASON,
        enrolment=request.object_id,
        created_us=now_us,
        seen_us=0,
        inbox_generation=0,
        inbox_number=0,
    )


def _site(asked: Enrolment, enrolled: Enrolled, now_us: int) -> SiteRow:
    """The site as the hub itself had said it; its owner only where it cannot be the agent's pin."""
    return SiteRow(
        id=enrolled.site,
        name=enrolled.site,
        region=enrolled.region,
        owner=enrolled.owner if asked.owner is None else None,
        created_us=now_us,
    )
