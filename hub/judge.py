"""What becomes of each item of a group, against the rows as its transaction sees them.

Items are judged in order, each against the rows and against what the items before it change.
Nothing is written here: `accept` writes what was judged, all rows of a table at once. Each kind of
row is read once for the whole group, in the constructor.
"""

from collections.abc import Iterable
from functools import cached_property
from typing import Final

from hub.domain.chains import Resource, Stream, newest_run
from hub.domain.outcomes import (
    Accepted,
    Duplicate,
    Evidence,
    Fork,
    Later,
    Missing,
    Outcome,
    Overlap,
    Page,
    Refused,
    UnknownResource,
)
from hub.judged import Judged, NewEntry, NewSegment, NewStream
from hub.ledger import FIRST_GENERATION
from hub.store import entries, leaves, objects, segments, streams
from hub.store.agents import AgentRow
from hub.store.engine import Tx
from hub.store.entries import Known, ResourceRow
from hub.store.segments import SegmentRow
from hub.verify import Checked, CheckedObject, CheckedSegment
from protocol import messages
from protocol.chain import RowRange, Verdict, judge, rows_overlap
from protocol.errors import Code
from protocol.grades import Grade, more_open
from protocol.header import Header
from protocol.ids import SegmentId
from protocol.leaf import State
from protocol.limits import EVIDENCE_PAGE_MAX, SYNC_ITEMS_MAX
from protocol.notes import Gap
from protocol.registration import Registration
from protocol.wraps import Wrap

_ROW_MAX: Final = 2**63 - 1

#: One batch: whose, and its items as `verify` left them.
Work = tuple[AgentRow, list[Checked]]


