"""What the hub hands out about a resource, verified one by one and decoded only then."""

import asyncio
from collections.abc import AsyncIterator, Container, Iterable
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from hub.owner.client import Client
from protocol import limits, segment, wire
from protocol.enrolment import Enrolment
from protocol.envelope import Envelope, decode_payload, expect_kind, parse
from protocol.errors import Code, RefusedError, VerifyError
from protocol.header import read_prelude
from protocol.ids import KeyId, ObjectId, PrincipalId, ResourceId, principal_id, resource_id, show
from protocol.ids import parse as parse_id
from protocol.leaf import State
from protocol.notes import Gap, Note, open_note
from protocol.registration import Registration, open_registration
from protocol.segment import Segment, Unverified
from protocol.wraps import Wrap, read_wrap

_PAGE: Final = 256
_HEAD_BYTES_MAX: Final = limits.PRELUDE_BYTES + limits.HEADER_BYTES_MAX + limits.SIGNATURE_BYTES
_PAGE_BYTES_MAX: Final = _PAGE * (_HEAD_BYTES_MAX + 64) + 1024
_WRAPS_BYTES_MAX: Final = 1024 * 1024
_WRAPS_PAGE: Final = 1000
_SEGMENT_BYTES_MAX: Final = _HEAD_BYTES_MAX + limits.BODY_BYTES_MAX
_NOTES_BYTES_MAX: Final = 1024 * 1024
_LIST_BYTES_MAX: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Fetched:
    """A head whose signature was verified, and where the ledger is said to record it."""

    head: Segment
    state: State
    leaf: int


class _Item(msgspec.Struct, frozen=True, array_like=True):
    state: State
    leaf: Annotated[int, Meta(ge=0)]
    head: bytes


class _Page(msgspec.Struct, frozen=True, kw_only=True):
    items: list[_Item]
    next: int | None


class _Notes(msgspec.Struct, frozen=True, kw_only=True):
    items: list[bytes]
    next: str | None


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """One resource of the hub's list; nothing of it is believed but that it may be asked for."""

    resource: str
    agent: str
    name_zh: str = ""
    name_en: str = ""


class _List(msgspec.Struct, frozen=True, kw_only=True):
    items: list[Listed]
    next: str | None = None


