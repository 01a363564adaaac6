"""What an operator decides: sites, tokens, agents. Each change goes into ledger and audit trail.

One transaction each: the change, its row in the audit trail, and a hub-signed `review` object with
a leaf of its own, so that a decision can neither be denied nor slipped in later.
"""

import asyncio
import base64
import re
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from hub import maintenance
from hub.bells import Bells
from hub.commands import (
    AgentChange,
    AgentList,
    AgentLive,
    AgentShow,
    Answer,
    BackupMake,
    Command,
    LogKey,
    SiteAdd,
    SiteList,
    TokenList,
    TokenNew,
    TokenRevoke,
    UserAdd,
    UserChange,
    UserList,
    UserPasswd,
)
from hub.domain.agents import AgentState
from hub.keys import HubKeys
from hub.leases import Leases
from hub.people import Operators
from hub.record import Recorded, Recorder
from hub.store import agents, audit, inbox, leaves, principals, read_tokens, sites, tokens
from hub.store.agents import AgentRow
from hub.store.audit import Actor
from hub.store.bodies import Bodies
from hub.store.engine import Store, Tx
from hub.store.inbox import InboxRow
from hub.store.sites import SiteRow
from hub.store.tokens import TokenKind, TokenRow
from protocol import ids
from protocol.envelope import make
from protocol.errors import Code, ConfigError, RefusedError
from protocol.ids import PrincipalId, WireNonce
from protocol.inbox import InboxMessage, InboxNumber, Live, make_inbox
from protocol.token import make_token

