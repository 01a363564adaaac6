"""One resource from the hub to records: everything is verified before a record is believed.

Heads first: signature by the agent's key, streams from number 0 without gaps, journal rows named
once, the registration entry that each head names, the ledger leaf that names each head. Then
bodies one after another: part hashes, the epoch key out of a wrap for this owner, AEAD, columns.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from hub.owner.client import Client
from hub.owner.ledger import Ledger, SetBack
from hub.owner.sources import Fetched, Sources
from hub.owner.verify import (
    UnprovenError,
    check_entry,
    check_inclusion,
    check_records,
    check_rows,
    check_streams,
    check_wrap,
)
from protocol import segment
from protocol.checkpoint import generation_of, same_log
from protocol.envelope import Envelope, SealingKey
from protocol.errors import Code, DecodeError, VerifyError
from protocol.grades import rules
from protocol.ids import PrincipalId, ResourceId
from protocol.keys import EpochKey
from protocol.leaf import State
from protocol.notes import Note
from protocol.records import Columns
from protocol.registration import Registration
from protocol.segment import Segment
from protocol.wraps import Seen, Wrap

#: Segments fetched ahead of the one that is opened.
AHEAD: Final = 4


@dataclass(slots=True)
class Found:
    """What a reading came across besides records."""

    segments: int = 0
    records: int = 0  # as the heads say
    entries: dict[bytes, Registration] = field(default_factory=dict)  # by object id
    without_body: list[Segment] = field(default_factory=list)  # header only: told, not hidden
    heads: list[Segment] = field(default_factory=list)
    set_back: list[SetBack] = field(default_factory=list)  # a restored hub: told
    others: int = 0  # segments of the same gateways that the hub says are another owner's
    notes: list[Note] = field(default_factory=list)  # declared loss, and what times meant
    continued: list[Segment] = field(default_factory=list)  # heads of streams that follow another


@dataclass(frozen=True, slots=True)
class Reader:
    """A reading of one resource for one owner: fetch, then check, then records."""

    client: Client
    sources: Sources
    ledgers: list[Ledger]  # newest generation first; filled in between fetching and checking
    owner: PrincipalId
    sealing: SealingKey
    resource: ResourceId
    _keys: dict[bytes, EpochKey] = field(default_factory=dict)  # by commitment

    async def fetch(self) -> tuple[list[Fetched], list[tuple[Envelope, Wrap]]]:
        """All heads in order of acceptance and all wraps for the owner, signatures verified."""
        heads = [one async for one in self.sources.heads(self.resource)]
        makers = {one.head.header.agent for one in heads}
        if not any(rules(one.head.header.grade).sealed for one in heads):
            return heads, []
        wraps = self.sources.wraps(self.resource, self.owner, makers)
        return heads, [one async for one in wraps]

    async def check(
        self,
        heads: Sequence[Fetched],
        wraps: Iterable[tuple[Envelope, Wrap]],
        found: Found,
    ) -> None:
        """Verify heads against each other, their entries and the ledger; open the wraps.

        Raises UnprovenError that names the segment, VerifyError for what concerns none.
        """
        check_streams(heads)
        check_rows(heads)
        found.entries = await self._entries(heads)
        for one in heads:
            with _about(one.head):
                check_entry(one.head, found.entries[one.head.header.entry])
                await check_inclusion(one, self.ledgers)
        for envelope, wrap in wraps:
            key = check_wrap(envelope, wrap, self.sealing, self.sources.known_keys, self.resource)
            await self._compare_view(wrap.seen)
            self._keys[wrap.commitment] = key
        found.segments = len(heads)
        found.heads = [one.head for one in heads]
        found.records = sum(one.head.header.count for one in heads)
        found.without_body = [one.head for one in heads if one.state is not State.BODY]
        found.continued = [one.head for one in heads if one.head.header.continues is not None]

    async def records(
        self, heads: Iterable[Fetched], entries: Mapping[bytes, Registration]
    ) -> AsyncIterator[Columns]:
        """The records of heads that have a body, segment by segment, verified and opened."""
        wanted = [one.head for one in heads if one.state is State.BODY]
        async for head, raw in self.sources.bodies(wanted, ahead=AHEAD):
            with _about(head):
                columns = self._open(head, raw, entries[head.header.entry])
            yield columns

    async def _entries(self, heads: Iterable[Fetched]) -> dict[bytes, Registration]:
        entries: dict[bytes, Registration] = {}
        for one in heads:
            name = one.head.header.entry
            if name not in entries:
                with _about(one.head):
                    entries[name] = await self.sources.entry(name, one.head.header.agent)
        return entries

    async def _compare_view(self, seen: Seen | None) -> None:
        """What an agent saw of the ledger must be what we see: else two were shown two."""
        if seen is None or seen.size == 0:
            return
        newest = self.ledgers[0].checkpoint
        for ledger in self.ledgers:
            if ledger.checkpoint.origin == seen.origin and seen.size <= ledger.checkpoint.size:
                if await ledger.root_of(seen.size) != seen.root:
                    raise VerifyError(Code.CONSISTENCY_INVALID, field="seen", value=seen.root)
                return
        # A hub that was restored has stated so: agents may have seen more of a frozen generation.
        older = same_log(seen.origin, newest.origin) and (
            generation_of(seen.origin) < newest.generation
        )
        if not older:
            raise VerifyError(Code.TREE_SMALLER, field="seen", value=seen.size)

    def _open(self, head: Segment, raw: bytes, entry: Registration) -> Columns:
        public = self.sources.known_keys(head.prelude.signer)
        if public is None:
            raise VerifyError(Code.UNKNOWN_KEY, field="signer", value=head.prelude.signer)
        whole = segment.parse(raw).verify(public)
        if whole.id != head.id:
            raise VerifyError(Code.BINDING_MISMATCH, field="segment", value=whole.id)
        segment.check_body(whole)
        header = whole.header
        mine: dict[int, EpochKey] | None = None
        if rules(header.grade).sealed:
            mine = {
                part.group: self._keys[part.commitment]
                for part in header.parts
                if part.commitment in self._keys
            }
            if 0 not in mine:
                raise DecodeError(
                    Code.NOT_FOUND, field="wrap", value=header.epoch, expected="a key of this epoch"
                )
        columns = segment.open_segment(whole, mine)
        check_records(columns, header, mine, entry)
        return columns


class _about:  # noqa: N801 — reads as a sentence: with _about(head)
    """Errors inside are about this segment: name it."""

    def __init__(self, head: Segment) -> None:
        self._head = head

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, VerifyError | DecodeError) and not isinstance(error, UnprovenError):
            raise UnprovenError.of(self._head, error) from error
