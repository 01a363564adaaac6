"""Letting in: gateways with a site's one-time token, owners' principals with an owner's token.

One transaction each: the token's compare-and-set, who is let in, the ledger leaf, the audit trail.
A lost answer burns nothing: the same object with the same token is answered again until the
token's expiry + 24 h, with the proof from the ledger as it stands then.
"""

import hashlib
from collections.abc import Callable
from typing import Final

import msgspec

from hub.domain.agents import AgentState
from hub.keys import HubKeys
from hub.record import Recorded, Recorder
from hub.store import agents, nonces, objects, principals, sites, tokens
from hub.store.agents import AgentRow
from hub.store.audit import Actor
from hub.store.engine import Store, Tx
from hub.store.nonces import RequestNonce
from hub.store.principals import PrincipalRow
from hub.store.tokens import TokenKind, TokenRow
from protocol import envelope as envelopes
from protocol import ids
from protocol.enrolment import Enrolled, Enrolment, make_enrolled, open_enrolment
from protocol.enrolment import HubKeys as PublicKeys
from protocol.envelope import Envelope
from protocol.errors import Code, RefusedError, VerifyError
from protocol.ids import ObjectId, PrincipalId
from protocol.inbox import InboxNumber
from protocol.principal import Principal, open_principal

ANSWERED_AGAIN_US: Final = 24 * 3600 * 1_000_000
_SUITES: Final = (1,)


class Asker(msgspec.Struct, frozen=True, kw_only=True):
    """Who hands in a principal: the holder of an owner's token, or a principal that is known."""

    token: bytes | None  #: id of the owner's token whose key signed the request
    principal: bytes | None  #: whose own key signed it
    nonce: RequestNonce
    source: str  #: network address


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """A principal is on record."""

    object: bytes
    kind: str
    known: bool  #: it was before
    generation: int
    leaf: int
    sites: list[str]  #: that name it as their owner