class Judge:
    """Judges batches against one transaction's rows; thrown away with the transaction."""

    def __init__(
        self, tx: Tx, work: Iterable[Work], *, lost: frozenset[bytes] = frozenset()
    ) -> None:
        """work: everything that this judge will be asked about.

        lost: segments whose body was accepted and is gone from the disk; it is welcome again.
        """
        self._tx = tx
        self._lost = lost
        self._resources: dict[bytes, Resource] = {}
        self._tails: dict[tuple[bytes, bytes], int] = {}
        self._new_rows: dict[bytes, list[RowRange]] = {}
        self._in_group: dict[bytes, State] = {}
        items = [item for _agent, batch in work for item in batch]
        heads = [item for item in items if isinstance(item, CheckedSegment)]
        made = [item for item in items if isinstance(item, CheckedObject)]
        pages = [item for item in items if isinstance(item, messages.EvidenceItem)]
        self._rows = _resource_rows(tx, made, pages)
        self._stored = objects.leaves_of(tx, [one.id for one in made]) if made else {}
        self._entries = entries.known(tx, {one.header.entry for one in heads}) if heads else {}
        self._load_streams([agent.id for agent, _items in work])
        self._duplicates = self._load_duplicates(heads)

    @cached_property
    def _generation(self) -> int:
        """The ledger's live generation; asked for only where something was recorded before."""
        head = leaves.live(self._tx)
        assert head is not None
        return head.generation

    def batch(self, work: Work) -> Judged:
        """Judge one batch's items in order; what it changes is seen by the batches after it."""
        agent, items = work
        judged = Judged(agent, len(items))
        for item in items:
            judged.outcomes.append(self._item(judged, item))
        return judged

    def _item(self, judged: Judged, item: Checked) -> Outcome:
        match item:
            case Refused():
                return item
            case CheckedObject():
                return self._object(judged, item)
            case CheckedSegment():
                return self._segment(judged, item)
            case messages.EvidenceItem():
                return self._page(judged, item)

    def _page(self, judged: Judged, item: messages.EvidenceItem) -> Outcome:
        resource = self._resources.get(item.resource)
        if resource is None or resource.agent != judged.agent.id:
            return UnknownResource()
        stream = resource.streams.get(item.stream)
        if stream is None or stream.n == 0:
            return Missing(-1)
        after = -1 if item.after is None else item.after
        shown = Evidence(stream.n, after)
        return Page(shown) if self._is_provable(judged, shown) else Later(1)

    # --- objects ---------------------------------------------------------------------------------

    def _object(self, judged: Judged, item: CheckedObject) -> Outcome:
        stored = self._stored.get(item.id)
        if stored is not None:
            return self._again(judged, Duplicate(State.OBJECT, item.id, *stored))
        if item.id in self._in_group:
            return Accepted(State.OBJECT, item.id)
        if isinstance(item.payload, Registration):
            problem = self._registration(judged, item, item.payload)
        else:
            problem = self._about_resource(judged.agent, item.payload)
        if problem is not None:
            return problem
        self._in_group[item.id] = State.OBJECT
        judged.objects.append(item)
        return Accepted(State.OBJECT, item.id)

    def _about_resource(self, agent: AgentRow, payload: object) -> Outcome | None:
        if not isinstance(payload, Wrap | Gap):
            return None
        resource = self._resources.get(payload.resource)
        if resource is None:
            return UnknownResource()
        return None if resource.agent == agent.id else _not_yours()

    def _registration(
        self, judged: Judged, item: CheckedObject, payload: Registration
    ) -> Outcome | None:
        if payload.agent != judged.agent.id:
            return _not_yours()
        before = self._rows.get(payload.resource)
        if before is not None and more_open(payload.grade, Grade(before.grade)):
            return Refused(Code.NOT_OWNER, "a more open grade needs the owner's signature")
        resource = self._resources.get(payload.resource)
        if resource is None:
            resource = Resource(n=0, id=payload.resource, agent=judged.agent.id)
            self._resources[resource.id] = resource
        known = Known(
            object=item.id,
            grade=payload.grade,
            suite=payload.encryption.suite,
            resource=resource.id,
            n=resource.n,
            agent=judged.agent.id,
            site=judged.agent.site,
        )
        self._entries[item.id] = known
        in_force = before is None or payload.version >= before.version
        judged.entries.append(NewEntry(item, payload, resource, in_force, before))
        return None

    # --- segments --------------------------------------------------------------------------------

    def _segment(self, judged: Judged, item: CheckedSegment) -> Outcome:
        if item.id in self._in_group:
            state = self._in_group[item.id]
            body_too = state == State.HEADER and item.body is not None
            return Later(1) if body_too else Accepted(state, item.id)
        entry = self._entries.get(item.header.entry)
        if entry is None:
            return UnknownResource()
        problem = _against_entry(judged.agent, item, entry)
        if problem is not None:
            return problem
        return self._in_chain(judged, item, self._resources[entry.resource])

    def _in_chain(self, judged: Judged, item: CheckedSegment, resource: Resource) -> Outcome:
        header = item.header
        stream = resource.streams.get(header.stream)
        known = item.id if item.id in self._duplicates else None
        verdict = judge(
            None if stream is None else stream.as_head,
            header.seq,
            header.prev,
            SegmentId(item.id),
            None if known is None else SegmentId(known),
        )
        match verdict:
            case Verdict.NEXT:
                return self._next(judged, item, resource, stream)
            case Verdict.DUPLICATE:
                return self._duplicate(judged, item, self._duplicates[item.id])
            case Verdict.GAP:
                return Missing(-1 if stream is None else stream.seq)
            case Verdict.FORK:
                return self._fork(judged, stream, header)

    def _duplicate(self, judged: Judged, item: CheckedSegment, row: SegmentRow) -> Outcome:
        kept = row.state == State.BODY and row.id not in self._lost
        if kept or item.body is None:
            again = Duplicate(State(row.state), row.id, row.generation, row.leaf)
            return self._again(judged, again)
        if item.flaw is not None:
            return item.flaw
        self._in_group[item.id] = State.BODY
        judged.completions.append(item)
        return Accepted(State.BODY, item.id)

    def _next(
        self, judged: Judged, item: CheckedSegment, resource: Resource, stream: Stream | None
    ) -> Outcome:
        header = item.header
        problem = (
            self._against_streams(judged, resource, stream, header)
            or self._overlap(judged, resource, header)
            or item.flaw
        )
        if problem is not None:
            return problem
        if stream is None:
            stream = self._begin(judged, resource, header)
        stream.seq, stream.head = header.seq, item.id
        state = State.HEADER if item.body is None else State.BODY
        self._in_group[item.id] = state
        self._new_rows.setdefault(resource.id, []).extend(header.rows)
        judged.segments.append(NewSegment(item, resource, stream, state))
        return Accepted(state, item.id)

    def _against_streams(
        self, judged: Judged, resource: Resource, stream: Stream | None, header: Header
    ) -> Outcome | None:
        if stream is not None:
            return None if stream.takes(header.seq) else self._fork(judged, stream, header)
        continues = header.continues
        if resource.may_begin(None if continues is None else continues.stream):
            return None
        # The agent's file is older than the resource, or lost: it is shown all that was accepted.
        first = next(iter(resource.streams.values()))
        return self._forked(judged, first, -1)

    def _begin(self, judged: Judged, resource: Resource, header: Header) -> Stream:
        run = newest_run(header.rows)
        stream = Stream(n=0, id=header.stream, seq=-1, head=b"", run=run)
        is_clone = resource.is_clone(run)
        bounded = (
            []
            if header.continues is None
            else resource.bound(header.continues.stream, header.continues.seq)
        )
        resource.streams[stream.id] = stream
        judged.streams.append(NewStream(resource, stream, bounded, is_clone))
        return stream

    def _overlap(self, judged: Judged, resource: Resource, header: Header) -> Outcome | None:
        """Whether a row of the segment is in an accepted one; the usual case costs no query."""
        maybe = [row for row in header.rows if row[1] <= self._tail(resource, row[0])]
        if maybe:
            found = segments.holding(self._tx, resource.n, maybe, EVIDENCE_PAGE_MAX)
            if found:
                rows = segments.by_ids(self._tx, found)
                return Overlap(tuple(found)) if self._renew(judged, rows.values()) else Later(1)
            if rows_overlap(maybe, self._new_rows.get(resource.id, ())):
                return Later(1)  # with a row of this very group: then it is committed, and proven
        for run, _first, last in header.rows:
            key = (resource.id, run)
            self._tails[key] = max(self._tails.get(key, -1), last)
        return None

    def _tail(self, resource: Resource, run: bytes) -> int:
        """The last row of a run that is accepted, or −1."""
        key = (resource.id, run)
        if key not in self._tails:
            found = (
                segments.range_before(self._tx, resource.n, run, _ROW_MAX) if resource.n else None
            )
            self._tails[key] = -1 if found is None else found.last
        return self._tails[key]

    # --- what an older generation recorded -------------------------------------------------------

    def _again(self, judged: Judged, found: Duplicate) -> Outcome:
        """A duplicate is proven by its old leaf; one of an older generation is recorded anew."""
        if found.generation == self._generation:
            return found
        judged.renewed.append((found.state, found.id))
        return Accepted(found.state, found.id)

    def _fork(self, judged: Judged, stream: Stream | None, header: Header) -> Outcome:
        """What the hub has in the segment's place: its stream's headers up to the head."""
        assert stream is not None
        known = header.seq <= stream.seq
        after = header.seq - 1 if known else max(-1, stream.seq - EVIDENCE_PAGE_MAX)
        return self._forked(judged, stream, after)

    def _forked(self, judged: Judged, stream: Stream, after: int) -> Outcome:
        if stream.n == 0:
            return Later(1)  # it begins in this very group: then it is committed, and proven
        shown = Evidence(stream.n, after)
        return Fork(shown) if self._is_provable(judged, shown) else Later(1)

    def _is_provable(self, judged: Judged, evidence: Evidence) -> bool:
        """Whether this answer can prove the page; what an older generation has is renewed."""
        if self._generation == FIRST_GENERATION:
            return True
        rows = segments.page_of_stream(self._tx, evidence.stream, evidence.after, EVIDENCE_PAGE_MAX)
        return self._renew(judged, rows)

    def _renew(self, judged: Judged, rows: Iterable[SegmentRow]) -> bool:
        """Record rows of older generations in this batch's leaf; False if it does not hold all.

        Then the item is answered `later`, never without evidence: an agent would take that for all
        there is. It holds at least one, for the item itself needs no place, so it comes to an end.
        """
        named = set(judged.accepted)
        old = [(State(row.state), row.id) for row in rows if row.generation != self._generation]
        new = [one for one in old if one not in named]
        to_come = judged.size - len(judged.outcomes) - 1
        room = SYNC_ITEMS_MAX - len(named) - to_come
        judged.renewed += new[:room]
        return len(new) <= room

    # --- rows ------------------------------------------------------------------------------------

    def _load_streams(self, agents: list[bytes]) -> None:
        for row in self._rows.values():
            self._resources[row.id] = Resource(n=row.n, id=row.id, agent=row.agent)
        for entry in self._entries.values():
            self._resources[entry.resource] = Resource(
                n=entry.n, id=entry.resource, agent=entry.agent
            )
        if not self._resources:
            return
        for one in streams.of(self._tx, agents, self._resources):
            self._resources[one.resource].streams[one.id] = Stream(
                n=one.n,
                id=one.id,
                seq=one.seq,
                head=one.head,
                run=one.run,
                last_seq=one.last_seq,
                committed_seq=one.seq,
                committed_head=one.head,
            )

    def _load_duplicates(self, heads: list[CheckedSegment]) -> dict[bytes, SegmentRow]:
        """The rows of those items that stand at or before their stream's head: rarely any."""
        maybe = []
        for one in heads:
            resource = self._resources.get(one.header.resource)
            stream = None if resource is None else resource.streams.get(one.header.stream)
            if stream is not None and one.header.seq <= stream.seq:
                maybe.append(one.id)
        return segments.by_ids(self._tx, maybe) if maybe else {}


def _resource_rows(
    tx: Tx, made: list[CheckedObject], pages: list[messages.EvidenceItem]
) -> dict[bytes, ResourceRow]:
    ids: set[bytes] = {
        one.payload.resource for one in made if isinstance(one.payload, Registration | Wrap | Gap)
    }
    ids |= {one.resource for one in pages}
    return entries.resources_of(tx, ids) if ids else {}


def _against_entry(agent: AgentRow, item: CheckedSegment, entry: Known) -> Outcome | None:
    header = item.header
    if entry.agent != agent.id or entry.resource != header.resource:
        return _not_yours()
    if entry.grade != header.grade or entry.suite != item.suite:
        return Refused(
            Code.ENTRY_MISMATCH,
            f"grade {header.grade}, suite {item.suite}: "
            f"the entry says {entry.grade}, {entry.suite}",
        )
    return None


def _not_yours() -> Refused:
    return Refused(Code.WRONG_AGENT, "the resource belongs to another agent")
