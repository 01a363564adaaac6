"""What verdicts other than receipts lead to: refused, missing, fork, overlap, a new generation.

Nothing here deletes a body. A body that the hub refuses for good, or that is damaged on this disk,
becomes `bad` and a header-only item keeps the chain going; the bytes stay. What is temporary waits.
"""

import logging
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from agent.forks import Forks
from agent.intake.covered import Covered
from agent.intake.outbox import queue_gap
from agent.seal.batch import Ref
from agent.seal.resend import (
    Returned,
    mend_item,
    queue_header,
    resend_chain,
    resend_entry,
    resend_registration,
)
from agent.seal.spool import Received, Spool
from agent.store.database import Database
from agent.store.ports import Identity, Randomness
from agent.store.resources import Bound
from agent.store.schema import BodyState, OutboxState, StreamState
from agent.store.segments import head_bytes
from protocol.errors import Code
from protocol.ids import ResourceId, StreamId
from protocol.messages import EvidenceItem, Fork, Missing, Overlap, Refused, UnknownResource
from protocol.sync import ItemResult

_LOG: Final = logging.getLogger(__name__)

HOLD_S: Final = 60.0  # a stream whose verdict may change by itself
HOLD_UNPROVEN_S: Final = 3600.0  # fork without evidence, again and again
HOLD_UNBOUND_S: Final = 3600.0  # what this gateway cannot follow up: asked again this seldom
HOLD_BRIEF_S: Final = 1.0  # a registration goes ahead
HOLD_REFUSED_S: Final = 3600.0  # its registration was refused: asked again this seldom

#: Refusals that are about the moment or the agent, not about the item: the item waits.
PASSING: Final = frozenset(
    {
        Code.OWNER_UNCONFIRMED,
        Code.AGENT_WAITING,
        Code.AGENT_SUSPENDED,
        Code.CLONE_SUSPECTED,
        Code.UNKNOWN_AGENT,
        Code.UNKNOWN_RESOURCE,
        Code.STREAM_UNKNOWN,
        Code.GAP,
        Code.INTERNAL,
    }
)

Alarm = Callable[[str, Mapping[str, object]], None]


