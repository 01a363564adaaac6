"""What must hold between the pieces that a hub hands out; each finding names its segment."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Final

from hub.owner.ledger import Ledger
from hub.owner.sources import Fetched
from protocol.chain import NO_SEGMENT
from protocol.checks import check_columns
from protocol.envelope import Envelope, SealingKey
from protocol.errors import Code, ShanmenError, VerifyError
from protocol.header import Header
from protocol.ids import KeyId, ResourceId, show
from protocol.keys import EpochKey
from protocol.leaf import BatchLeaf
from protocol.records import Columns
from protocol.registration import Registration, pack_of
from protocol.segment import Segment
from protocol.wraps import Wrap, open_wrap

#: How much older than its epoch's start a record may be: the largest `lateness` of a gateway.
LATENESS_US_MAX: Final = 31 * 86_400 * 1_000_000


class UnprovenError(ShanmenError):
    """A segment that does not verify: which one, and why."""

    def __init__(self, cause: ShanmenError, segment: str, stream: str, seq: int) -> None:
        super().__init__(cause.code, field=cause.field, value=None, expected=cause.expected)
        self.cause = cause
        self.segment = segment  # id, hexadecimal
        self.stream = stream
        self.seq = seq

    @classmethod
    def of(cls, head: Segment, cause: ShanmenError) -> "UnprovenError":
        """A finding about this head."""
        return cls(cause, head.id.hex(), show(head.header.stream), head.header.seq)

    def __str__(self) -> str:
        return f"segment {self.segment} (stream {self.stream}, seq {self.seq}): {self.cause}"


def check_streams(heads: Sequence[Fetched]) -> None:
    """Every stream runs from 0 without a gap, each segment linked to the one before.

    A stream that continues another may name a segment that the hub never had: that is what a
    gateway does whose image was restored. Its rows tell that nothing is there twice.
    """
    streams: dict[bytes, list[Segment]] = {}
    for one in heads:
        streams.setdefault(one.head.header.stream, []).append(one.head)
    for chain in streams.values():
        chain.sort(key=lambda head: head.header.seq)
        before = NO_SEGMENT
        for number, head in enumerate(chain):
            if head.header.seq != number:
                raise UnprovenError.of(
                    head, VerifyError(Code.GAP, field="seq", expected=f"seq {number}")
                )
            if head.header.prev != before:
                raise UnprovenError.of(head, VerifyError(Code.FORK, field="prev"))
            before = head.id


def check_rows(heads: Sequence[Fetched]) -> None:
    """No journal row of one run stands in two segments: nothing is there twice."""
    ranges: dict[bytes, list[tuple[int, int, Segment]]] = {}
    for one in heads:
        for run, first, last in one.head.header.rows:
            ranges.setdefault(run, []).append((first, last, one.head))
    for named in ranges.values():
        named.sort(key=lambda row: row[:2])
        for (_, last, _), (first, _, head) in pairwise(named):
            if first <= last:
                raise UnprovenError.of(head, VerifyError(Code.OVERLAP, field="rows"))


def check_entry(head: Segment, entry: Registration) -> None:
    """The entry that a head names is about the same resource, agent, grade and suite."""
    header = head.header
    pairs = (
        ("resource", header.resource, entry.resource),
        ("agent", header.agent, entry.agent),
        ("grade", header.grade, entry.grade),
        ("suite", head.prelude.suite, entry.encryption.suite),
    )
    for name, said, right in pairs:
        if said != right:
            raise VerifyError(Code.ENTRY_MISMATCH, field=name)


async def check_inclusion(one: Fetched, ledgers: Iterable[Ledger]) -> None:
    """The leaf that the hub names records this very segment in the state that it claims."""
    for ledger in ledgers:
        if one.leaf >= ledger.checkpoint.size:
            continue
        leaf = await ledger.leaf(one.leaf)
        if (
            isinstance(leaf, BatchLeaf)
            and leaf.agent == one.head.header.agent
            and any((state, item) == (one.state, bytes(one.head.id)) for state, item in leaf.items)
        ):
            return
    raise VerifyError(Code.PROOF_INVALID, field="leaf", value=one.leaf)


def check_wrap(
    envelope: Envelope,
    wrap: Wrap,
    sealing: SealingKey,
    keys: Callable[[KeyId], bytes | None],
    resource: ResourceId,
) -> EpochKey:
    """Open a wrap and hold it against what was asked for. Raises VerifyError."""
    if wrap.resource != resource:
        raise VerifyError(Code.BINDING_MISMATCH, field="wrap resource", value=wrap.resource)
    return open_wrap(envelope, sealing, keys)


def check_records(
    columns: Columns,
    header: Header,
    keys: Mapping[int, EpochKey] | None,
    entry: Registration,
) -> None:
    """Records agree with their header, their key's interval and the entry's schema."""
    if columns.count != header.count or len(columns.event_time) != header.count:
        raise VerifyError(Code.BINDING_MISMATCH, field="count", value=header.count)
    first, last = min(columns.event_time), max(columns.event_time)
    if (first, last) != (header.first_at, header.last_at):
        raise VerifyError(Code.BINDING_MISMATCH, field="event time", value=first)
    for key in (keys or {}).values():
        # The open epoch also takes what is late by less than the gateway's `lateness`.
        if not (key.from_us - LATENESS_US_MAX <= first and last < key.to_us):
            raise VerifyError(Code.BINDING_MISMATCH, field="interval", value=last)
    problems = check_columns(pack_of(entry), columns)
    if problems:
        raise VerifyError(
            Code.BINDING_MISMATCH, field=problems[0].field, expected=problems[0].expected
        )