class Enrolments:
    """The use cases; the caller has counted the attempt before it asks."""

    def __init__(
        self, store: Store, recorder: Recorder, keys: HubKeys, *, approve_agents: bool
    ) -> None:
        self._store = store
        self._recorder = recorder
        self._keys = keys
        self._first_state = AgentState.WAITING if approve_agents else AgentState.ACTIVE

    async def enrol(self, raw: bytes, *, source: str, now_us: int) -> bytes:
        """Let a gateway in; returns the `enrolled` envelope.

        Raises DecodeError, VerifyError, RefusedError (token unknown, used, expired, other site).
        """

        def verified(tx: Tx) -> tuple[Enrolment, Envelope]:
            return open_enrolment(raw, token_key=_site_key(tx), hub=self._keys.hub)

        asked, request = await self._store.read(verified)
        suites = tuple(one for one in asked.suites if one in _SUITES)
        if not suites:
            raise RefusedError(Code.UNKNOWN_SUITE, field="suites", expected="suite 1")
        agent = ids.principal_id(asked.signing_key, suite=request.suite)

        def step(tx: Tx) -> tuple[Recorded, bool]:
            token = _usable(tokens.get(tx, asked.token_id), request.object_id, now_us)
            if token.state == "used":
                return self._recorder.find(tx, request.object_id), True
            if agents.get(tx, agent) is not None:
                raise RefusedError(Code.CONFLICT, field="signing_key", expected="a new key")
            by = Actor(who=ids.show(agent), source=source)
            agents.add(tx, self._row(token, asked, request, now_us), by)
            if not tokens.take(tx, asked.token_id, request.object_id):
                raise RefusedError(Code.TOKEN_USED, field="token")
            made = self._recorder.append(tx, "enrolment", request, signer=agent, now_us=now_us)
            return made, False

        recorded, _ = await self._recorder.commit("enrol", step)
        return await self.answer(asked, request, recorded, suites)

    def _row(self, token: TokenRow, asked: Enrolment, request: Envelope, now_us: int) -> AgentRow:
        assert token.site is not None
        return AgentRow(
            id=ids.principal_id(asked.signing_key, suite=request.suite),
            site=token.site,
            name=asked.name,
            software=asked.software,
            signing=asked.signing_key,
            sealing=asked.sealing_key,
            owner=asked.owner,
            state=self._first_state,
            reason="",
            enrolment=request.object_id,
            created_us=now_us,
            seen_us=0,
            inbox_generation=0,
            inbox_number=0,
        )

    async def answer(
        self, asked: Enrolment, request: Envelope, recorded: Recorded, suites: tuple[int, ...]
    ) -> bytes:
        """Make the answer from committed rows; the same request gives the same fields again."""
        agent = ids.principal_id(asked.signing_key, suite=request.suite)

        def find(tx: Tx) -> tuple[AgentRow, str, bytes | None]:
            row = agents.get(tx, agent)
            assert row is not None
            site = sites.get(tx, row.site)
            assert site is not None
            return row, site.region, site.owner

        row, region, owner = await self._store.read(find)
        if row.state is AgentState.SUSPENDED:
            raise RefusedError(Code.AGENT_SUSPENDED, field="agent")
        proof = await self._recorder.prove(recorded)
        payload = Enrolled(
            request=request.object_id,
            hub=self._keys.hub,
            hub_keys=PublicKeys(
                signing=self._keys.signing.public, sealing=self._keys.sealing.public
            ),
            log_key=self._recorder.vkey(recorded.generation),
            generation=recorded.generation,
            agent=agent,
            site=row.site,
            region=region,
            state="active" if row.state is AgentState.ACTIVE else "waiting",
            # The site's, never the pin repeated: a wrong pin is noticed by the difference.
            owner=None if owner is None else PrincipalId(owner),
            suites=suites,
            checkpoint=proof.checkpoint,
            leaf=proof.leaf,
            index=proof.index,
            path=tuple(proof.path),
            inbox=InboxNumber(recorded.generation, 0),
            nonce=_nonce(request.object_id, proof.checkpoint),
        )
        return make_enrolled(payload, self._keys.signing).raw

    async def take_principal(self, raw: bytes, asker: Asker, *, now_us: int) -> Taken:
        """Record an owner's principal: with an owner's token, later with the owner's own key.

        Raises DecodeError, VerifyError, RefusedError.
        """
        sent = envelopes.parse(raw)
        pin = PrincipalId(sent.signer)
        principal = open_principal(sent, pin)
        if principal.kind != "owner":
            raise RefusedError(Code.NOT_ALLOWED, field="kind", expected="an owner's principal")
        if asker.token is None and asker.principal != principal.principal:
            raise VerifyError(Code.WRONG_SIGNER, field="principal", expected="your own principal")
        by = Actor(who=ids.show(principal.principal), source=asker.source)

        def step(tx: Tx) -> tuple[Recorded, tuple[list[str], bool]]:
            if not nonces.take(tx, asker.nonce, now_us):
                raise VerifyError(Code.REPLAYED, field="nonce")
            named = [one.id for one in sites.all_of(tx) if one.owner == principal.principal]
            if asker.token is not None:
                token = tokens.get(tx, asker.token)
                token = _usable(token, sent.object_id, now_us, kind=TokenKind.OWNER)
                if token.state == "new":
                    tokens.take(tx, token.id, sent.object_id)
            if objects.get(tx, sent.object_id) is not None:
                return self._recorder.find(tx, sent.object_id), (named, True)
            if not principals.put(tx, _principal_row(principal, sent, now_us), by):
                raise RefusedError(Code.CONFLICT, field="version", expected="a newer version")
            recorded = self._recorder.append(
                tx, "principal", sent, signer=principal.principal, now_us=now_us
            )
            return recorded, (named, False)

        recorded, (named, known) = await self._recorder.commit("principal", step)
        return Taken(
            object=sent.object_id,
            kind=sent.kind,
            known=known,
            generation=recorded.generation,
            leaf=recorded.index,
            sites=named,
        )


def _principal_row(principal: Principal, sent: Envelope, now_us: int) -> PrincipalRow:
    return PrincipalRow(
        id=principal.principal,
        kind=principal.kind,
        name="",
        signing=principal.signing_key,
        sealing=principal.sealing_key,
        version=principal.version,
        object=sent.object_id,
        created_us=now_us,
    )


def _site_key(tx: Tx) -> Callable[[bytes], bytes | None]:
    """Return the lookup of a site token's public key by token id."""

    def find(token_id: bytes) -> bytes | None:
        token = tokens.get(tx, token_id)
        return None if token is None or token.kind != TokenKind.SITE else token.public

    return find


def _usable(
    token: TokenRow | None, request: ObjectId, now_us: int, *, kind: TokenKind = TokenKind.SITE
) -> TokenRow:
    """Return a token that this request may use, or has used. Raises RefusedError."""
    if token is None or token.kind != kind:
        raise RefusedError(Code.TOKEN_UNKNOWN, field="token")
    if token.state == "used" and token.request != request:
        raise RefusedError(Code.TOKEN_USED, field="token", expected="a new token")
    limit_us = token.expires_us + (ANSWERED_AGAIN_US if token.state == "used" else 0)
    if now_us > limit_us or token.state == "void":
        raise RefusedError(Code.TOKEN_EXPIRED, field="token", expected="a new token")
    return token


def _nonce(request: ObjectId, checkpoint: str) -> bytes:
    """Derive the answer's nonce, so that the same state gives the same bytes."""
    return hashlib.sha256(b"shanmen/enrolled-nonce\x00" + request + checkpoint.encode()).digest()[
        :16
    ]
