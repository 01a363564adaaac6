"""Who a request is from: a signature by a known key, or a bearer token. Nothing else counts.

One lookup on one snapshot verifies the signature before the body is read; the body's digest is
held against it before a handler sees a byte.
"""

import base64
import binascii
import re
from typing import Final
from urllib.parse import urlsplit

import msgspec

from hub.api.exchange import Caller, Identity, Incoming
from hub.api.parts import Parts
from hub.api.routes import Route
from hub.domain.agents import AgentState
from hub.ledger import FIRST_GENERATION
from hub.store import agents, invitations, keys, leaves, principals, read_tokens
from hub.store.agents import AgentRow
from hub.store.engine import Tx
from protocol.errors import Code, RefusedError, VerifyError
from protocol.ids import KeyId
from protocol.program.hosts import is_loopback
from protocol.signatures import Verified, verify_request

_BEARER: Final = re.compile(r"^Bearer smr1-([a-z2-7]{26})$")


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """A caller, and what its signature says about the body."""

    who: Identity
    verified: Verified | None = None


class Credentials:
    """Checks the credentials of one request against its route."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def check(self, incoming: Incoming, route: Route, path: str, query: str) -> Checked:
        """Return the caller. Raises VerifyError (401), RefusedError (403), DecodeError (400)."""
        if Caller.ANYBODY in route.callers:
            return Checked(who=Identity(caller=Caller.ANYBODY))
        if "Signature" in incoming.headers or "Signature-Input" in incoming.headers:
            checked = await self._signed(incoming, route, path, query)
        elif "Authorization" in incoming.headers:
            checked = Checked(who=await self._bearer(incoming))
        elif self._is_local(incoming, route):
            return Checked(who=Identity(caller=Caller.LOOPBACK))
        else:
            raise VerifyError(
                Code.SIGNATURE_MISSING, field="signature", expected="a signature or a read token"
            )
        if checked.who.caller not in route.callers:
            expected = " or ".join(sorted(one.value for one in route.callers))
            raise RefusedError(Code.NOT_ALLOWED, field="caller", expected=expected)
        if checked.who.caller is Caller.AGENT and not route.any_state:
            _check_state(checked.who.row)
        return checked

    def _is_local(self, incoming: Incoming, route: Route) -> bool:
        """Tell whether being on this machine is enough; never where sites come by another name.

        A hub with such a `listen.url` may stand behind a proxy on this machine that adds nothing.
        """
        config = self._parts.config
        outside = urlsplit(config.listen.url).hostname
        here = outside is None or is_loopback(outside)
        allowed = config.metrics.loopback and here and Caller.LOOPBACK in route.callers
        return allowed and incoming.loopback

    async def _bearer(self, incoming: Incoming) -> Identity:
        """Find the read token; compared by hash in an index, so time tells nothing of use."""
        values = incoming.headers.getall("Authorization")
        found = _BEARER.match(values[0]) if len(values) == 1 else None
        row = None
        if found is not None:
            try:
                secret = base64.b32decode(found[1].upper() + "======")
            except binascii.Error:
                secret = b""
            row = await self._parts.store.read(read_tokens.find, secret)
        if row is None:
            raise VerifyError(Code.UNKNOWN_KEY, field="authorization", expected="a live read token")
        return Identity(caller=Caller.READER, subject=str(row.id).encode(), row=row)

    async def _signed(self, incoming: Incoming, route: Route, path: str, query: str) -> Checked:
        now_us = self._parts.clock_us()

        def check(tx: Tx) -> Checked:
            found: list[Identity] = []

            def key(key_id: KeyId) -> bytes | None:
                who, public = _whose(tx, key_id, now_us)
                found.append(who)
                return public

            verified = verify_request(
                incoming.method,
                path,
                query,
                list(incoming.headers.items()),
                hub=self._parts.keys.hub,
                keys=key,
                now_s=now_us // 1_000_000,
                has_body=bool(route.body_max),
            )
            who = found[0]
            return Checked(
                who=Identity(
                    caller=who.caller,
                    subject=who.subject,
                    key_id=verified.key_id,
                    nonce=verified.nonce,
                    row=who.row,
                ),
                verified=verified,
            )

        try:
            return await self._parts.store.read(check)
        except VerifyError as error:
            if error.code is Code.UNKNOWN_KEY and Caller.AGENT in route.callers:
                await self._parts.store.read(_explain)
            raise


def _explain(tx: Tx) -> None:
    """After a restore a strange key may be of an agent that the backup lacks: name the way in."""
    head = leaves.live(tx)
    if head is not None and head.generation > FIRST_GENERATION:
        raise RefusedError(
            Code.UNKNOWN_AGENT, field="agent", expected="its enrolled envelope at /v1/enrol"
        )


def _whose(tx: Tx, key_id: KeyId, now_us: int) -> tuple[Identity, bytes | None]:
    """Find whose signing key it is: an agent's, a principal's, or an owner's token's."""
    known = keys.get(tx, key_id)
    if known is None:
        token = invitations.by_key(tx, key_id, now_us)
        if token is None:
            return Identity(caller=Caller.ANYBODY), None
        return Identity(caller=Caller.INVITED, subject=token.id, row=token), token.public
    if known.kind == "agent":
        agent = agents.get(tx, known.principal)
        return Identity(caller=Caller.AGENT, subject=known.principal, row=agent), known.public
    row = principals.get(tx, known.principal)
    return Identity(caller=Caller.OWNER, subject=known.principal, row=row), known.public


def _check_state(agent: AgentRow | None) -> None:
    """Raise RefusedError unless the agent's batches are taken."""
    if agent is None:
        raise RefusedError(Code.UNKNOWN_AGENT, field="agent")
    if agent.state is AgentState.WAITING:
        raise RefusedError(Code.AGENT_WAITING, field="agent", expected="an operator's approval")
    if agent.state is AgentState.SUSPENDED:
        raise RefusedError(Code.AGENT_SUSPENDED, field="agent", expected=agent.reason[:200])
