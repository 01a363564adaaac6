"""The accepting transaction: what was judged becomes rows, one leaf a batch, and a moved head.

    nonces ─▶ [judge ─▶ streams ─▶ objects, entries, wraps ─▶ ledger head locked ─▶
               segments, ranges ─▶ leaves, head] ─▶ COMMIT

If a row is not as it was judged (another process was faster), the transaction is rolled back and
done again with care: the group is one savepoint, and where that fails it is tried in halves, down
to single items; an item that still conflicts is answered `later`. So one bad item costs its
neighbours nothing, and the usual group pays for no savepoint.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import IntegrityError

from hub import registry
from hub.domain.agents import AgentState
from hub.domain.outcomes import Later, Outcome
from hub.judge import Judge, Work
from hub.judged import Judged
from hub.ledger import Appended, Ledger
from hub.store import (
    agents,
    audit,
    objects,
    packs,
    search,
    segments,
    streams,
    summaries,
    wraps,
)
from hub.store.agents import AgentRow
from hub.store.bodies import Bodies, Written
from hub.store.engine import Tx
from hub.store.leaves import HeadRow
from hub.store.objects import ObjectRow
from hub.store.packs import PackRow
from hub.store.segments import Completed, RangeRow
from hub.store.streams import Move, StreamRow
from hub.store.wraps import WrapRow
from hub.verify import CheckedSegment
from protocol import leaf
from protocol.envelope import Envelope
from protocol.errors import Code
from protocol.ids import PrincipalId
from protocol.leaf import State
from protocol.wraps import Wrap


class ConflictError(Exception):
    """A row is not as it was judged: another process wrote between."""


@dataclass(slots=True)
class Packed:
    """The group's durable pack, and where each segment's body lies in it."""

    written: Written | None
    places: dict[bytes, tuple[int, int]]  # segment id -> offset, length
    lost: frozenset[bytes] = frozenset()  # accepted before, but their pack's file is gone


@dataclass(slots=True)
class Done:
    """What a transaction has made of a group; true once it has committed."""

    outcomes: list[list[Outcome]]  # of each batch, of each item
    leaves: dict[bytes, tuple[int, int]]  # accepted id -> generation, leaf
    appended: list[Appended]


class Accept:
    """Writes one group; thrown away with its transaction."""

    def __init__(
        self,
        tx: Tx,
        *,
        ledger: Ledger,
        bodies: Bodies,
        packed: Packed,
        now_us: int,
        decide: Callable[[str, bytes, str, int], Envelope],
    ) -> None:
        """decide: signs the hub's own decision (action, agent, reason, µs) as a `review`."""
        self._tx = tx
        self._decide = decide
        self._decisions: list[Envelope] = []
        self._ledger = ledger
        self._bodies = bodies
        self._packed = packed
        self._now_us = now_us
        self._pack_n: int | None = None
        self._done = Done([], {}, [])

    def run(self, work: Sequence[Work], *, careful: bool) -> Done:
        """Judge and write the batches, each outcome in its place.

        Without care (no savepoint), raises ConflictError or IntegrityError if a row is not as it
        was judged: the caller rolls back and comes again with care.
        """
        self._done.outcomes = self._try(work) if careful else self._write(work)
        return self._done

    def _try(self, work: Sequence[Work]) -> list[list[Outcome]]:
        before = len(self._done.appended), dict(self._done.leaves), self._pack_n
        try:
            with self._tx.begin_nested():
                return self._write(work)
        except (ConflictError, IntegrityError):
            count, self._done.leaves, self._pack_n = before
            del self._done.appended[count:]
        if len(work) > 1:
            half = len(work) // 2
            return self._try(work[:half]) + self._try(work[half:])
        agent, items = work[0]
        if len(items) > 1:
            half = len(items) // 2
            return [self._try([(agent, items[:half])])[0] + self._try([(agent, items[half:])])[0]]
        return [[Later(1)]]

    def _write(self, work: Sequence[Work]) -> list[list[Outcome]]:
        self._decisions = []
        judge = Judge(self._tx, work, lost=self._packed.lost)
        judged = [judge.batch(one) for one in work]
        self._check_pack(judged)
        if any(one.accepted for one in judged):
            for one in judged:
                registry.write_entries(self._tx, one, self._now_us)
            self._write_streams(judged)
            self._write_recorded(judged)
            search.refresh(self._tx, {new.resource.n for one in judged for new in one.entries})
        return [one.outcomes for one in judged]

    def _check_pack(self, judged: list[Judged]) -> None:
        """A body that is not in the pack (judged otherwise before the lock) comes again later."""
        for one in judged:
            for new in one.segments:
                if new.state == State.BODY and new.checked.id not in self._packed.places:
                    raise ConflictError
            for done in one.completions:
                if done.id not in self._packed.places:
                    raise ConflictError

    # --- streams ---------------------------------------------------------------------------------

    def _write_streams(self, judged: list[Judged]) -> None:
        moved: dict[int, Move] = {}
        for one in judged:
            for new in one.streams:
                for old in new.bounded:
                    if old.n:
                        assert old.last_seq is not None
                        streams.close(self._tx, old.n, old.last_seq)
                new.stream.n = streams.add(
                    self._tx,
                    StreamRow(
                        n=0,
                        agent=one.agent.id,
                        resource=new.resource.id,
                        id=new.stream.id,
                        seq=new.stream.seq,
                        head=new.stream.head,
                        last_seq=new.stream.last_seq,
                        run=new.stream.run,
                        created_us=self._now_us,
                    ),
                )
                new.stream.committed_seq = new.stream.seq  # its row holds the group's last head
                if new.is_clone:
                    self._suspend_clone(one.agent)
            for segment in one.segments:
                stream = segment.stream
                if stream.moved:
                    moved[stream.n] = Move(
                        stream=stream.n,
                        old_seq=stream.committed_seq,
                        old_head=stream.committed_head,
                        seq=stream.seq,
                        head=stream.head,
                    )
        if not streams.move(self._tx, moved.values()):
            raise ConflictError

    def _suspend_clone(self, agent: AgentRow) -> None:
        """Two processes from one image take turns: both wait until an operator decides."""
        now = agents.get(self._tx, agent.id)
        if now is not None and now.state is AgentState.ACTIVE:
            reason = Code.CLONE_SUSPECTED.key
            agents.set_state(
                self._tx, agent.id, AgentState.SUSPENDED, audit.HUB, self._now_us, reason=reason
            )
            self._decisions.append(self._decide("agent.suspend", agent.id, reason, self._now_us))

    # --- what carries a leaf ---------------------------------------------------------------------

    def _write_recorded(self, judged: list[Judged]) -> None:
        """Segments and objects name their leaf, so the head's row is taken before them."""
        head = self._ledger.lock(self._tx)
        data: list[bytes] = []
        leaf_of: dict[int, int] = {}
        for number, one in enumerate(judged):
            accepted = one.accepted
            if accepted:
                leaf_of[number] = head.size + len(data)
                data.append(leaf.batch_leaf(PrincipalId(one.agent.id), accepted, self._now_us))
                for _state, item in accepted:
                    self._done.leaves[item] = (head.generation, leaf_of[number])
        self._write_objects(judged)
        self._write_decisions(head, data)
        self._renew(judged)
        changes = self._write_segments(judged, head)
        self._done.appended.append(self._ledger.append(self._tx, data, head=head, changes=changes))

    def _write_objects(self, judged: list[Judged]) -> None:
        made: list[ObjectRow] = []
        wrapped: list[WrapRow] = []
        for one in judged:
            for item in one.objects:
                generation, index = self._done.leaves[item.id]
                made.append(
                    ObjectRow(
                        id=item.id,
                        kind=item.envelope.kind,
                        signer=one.agent.id,
                        record_hash=item.envelope.record_hash,
                        raw=item.envelope.raw,
                        generation=generation,
                        leaf=index,
                        accepted_us=self._now_us,
                    )
                )
                if isinstance(item.payload, Wrap):
                    wrapped.append(
                        WrapRow(
                            object=item.id,
                            resource=item.payload.resource,
                            recipient=item.payload.recipient,
                            epoch=item.payload.epoch,
                            grp=item.payload.group,
                        )
                    )
        if made:
            objects.add(self._tx, made)
        if wrapped:
            wraps.add(self._tx, wrapped)

    def _write_decisions(self, head: HeadRow, data: list[bytes]) -> None:
        """The hub's own decisions stand in the ledger after the batches that caused them."""
        for one in self._decisions:
            row = ObjectRow(
                id=one.object_id,
                kind=one.kind,
                signer=one.signer,
                record_hash=one.record_hash,
                raw=one.raw,
                generation=head.generation,
                leaf=head.size + len(data),
                accepted_us=self._now_us,
            )
            data.append(leaf.event_leaf(one.kind, one.object_id, one.record_hash, self._now_us))
            objects.add(self._tx, [row])

    def _renew(self, judged: list[Judged]) -> None:
        """Point what an older generation recorded to the leaf that records it anew."""
        for one in judged:
            for state, item in one.renewed:
                generation, index = self._done.leaves[item]
                noun = objects if state == State.OBJECT else segments
                noun.renew(self._tx, item, generation, index)

    def _write_segments(self, judged: list[Judged], head: HeadRow) -> int:
        """Returns how many change numbers were used."""
        change = head.changes
        rows: list[dict[str, Any]] = []
        ranges: list[RangeRow] = []
        for one in judged:
            for new in one.segments:
                change += 1
                header = new.checked.header
                generation, index = self._done.leaves[new.checked.id]
                pack, offset, length = self._place(new.checked, new.state)
                rows.append(
                    {
                        "change": change,
                        "id": new.checked.id,
                        "stream": new.stream.n,
                        "seq": header.seq,
                        "resource": new.resource.n,
                        "state": int(new.state),
                        "count": header.count,
                        "first_us": header.first_at,
                        "last_us": header.last_at,
                        "accepted_us": self._now_us,
                        "generation": generation,
                        "leaf": index,
                        "pack": pack,
                        "offset": offset,
                        "length": length,
                        "head": new.checked.head,
                    }
                )
                ranges += [
                    RangeRow(
                        resource=new.resource.n,
                        run=run,
                        first=first,
                        last=last,
                        stream=new.stream.n,
                        seq=header.seq,
                    )
                    for run, first, last in header.rows
                ]
        if rows:
            segments.add(self._tx, rows)
            segments.add_ranges(self._tx, ranges)
            summaries.add(self._tx, rows)
        for one in judged:
            for item in one.completions:
                change += 1
                self._complete(item, change)
        return change - head.changes

    def _complete(self, item: CheckedSegment, change: int) -> None:
        generation, index = self._done.leaves[item.id]
        pack, offset, length = self._place(item, State.BODY)
        assert pack is not None
        assert offset is not None
        assert length is not None
        segments.complete(
            self._tx,
            Completed(
                id=item.id,
                change=change,
                accepted_us=self._now_us,
                generation=generation,
                leaf=index,
                pack=pack,
                offset=offset,
                length=length,
            ),
        )
        summaries.add_body(self._tx, item.id, length, self._now_us)

    def _place(
        self, item: CheckedSegment, state: State
    ) -> tuple[int | None, int | None, int | None]:
        if state != State.BODY:
            return None, None, None
        if self._pack_n is None:
            self._pack_n = self._use_pack()
        return (self._pack_n, *self._packed.places[item.id])

    def _use_pack(self) -> int:
        """The pack's row; under the write lock the file is still there, so no sweeper has it."""
        written = self._packed.written
        assert written is not None
        if self._bodies.size_of(written.name) != written.size:
            raise ConflictError
        row = PackRow(name=written.name, size=written.size, created_us=self._now_us)
        return packs.use(self._tx, row)