class Answers:
    """Follows up the verdicts of one answer, after its receipts were recorded."""

    def __init__(
        self,
        *,
        database: Database,
        spool: Spool,
        forks: Forks,
        bounds: Mapping[str, Bound],
        identity: Identity,
        random: Randomness,
        wrap_again: Callable[[sqlite3.Connection], None],
    ) -> None:
        self.identity = identity
        self._wrap_again = wrap_again
        self.alarm: Alarm = lambda _key, _fields: None
        self._database = database
        self._spool = spool
        self._forks = forks
        self._bounds = bounds
        self._random = random
        self.streams: dict[bytes, ResourceId] = {}  # ended ones too, read at the start
        self._covered: dict[ResourceId, Covered] = {}  # evidence so far
        self._unproven: dict[ResourceId, int] = {}  # forks without evidence in a row
        self._denied: set[bytes] = set()  # streams that wait: their registration was refused
        self._told: set[int] = set()  # rows of objects whose refusal was told

    async def follow(self, received: Received) -> bool:
        """Do what the verdicts ask for; whether evidence moved anything here.

        Raises UnavailableError on a full disk.
        """
        has_moved = False
        if received.is_new_generation:
            self.alarm("hub-restored", {})
        forked: set[bytes] = set()
        for ref, result in received.forked:
            if ref.stream not in forked:
                forked.add(ref.stream)
                has_moved |= await self._fork(ref, result)
        for ref, result in received.refused:
            # The rows of a stream that ended meanwhile are others' by now.
            if ref.stream not in forked and await self._refused(ref, result):
                forked.add(ref.stream)
        for ref, result in received.missing:
            if ref.stream not in forked:
                forked.add(ref.stream)
                await self._missing(ref, result)
        return has_moved

    async def damaged(self, refs: Sequence[Ref]) -> None:
        """Items whose bytes changed on this disk.

        A body becomes header-only and is declared. A header or a registration is taken from where
        it stands a second time; a wrap is made again; a stream whose header is nowhere whole ends.
        """
        for ref in refs:  # at most one of a stream
            if ref.kind == "body":
                await self._refuse(ref, "damaged", is_damaged=True)
                continue
            kind = await self._database.write("refuse", partial(self._mend, ref=ref))
            if kind:
                self.alarm("item-damaged", {"kind": kind})
            if kind == "header":
                await self._succeed(ref, reason="chain damaged")

    def _mend(self, connection: sqlite3.Connection, ref: Ref) -> str:
        kind = mend_item(connection, ref, self.identity.signing.public)
        if kind == "wrap":
            self._wrap_again(connection)
        return kind

    # --- refused ---------------------------------------------------------------------------------

    async def _refused(self, ref: Ref, result: ItemResult) -> bool:
        """Follow a refusal up; whether it ended the stream of the item."""
        verdict = result.verdict
        if not isinstance(verdict, Refused):
            return False
        code = Code.from_key(verdict.code)
        if ref.kind == "evidence":
            return False  # it is asked again
        if code in PASSING or code.http_status >= 500:
            self._spool.hold(ref.stream, HOLD_S)
            return False
        if ref.kind != "object" or ref.row not in self._told:
            self.alarm("item-refused", {"kind": ref.kind, "code": verdict.code, "seq": ref.seq})
        if ref.kind == "object":
            self._told.add(ref.row)  # one that is asked about again is not news
        if ref.kind == "body":
            return await self._refuse(ref, verdict.code, is_damaged=False)
        await self._database.write("refuse", lambda c: _set_outbox(c, ref.row))
        if ref.kind == "header":
            # Not even the header is taken: the chain of this stream is over.
            await self._succeed(ref, reason=f"refused {verdict.code}")
        return ref.kind == "header"

    async def _refuse(self, ref: Ref, reason: str, *, is_damaged: bool) -> bool:
        """Body to `bad`, header-only item into its place; a damaged body is declared as lost.

        Returns whether the chain was damaged too, so that the stream ended.
        """
        bound = await self._bound_of(ref.stream)

        def work(connection: sqlite3.Connection) -> bool:
            head = head_bytes(connection, ref.stream, ref.seq)
            changed = connection.execute(
                "UPDATE body SET state = ? WHERE id = ? AND state IN (?, ?)",
                (int(BodyState.BAD), ref.row, int(BodyState.DUE), int(BodyState.HELD)),
            ).rowcount
            if not changed:
                return True
            connection.execute(
                "UPDATE stream SET due_n = due_n - 1, due_bytes = due_bytes - ?, lost = lost + ?"
                " WHERE id = ?",
                (ref.size, ref.records if is_damaged else 0, ref.stream),
            )
            if is_damaged and bound is not None:
                queue_gap(
                    connection,
                    (bound.id, StreamId(ref.stream)),
                    ("seq", ref.seq, ref.seq),
                    count=ref.records,
                    reason="body damaged",
                    signer=self.identity.signing,
                    random=self._random,
                )
            if head is None:
                return False
            queue_header(connection, ref.stream, ref.seq, head, body=ref.row, reason=reason)
            return True

        def then(_: object) -> None:
            if is_damaged and bound is not None:
                bound.counters.lost += ref.records

        has_head = await self._database.write("refuse", work, then=then)
        if is_damaged:
            self.alarm("body-damaged", {"seq": ref.seq})
        if not has_head:
            await self._succeed(ref, reason="chain damaged")
        return not has_head

    async def _succeed(self, ref: Ref, *, reason: str, first: int | None = None) -> None:
        """A stream cannot go on, and the hub need not be asked why."""
        bound = await self._bound_of(ref.stream)
        if bound is None:
            self._unbound(ref, reason)
        else:
            # Not the live one, where another cannot go on: that would begin a stream each time.
            await self._forks.succeed(
                bound, reason=reason, stream=ref.stream, first=ref.seq if first is None else first
            )

    def _unbound(self, ref: Ref, reason: str) -> None:
        """Nobody here can follow the verdict up: the stream waits for a technician, alone.

        Its entry can no longer be read, or the row of its stream was lost with a damaged page.
        """
        self._spool.hold(ref.stream, HOLD_UNBOUND_S)
        self.alarm("stream-unbound", {"stream": ref.stream.hex(), "reason": reason})

    # --- fork and overlap ------------------------------------------------------------------------

    async def _fork(self, ref: Ref, result: ItemResult) -> bool:
        """Follow evidence up; whether this brought the stream on."""
        verdict = result.verdict
        bound = await self._bound_of(ref.stream)
        if not isinstance(verdict, Fork | Overlap):
            return False
        reason = "overlap" if isinstance(verdict, Overlap) else "fork"
        if bound is None or bound.stream is None:
            self._unbound(ref, reason)
            return False
        if ref.kind == "evidence":
            covered = self._covered.setdefault(bound.id, Covered(ref.stream))
        else:
            covered = self._covered[bound.id] = Covered(ref.stream, ref.seq)
        covered.add(result.evidence, self.identity)
        question = _next_page(bound.id, ref, result, covered)
        if question is not None:
            bound.stream.state = StreamState.WAITING
            self._spool.hold(covered.origin, HOLD_S)
            self.streams[question.stream] = bound.id
            self._spool.ask(question)
            return True
        if ref.kind == "evidence" and not covered.headers:
            del self._covered[bound.id]
            self._release(bound)  # the hub has nothing that this file does not know
            return False
        if not covered.headers and self._is_hopeless(bound, ref):
            del self._covered[bound.id]
            return False
        has_moved = await self._forks.succeed(
            bound, covered=covered, reason=reason, stream=covered.origin, first=covered.first
        )
        # Not before: on a full disk what was shown still counts, and this was no try.
        del self._covered[bound.id]
        self._unproven[bound.id] = 0 if covered.headers else self._unproven.get(bound.id, 0) + 1
        self.alarm("fork", {"resource": bound.local, "headers": covered.headers})
        return has_moved

    def _is_hopeless(self, bound: Bound, ref: Ref) -> bool:
        """Whether a stream waits instead of a second new one after a fork without evidence."""
        tries = self._unproven.get(bound.id, 0)
        self.alarm("fork-unproven", {"resource": bound.local, "tries": tries + 1})
        if tries:
            # Another stream would not help: nothing is dropped, the technician is called.
            self._spool.hold(ref.stream, HOLD_UNPROVEN_S)
        return tries > 0

    def _release(self, bound: Bound) -> None:
        if bound.stream is not None:
            bound.stream.state = StreamState.LIVE
        self._forks.wake()

    # --- missing ---------------------------------------------------------------------------------

    async def _missing(self, ref: Ref, result: ItemResult) -> None:
        bound = await self._bound_of(ref.stream)
        if ref.kind == "evidence":
            if bound is not None:
                self._covered.pop(bound.id, None)
                self._release(bound)
            return
        if isinstance(result.verdict, UnknownResource):
            await self._unregistered(ref)
            return
        if not isinstance(result.verdict, Missing):
            return
        have = result.verdict.have
        start = 0 if have is None else have + 1

        def work(connection: sqlite3.Connection) -> tuple[bool, list[Returned]]:
            return resend_chain(connection, ref.stream, start, ref.seq)

        def then(done: tuple[bool, list[Returned]]) -> None:
            self._spool.on_return(done[1])

        is_whole, _ = await self._database.write("resend", work, then=then)
        if not is_whole:
            await self._succeed(ref, reason="hub lost the chain", first=start)

    async def _unregistered(self, ref: Ref) -> None:
        """The hub does not know the resource: its registration again; seldom if it was refused."""
        bound = await self._bound_of(ref.stream)
        if bound is None:
            self._unbound(ref, Code.UNKNOWN_RESOURCE.key)
            return
        public, entry = self.identity.signing.public, bound.entry
        is_whole = await self._database.write(
            "resend", lambda c: resend_entry(c, ref, public, current=entry)
        )
        if not is_whole:
            await self._succeed(ref, reason="registration lost")
            return
        insists = ref.stream in self._denied
        is_wanted = await self._database.write(
            "resend", lambda c: resend_registration(c, bound.id, is_insisting=insists)
        )
        if is_wanted or insists:
            self._denied.discard(ref.stream)
            self._spool.hold(ref.stream, HOLD_BRIEF_S)
        else:
            self._denied.add(ref.stream)
            self._spool.hold(ref.stream, HOLD_REFUSED_S)

    async def load(self) -> None:
        """Read which stream belongs to which resource."""
        rows = await self._database.read(
            lambda c: c.execute("SELECT id, resource FROM stream").fetchall()
        )
        self.streams = {stream: ResourceId(resource) for stream, resource in rows}

    async def _bound_of(self, stream: bytes) -> Bound | None:
        resource = self.streams.get(stream)
        if resource is None:
            # It began after the start, and may have ended since: a fork, damage, another grade.
            row = await self._database.read(
                lambda c: c.execute(
                    "SELECT resource FROM stream WHERE id = ?", (stream,)
                ).fetchone()
            )
            if row is not None:
                resource = self.streams[stream] = ResourceId(row[0])
        for bound in self._bounds.values():
            if bound.id == resource or (bound.stream is not None and bound.stream.id == stream):
                return bound
        return None


def _set_outbox(connection: sqlite3.Connection, row: int) -> None:
    connection.execute("UPDATE outbox SET state = ? WHERE id = ?", (int(OutboxState.REFUSED), row))


def _next_page(
    resource: ResourceId, ref: Ref, result: ItemResult, covered: Covered
) -> EvidenceItem | None:
    """What is to be asked next: the rest of this stream, then the stream that followed it."""
    if result.more and result.evidence:
        last = result.evidence[-1].header
        return EvidenceItem(resource=resource, stream=last.stream, after=last.seq)
    then = result.then
    if then is None or then == ref.stream or covered.knows(then):
        return None  # a hub that leads in a circle is not followed
    return EvidenceItem(resource=resource, stream=then, after=None)