class Sources:
    """Fetches from one hub; keeps the agents' keys that it verified."""

    def __init__(self, client: Client, agents: dict[str, bytes]) -> None:
        self._client = client
        self.agents = agents  # shown agent id → public signing key
        self._keys: dict[bytes, bytes] = {bytes(parse_id(one)): key for one, key in agents.items()}

    def known_keys(self, key: KeyId) -> bytes | None:
        """The public key of an agent whose key was verified under its id, or None."""
        return self._keys.get(bytes(key))

    async def agent_key(self, agent: PrincipalId) -> bytes:
        """The agent's public signing key out of its enrolment. Raises VerifyError, RefusedError.

        The id is the key's: no hub can put another key in its place.
        """
        if agent not in self._keys:
            raw = await self._client.get(
                f"/v1/objects/{show(agent)}", limit=limits.ENROLMENT_BYTES_MAX
            )
            public = _enrolled_key(parse(raw), agent)
            self._keys[bytes(agent)] = public
            self.agents[show(agent)] = public
        return self._keys[bytes(agent)]

    async def resolve(self, name: str) -> list[ResourceId]:
        """Resources with this id or local name: a name is proven by the id that derives from it."""
        listed = [one async for one in self.listed()]
        found = []
        for one in listed:
            agent = PrincipalId(parse_id(one.agent))
            known = ResourceId(parse_id(one.resource))
            if _plain(one.resource) == _plain(name) or resource_id(agent, name) == known:
                found.append(known)
        return found

    async def agent_of(self, resource: ResourceId) -> PrincipalId:
        """The gateway that the hub lists for a resource. Raises RefusedError."""
        async for one in self.listed():
            if parse_id(one.resource) == resource:
                return PrincipalId(parse_id(one.agent))
        raise RefusedError(Code.UNKNOWN_RESOURCE, field="resource")

    async def listed(self) -> AsyncIterator[Listed]:
        """Every resource that the hub says we may read."""
        after: str | None = "0"
        while after is not None:
            raw = await self._client.get("/v1/resources", {"after": after}, limit=_LIST_BYTES_MAX)
            page = wire_json(raw)
            for one in page.items:
                yield one
            after = page.next

    async def heads(self, resource: ResourceId) -> AsyncIterator[Fetched]:
        """Heads in order of acceptance, each verified with its agent's key.

        A segment that was header-only and got its body later is given once, with its body.
        """
        found: dict[bytes, Fetched] = {}
        after: int | None = 0
        path = f"/v1/resources/{show(resource)}/segments"
        while after is not None:
            query = {"after": str(after), "limit": str(_PAGE)}
            raw = await self._client.get(path, query, limit=_PAGE_BYTES_MAX)
            page = wire.decode(raw, _Page, limit=_PAGE_BYTES_MAX)
            for item in page.items:
                head = await self._head(item, resource)
                found.pop(head.id, None)
                found[head.id] = Fetched(head, item.state, item.leaf)
            if page.next is not None and page.next <= after:
                raise VerifyError(Code.MALFORMED, field="next", value=page.next)
            after = page.next
        for one in found.values():
            yield one

    async def segment(self, segment_id: bytes) -> Segment:
        """Whatever the hub has under this id, its signature verified, whichever resource it is of.

        Raises RefusedError for none, VerifyError, DecodeError.
        """
        raw = await self._client.get(f"/v1/segments/{segment_id.hex()}", limit=_SEGMENT_BYTES_MAX)
        return await self._signed(segment.parse(raw[: read_prelude(raw).head_bytes], body=False))

    async def _signed(self, unverified: Unverified) -> Segment:
        signer = PrincipalId(bytes(unverified.prelude.signer))
        head = unverified.verify(await self.agent_key(signer))
        if head.header.agent != signer:
            raise VerifyError(Code.WRONG_AGENT, field="agent", value=head.header.agent)
        return head

    async def _head(self, item: _Item, resource: ResourceId) -> Segment:
        head = await self._signed(segment.parse(item.head, body=False))
        if head.header.resource != resource:
            raise VerifyError(Code.UNKNOWN_RESOURCE, field="resource", value=head.header.resource)
        return head

    async def entry(self, object_id: bytes, agent: PrincipalId) -> Registration:
        """The registration entry of this object id, signed by that agent."""
        raw = await self._client.get(
            f"/v1/objects/{object_id.hex()}", limit=limits.OBJECT_BYTES_MAX
        )
        envelope = parse(raw)
        if envelope.object_id != ObjectId(object_id):
            raise VerifyError(Code.HASH_MISMATCH, field="entry", value=envelope.object_id)
        return open_registration(envelope, await self.agent_key(agent))

    async def notes(
        self, resource: ResourceId, agents: Iterable[PrincipalId], streams: Container[bytes]
    ) -> AsyncIterator[Note]:
        """Gap notes and corrections about a resource, verified under the keys of its gateways.

        Raises VerifyError.
        """
        known = {bytes(one): await self.agent_key(one) for one in agents}
        after: str | None = ""
        path = f"/v1/resources/{show(resource)}/notes"
        while after is not None:
            query = {"after": after} if after else {}
            raw = await self._client.get(path, query, limit=_NOTES_BYTES_MAX)
            page = wire.decode(raw, _Notes, limit=_NOTES_BYTES_MAX)
            for one in page.items:
                note = open_note(parse(one), lambda key: known.get(bytes(key)))
                if isinstance(note, Gap):
                    if note.resource != resource:
                        raise VerifyError(Code.UNKNOWN_RESOURCE, field="gap", value=note.resource)
                elif bytes(note.stream) not in streams:
                    raise VerifyError(Code.STREAM_UNKNOWN, field="correction", value=note.stream)
                yield note
            if page.next is not None and page.next == after:
                raise VerifyError(Code.MALFORMED, field="next", value=page.next)
            after = page.next

    async def wraps(
        self, resource: ResourceId, owner: PrincipalId, makers: Iterable[PrincipalId]
    ) -> AsyncIterator[tuple[Envelope, Wrap]]:
        """Wraps for this owner, made by one of these agents; of other makers' none is looked at."""
        wanted = set(makers)
        after = ""
        while True:
            query = {"recipient": show(owner), "resource": show(resource)}
            if after:
                query["after"] = after
            raw = await self._client.get("/v1/wraps", query, limit=_WRAPS_BYTES_MAX)
            page = wire.decode(raw, list[bytes], limit=_WRAPS_BYTES_MAX)
            for one in page:
                envelope = parse(one)
                if PrincipalId(bytes(envelope.signer)) not in wanted:
                    continue
                wrap = read_wrap(envelope, self.known_keys)
                if wrap.recipient == owner:
                    yield envelope, wrap
                after = str(wrap.epoch)
            if len(page) < _WRAPS_PAGE:
                return

    async def bodies(
        self, heads: list[Segment], *, ahead: int
    ) -> AsyncIterator[tuple[Segment, bytes]]:
        """Whole segments in the order of their heads, a few fetched ahead."""
        running: list[tuple[Segment, asyncio.Task[bytes]]] = []
        waiting = iter(heads)
        try:
            while True:
                while len(running) < ahead and (head := next(waiting, None)) is not None:
                    running.append((head, asyncio.create_task(self._body(head))))
                if not running:
                    return
                head, task = running.pop(0)
                yield head, await task
        finally:
            for _, task in running:
                task.cancel()
            await asyncio.gather(*(task for _, task in running), return_exceptions=True)

    async def _body(self, head: Segment) -> bytes:
        return await self._client.get(f"/v1/segments/{head.id.hex()}", limit=_SEGMENT_BYTES_MAX)


def _enrolled_key(envelope: Envelope, agent: PrincipalId) -> bytes:
    expect_kind(envelope, "enrolment")
    claimed = decode_payload(envelope, Enrolment)
    if principal_id(claimed.signing_key, suite=envelope.suite) != agent:
        raise VerifyError(Code.WRONG_SIGNER, field="signing_key", value=claimed.signing_key)
    return claimed.signing_key


def wire_json(raw: bytes) -> _List:
    """The hub's JSON list of resources. Raises VerifyError for anything else."""
    try:
        return msgspec.json.decode(raw, type=_List)
    except msgspec.MsgspecError as error:
        raise VerifyError(Code.MALFORMED, field="resources", expected="a list") from error


def _plain(text: str) -> str:
    return text.replace("-", "").strip().lower()