READ_TOKEN_PREFIX: Final = "smr1-"  # noqa: S105  # a prefix that scanners can look for
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class Review(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Payload of kind `review`: a decision of this hub's operator."""

    action: str  #: as in the audit trail
    subject: str  #: shown id of an agent, id of a site or token
    reason: str
    by: str  #: who decided, e.g. operator:li
    at: int  #: hub time, µs UTC
    nonce: WireNonce


#: From which state a decision leads to which.
_DECISIONS: Final = {
    "approve": (AgentState.WAITING, AgentState.ACTIVE),
    "suspend": (None, AgentState.SUSPENDED),
    "resume": (AgentState.SUSPENDED, AgentState.ACTIVE),
}


class Admin:
    """Does an operator's commands; what it returns is plain and can be printed as JSON."""

    def __init__(
        self,
        store: Store,
        recorder: Recorder,
        keys: HubKeys,
        *,
        bodies: Bodies,
        also: Sequence[Path],
        region: str,
        url: str,
        clock_us: Callable[[], int],
    ) -> None:
        self._store = store
        self._recorder = recorder
        self._keys = keys
        self._bodies = bodies
        self._also = also
        self._region = region
        self._url = url
        self._clock_us = clock_us
        self._people = Operators(store, clock_us)
        self.bells: Bells | None = None  #: of the serving hub
        self.leases: Leases | None = None  #: likewise

    async def do(self, command: Command, by: Actor) -> Answer:  # noqa: C901, PLR0911, PLR0912  # one per command
        """Do one command. Raises ConfigError, RefusedError."""
        match command:
            case SiteAdd():
                return await self._site_add(command, by)
            case SiteList():
                return {"sites": [_site(one) for one in await self._store.read(sites.all_of)]}
            case TokenNew(kind="read"):
                return await self._read_token(command, by)
            case TokenNew():
                return await self._one_time_token(command, by)
            case TokenList():
                found = await self._store.read(read_tokens.all_of)
                return {"tokens": [_read_token(one) for one in found]}
            case TokenRevoke():
                return await self._revoke(command, by)
            case AgentList():
                rows = await self._store.read(agents.all_of, site=command.site or None)
                return {"agents": [_agent(one) | self._presence(one) for one in rows]}
            case AgentShow():
                return await self._show(command)
            case AgentLive():
                return await self._live(command, by)
            case BackupMake():
                return await self._backup(command)
            case LogKey():
                head = await self._store.read(leaves.live)
                assert head is not None
                return {"vkey": self._recorder.vkey(head.generation)}
            case AgentChange():
                return await self._change(command, by)
            case UserAdd() | UserPasswd() | UserChange() | UserList():
                return await self._people.do(command, by)

    async def _record(self, by: Actor, action: str, subject: str, reason: str,
                      change: Callable[[Tx, int], Answer]) -> Answer:  # fmt: skip
        """Run a change with its review object in one transaction."""
        now_us = self._clock_us()
        payload = Review(
            action=action, subject=subject, reason=reason, by=by.who, at=now_us,
            nonce=secrets.token_bytes(16),
        )  # fmt: skip
        review = make("review", payload, self._keys.signing)

        def step(tx: Tx) -> tuple[Recorded, Answer]:
            answer = change(tx, now_us)
            recorded = self._recorder.append(
                tx, "review", review, signer=self._keys.hub, now_us=now_us
            )
            return recorded, answer

        recorded, answer = await self._recorder.commit("admin", step)
        return answer | {"generation": recorded.generation, "leaf": recorded.index}

    async def _site_add(self, asked: SiteAdd, by: Actor) -> Answer:
        _printable("name", asked.name)
        owner = PrincipalId(ids.parse(asked.owner)) if asked.owner else None

        def change(tx: Tx, now_us: int) -> Answer:
            row = SiteRow(
                id=asked.site,
                name=asked.name,
                region=asked.region or self._region,
                owner=owner,
                created_us=now_us,
            )
            sites.add(tx, row, by)
            known = owner is not None and principals.get(tx, owner) is not None
            return _site(row) | {"owner_known": known}

        return await self._record(by, "site.add", asked.site, "", change)

    async def _one_time_token(self, asked: TokenNew, by: Actor) -> Answer:
        if (asked.kind == "site") != bool(asked.site):
            raise ConfigError(Code.COMMAND_INVALID, field="site", expected="--site ID or --owner")
        token = make_token(secrets.token_bytes(8), secrets.token_bytes(16), self._keys.hub)

        def change(tx: Tx, now_us: int) -> Answer:
            if asked.site and sites.get(tx, asked.site) is None:
                raise RefusedError(Code.NOT_FOUND, field="site", value=asked.site)
            row = TokenRow(
                id=token.token_id,
                public=token.signing_key().public,
                kind=(TokenKind.SITE if asked.kind == "site" else TokenKind.OWNER).value,
                site=asked.site or None,
                state="new",
                expires_us=now_us + asked.hours * 3600 * 1_000_000,
                request=None,
                created_us=now_us,
            )
            tokens.add(tx, row, by)
            return {"kind": asked.kind, "site": asked.site, "expires_us": row.expires_us}

        answer = await self._record(by, "token.add", token.token_id.hex(), "", change)
        return answer | {"token": token.text, "url": self._url}

    async def _read_token(self, asked: TokenNew, by: Actor) -> Answer:
        _printable("name", asked.name or "-")
        secret = secrets.token_bytes(16)

        def change(tx: Tx, now_us: int) -> Answer:
            number = read_tokens.add(tx, secret=secret, name=asked.name, by=by, now_us=now_us)
            return {"kind": "read", "number": number, "name": asked.name}

        answer = await self._record(by, "read-token.add", asked.name, "", change)
        return answer | {"token": read_token_text(secret), "url": self._url}

    async def _revoke(self, asked: TokenRevoke, by: Actor) -> Answer:
        def change(tx: Tx, now_us: int) -> Answer:
            if not read_tokens.revoke(tx, asked.number, by, now_us):
                raise RefusedError(Code.NOT_FOUND, field="number", value=asked.number)
            return {"number": asked.number, "revoked": True}

        return await self._record(by, "read-token.revoke", str(asked.number), "", change)

    async def _backup(self, asked: BackupMake) -> Answer:
        made = await maintenance.backup(
            self._store,
            self._bodies,
            Path(asked.folder),
            now_us=self._clock_us(),
            also=self._also,
        )
        return {"folder": asked.folder, **msgspec.structs.asdict(made)}

    async def _show(self, asked: AgentShow) -> Answer:
        agent = PrincipalId(ids.parse(asked.agent))
        row = await self._store.read(agents.get, agent)
        if row is None:
            raise RefusedError(Code.UNKNOWN_AGENT, field="agent", value=asked.agent)
        return _agent(row) | self._presence(row)

    def _presence(self, row: AgentRow) -> Answer:
        """Tell whether the agent can be reached now; nobody knows while no hub serves."""
        if self.bells is None:
            return {}
        return {"away": self.bells.is_away(row.id, asyncio.get_running_loop().time())}

    async def _live(self, asked: AgentLive, by: Actor) -> Answer:
        agent = PrincipalId(ids.parse(asked.agent))

        def change(tx: Tx, now_us: int) -> Answer:
            if agents.get(tx, agent) is None:
                raise RefusedError(Code.UNKNOWN_AGENT, field="agent", value=asked.agent)
            head = leaves.live(tx)
            assert head is not None
            number = inbox.next_number(tx, agent, head.generation)
            until = now_us + asked.minutes * 60_000_000
            message = InboxMessage(
                agent=agent,
                number=InboxNumber(head.generation, number),
                expires=until,
                message=Live(resources=(), until=until),
                nonce=secrets.token_bytes(16),
            )
            row = InboxRow(
                agent=agent,
                generation=head.generation,
                n=number,
                expires_us=until,
                raw=make_inbox(message, self._keys.signing).raw,
            )
            inbox.put(tx, row)
            subject = ids.show(agent)
            after = {"until_us": until, "number": number}
            audit.record(tx, by, now_us, "agent.live", subject, before=None, after=after)
            return {"agent": subject, "until_us": until, "number": number}

        answer = await self._record(by, "agent.live", ids.show(agent), "", change)
        until_us = answer["until_us"]
        if self.leases is not None and isinstance(until_us, int):
            self.leases.asked_by_operator(agent, until_us)
        if self.bells is not None:
            self.bells.ring(agent)
        return answer

    async def _change(self, asked: AgentChange, by: Actor) -> Answer:
        _printable("reason", asked.reason or "-")
        agent = PrincipalId(ids.parse(asked.agent))
        needed, new = _DECISIONS[asked.decision]

        def change(tx: Tx, now_us: int) -> Answer:
            row = agents.get(tx, agent)
            if row is None:
                raise RefusedError(Code.UNKNOWN_AGENT, field="agent", value=asked.agent)
            if needed is not None and row.state is not needed:
                raise RefusedError(
                    Code.CONFLICT, field="state", value=row.state.value, expected=needed.value
                )
            return _agent(agents.set_state(tx, agent, new, by, now_us, reason=asked.reason))

        answer = await self._record(
            by, f"agent.{asked.decision}", ids.show(agent), asked.reason, change
        )
        if self.bells is not None:
            self.bells.ring(agent)  # its poll ends, and it asks whether it may send
        return answer


def read_token_text(secret: bytes) -> str:
    """Write a read token as it is handed over: a prefix and 26 base32 characters."""
    return READ_TOKEN_PREFIX + base64.b32encode(secret).decode().rstrip("=").lower()


def _printable(field: str, text: str) -> None:
    """Refuse text that could forge a line or turn another's direction around."""
    if _CONTROL.search(text) or not text.strip():
        raise ConfigError(
            Code.COMMAND_INVALID, field=field, value=text, expected="printable characters"
        )


def _site(row: SiteRow) -> Answer:
    return {
        "site": row.id,
        "name": row.name,
        "region": row.region,
        "owner": None if row.owner is None else ids.show(row.owner),
        "created_us": row.created_us,
    }


def _read_token(row: read_tokens.ReadTokenRow) -> Answer:
    return {
        "number": row.id,
        "name": row.name,
        "created_us": row.created_us,
        "revoked_us": row.revoked_us,
    }


def _agent(row: AgentRow) -> Answer:
    return {
        "agent": ids.show(row.id),
        "site": row.site,
        "name": row.name,
        "state": row.state.value,
        "reason": row.reason,
        "software": row.software,
        "owner": None if row.owner is None else ids.show(row.owner),
        "enrolment": row.enrolment.hex(),
        "enrolled_us": row.created_us,
        "seen_us": row.seen_us,
    }
