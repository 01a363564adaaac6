"""The second durable queue: what is signed and waits for the hub's verified receipt.

`next_items` gives the next batch, objects before segments, segments in the order of their sealing;
`apply` takes a verified `Outcome` and moves everything that it proves in one transaction. Nothing
else lets go of a body: a verdict without a proven leaf changes nothing here (protocol.md, law c).
"""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from agent.seal.batch import Ref, SpoolItem, next_batch
from agent.seal.resend import Returned, resend_all
from agent.store.database import Database
from agent.store.ports import Clock
from agent.store.schema import BodyState, OutboxState
from protocol.checkpoint import Checkpoint
from protocol.leaf import State
from protocol.messages import (
    EvidenceItem,
    Fork,
    Later,
    Missing,
    Overlap,
    Refused,
    UnknownResource,
)
from protocol.sync import HubIdentity, ItemResult, Outcome

QUESTION_REFUSED_S: Final = 60.0  # a question that was refused is asked again so seldom
HOLD_SLACK_S: Final = 0.1  # the loop's clock may be ahead of the agent's


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolStats:
    """What waits, in the words of `status`."""

    due: int  # segments
    due_bytes: int
    objects: int
    grace: int


@dataclass(slots=True)
class _Question:
    """What the hub is asked about a resource until the answer was followed up."""

    item: EvidenceItem
    not_before_us: int = 0  # monotonic


@dataclass(slots=True)
class Received:
    """What an outcome left to be done after its receipts were recorded."""

    accepted: int
    refused: list[tuple[Ref, ItemResult]]
    forked: list[tuple[Ref, ItemResult]]
    missing: list[tuple[Ref, ItemResult]]
    is_new_generation: bool = False  # the hub was restored; what is held is due again


class Spool:
    """What is to be sent. The uplink is its only reader, and one batch is in flight at a time."""

    def __init__(self, database: Database, clock: Clock, public: bytes) -> None:
        """public: our own signing key: what it did not sign was damaged on this disk."""
        self.wake = asyncio.Event()  # set when there may be something to send
        self.checkpoint: Checkpoint | None = None
        self.backed_up_to = 0
        self.last_receipt_us: int | None = None  # wall time
        self.on_receipt: Callable[[Sequence[tuple[bytes, int]]], None] = lambda _accepted: None
        self.on_return: Callable[[Sequence[Returned]], None] = lambda _returned: None
        self.damage: Callable[[Sequence[Ref]], Awaitable[None]] = _no_damage
        self.follow: Callable[[Received], Awaitable[bool]] = _nothing_else
        self._database = database
        self._clock = clock
        self._public = public
        self._questions: dict[bytes, _Question] = {}  # by resource
        self._not_before: dict[bytes, int] = {}  # stream -> monotonic µs: `later`

    def ask(self, item: EvidenceItem) -> None:
        """Put a question for the next page of evidence into the next batch.

        It takes the place of an earlier one about the same resource: answers to both would be
        taken for pages of one reading.
        """
        self._questions[item.resource] = _Question(item)
        self.wake.set()

    async def next_items(self, bytes_max: int, items_max: int) -> list[SpoolItem]:
        """The next batch within its bounds; empty only if nothing is to be sent now."""
        now_us = self._clock.monotonic_us()
        held = [stream for stream, until in self._not_before.items() if until > now_us]
        found = [
            SpoolItem(Ref("evidence", 0, one.item.stream), one.item)
            for one in self._questions.values()
            if one.not_before_us <= now_us
        ]

        def work(connection: sqlite3.Connection) -> tuple[list[SpoolItem], list[Ref]]:
            return next_batch(connection, bytes_max, items_max - len(found), held, self._public)

        items, damaged = await self._database.read(work)
        if damaged:
            await self.damage(damaged)
            return await self.next_items(bytes_max, items_max)
        return found + items

    async def apply(self, outcome: Outcome, items: Sequence[SpoolItem]) -> bool:
        """Record what a verified outcome proves, then follow its other verdicts.

        Returns whether anything moved: if not, the same batch would bring the same answer.

        Raises UnavailableError on a full disk: the same items are sent and answered again.
        """
        has_moved = await self.follow(received := await self.record(outcome, items))
        # Not before: where the disk was full, only the question brings the answer again.
        self._answered(outcome, items)
        self.wake.set()
        return has_moved or received.accepted > 0

    async def record(self, outcome: Outcome, items: Sequence[SpoolItem]) -> Received:
        """Move everything that an outcome proves, in one transaction `receipt`.

        A generation that this file does not know makes due again, in the same transaction, what the
        restored hub was given before. The file decides, not the conversation's memory.
        """
        results = list(zip((item.ref for item in items), outcome.items, strict=False))
        accepted = [(ref, result) for ref, result in results if result.accepted]
        received = _sorted(results, len(accepted))
        self._hold(results)
        now_us = self._clock.now_us()

        def work(connection: sqlite3.Connection) -> _Moved:
            is_new = outcome.new_generation or _is_unknown(connection, outcome.hub)
            # First: what this answer accepted is receipted by the new ledger.
            returned = resend_all(connection) if is_new else []
            moved = _record(connection, accepted)
            if outcome.checkpoint is not None:
                put(connection, "checkpoint", outcome.checkpoint.text.encode())
            put(connection, "hub", msgspec.msgpack.encode(outcome.hub))
            put(connection, "backed_up_to", outcome.backed_up_to)
            put(connection, "time_floor", self._clock.floor_us)
            return _Moved(moved, returned, is_new)

        def then(done: _Moved) -> None:
            self.checkpoint = outcome.checkpoint
            self.backed_up_to = outcome.backed_up_to
            if accepted:
                self.last_receipt_us = now_us
            self.on_return(done.returned)
            self.on_receipt(done.accepted)

        done = await self._database.write("receipt", work, then=then)
        received.is_new_generation = done.is_new_generation
        return received

    def _answered(self, outcome: Outcome, items: Sequence[SpoolItem]) -> None:
        """Let go of the questions that were answered; the others are asked again, later."""
        now_us = self._clock.monotonic_us()
        for one, result in zip(items, outcome.items, strict=False):
            if not isinstance(one.item, EvidenceItem):
                continue
            question = self._questions.get(one.item.resource)
            if question is None or question.item is not one.item:
                continue  # the next page is asked for
            if isinstance(result.verdict, Later):
                question.not_before_us = now_us + result.verdict.seconds * 1_000_000
            elif isinstance(result.verdict, Refused):
                question.not_before_us = now_us + int(QUESTION_REFUSED_S * 1e6)
            else:
                del self._questions[one.item.resource]

    def _hold(self, results: Sequence[tuple[Ref, ItemResult]]) -> None:
        now_us = self._clock.monotonic_us()
        for ref, result in results:
            self._not_before.pop(ref.stream, None)
            if isinstance(result.verdict, Later) and ref.stream:
                self._not_before[ref.stream] = now_us + result.verdict.seconds * 1_000_000

    def hold(self, stream: bytes, seconds: float) -> None:
        """Send nothing of a stream for a while."""
        self._not_before[stream] = self._clock.monotonic_us() + int(seconds * 1e6)
        self.wake.set()  # the uplink looks anew how long it may rest

    def held_s(self) -> float:
        """Seconds until the first that is held, stream or question, may be sent; 0 if none is."""
        now_us = self._clock.monotonic_us()
        held = [*self._not_before.values(), *(q.not_before_us for q in self._questions.values())]
        left = [until - now_us for until in held if until > now_us]
        return min(left) / 1e6 + HOLD_SLACK_S if left else 0.0

    def release(self) -> None:
        """Whatever was held may be sent: the reason was the hub's, and is gone."""
        self._not_before.clear()
        for question in self._questions.values():
            question.not_before_us = 0
        self.wake.set()

    async def has_due(self) -> bool:
        """Whether a body may be sent; one that is held until the owner is confirmed may not."""
        query = "SELECT EXISTS(SELECT 1 FROM body WHERE state = 2)"
        row = await self._database.read(lambda connection: connection.execute(query).fetchone())
        return bool(row[0])

    async def stats(self) -> SpoolStats:
        """What waits and what is kept; O(1) in the spool's size."""

        def work(connection: sqlite3.Connection) -> SpoolStats:
            totals = connection.execute(
                "SELECT coalesce(sum(due_n), 0), coalesce(sum(due_bytes), 0),"
                " coalesce(sum(grace_n), 0) FROM stream"
            ).fetchone()
            objects = connection.execute("SELECT count(*) FROM outbox WHERE state = 0").fetchone()
            return SpoolStats(
                due=totals[0],
                due_bytes=totals[1],
                objects=objects[0],
                grace=totals[2],
            )

        return await self._database.read(work)

    async def stored_hub(self) -> HubIdentity | None:
        """The hub as last verified (its generation may have moved since enrolment)."""
        return await self._database.read(_stored_hub)


async def _nothing_else(_received: Received) -> bool:
    """What a spool without a core does with verdicts that are no receipts."""
    return False


async def _no_damage(_refs: Sequence[Ref]) -> None:
    """What a spool without a core does with damaged bodies: it passes over them."""


@dataclass(frozen=True, slots=True)
class _Moved:
    """What the transaction `receipt` did."""

    accepted: list[tuple[bytes, int]]  # resource and records of each newly accepted segment
    returned: list[Returned]
    is_new_generation: bool


def _sorted(results: Sequence[tuple[Ref, ItemResult]], accepted: int) -> Received:
    def of(*kinds: type) -> list[tuple[Ref, ItemResult]]:
        return [(ref, result) for ref, result in results if isinstance(result.verdict, kinds)]

    return Received(accepted, of(Refused), of(Fork, Overlap), of(Missing, UnknownResource))


def _is_unknown(connection: sqlite3.Connection, hub: HubIdentity) -> bool:
    """Whether the hub is of another generation than the one whose receipts are stored."""
    stored = _stored_hub(connection)
    return stored is not None and stored.generation != hub.generation


def _stored_hub(connection: sqlite3.Connection) -> HubIdentity | None:
    """The hub as last verified; None, too, where its row changed on the disk."""
    raw = get(connection, "hub")
    try:
        return msgspec.msgpack.decode(raw, type=HubIdentity) if isinstance(raw, bytes) else None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _record(
    connection: sqlite3.Connection, accepted: Sequence[tuple[Ref, ItemResult]]
) -> list[tuple[bytes, int]]:
    """Move what is proven. Returns resource and records of each newly accepted segment."""
    moved: list[tuple[bytes, int]] = []
    for ref, result in accepted:
        if ref.kind == "object":
            connection.execute(
                "UPDATE outbox SET state = ?, leaf = ? WHERE id = ?",
                (int(OutboxState.SENT), result.leaf, ref.row),
            )
            continue
        if ref.kind == "header":
            connection.execute("DELETE FROM outbox WHERE id = ?", (ref.row,))
        if result.state is State.BODY:
            moved += _to_grace(connection, ref)
        connection.execute(
            "UPDATE chain SET leaf = ? WHERE stream = ? AND seq = ?",
            (result.leaf, ref.stream, ref.seq),
        )
        connection.execute(
            "UPDATE stream SET acked_seq = max(acked_seq, ?) WHERE id = ?", (ref.seq, ref.stream)
        )
    return moved


def _to_grace(connection: sqlite3.Connection, ref: Ref) -> list[tuple[bytes, int]]:
    row = ref.row if ref.kind == "body" else ref.body
    before = connection.execute("SELECT state, size, n FROM body WHERE id = ?", (row,)).fetchone()
    if before is None or before[0] in {BodyState.GRACE, BodyState.KEPT}:
        return []
    state, size, records = before
    connection.execute("UPDATE body SET state = ? WHERE id = ?", (int(BodyState.GRACE), row))
    was_due = state in {BodyState.DUE, BodyState.HELD}
    connection.execute(
        "UPDATE stream SET due_n = due_n - ?, due_bytes = due_bytes - ?, grace_n = grace_n + 1,"
        " grace_bytes = grace_bytes + ?, accepted = accepted + ? WHERE id = ?",
        (int(was_due), size if was_due else 0, size, records, ref.stream),
    )
    of_stream = "SELECT resource FROM stream WHERE id = ?"
    resource = connection.execute(of_stream, (ref.stream,)).fetchone()
    return [(resource[0], records)] if resource else []


def put(connection: sqlite3.Connection, key: str, value: bytes | int) -> None:
    """Write a small value into `meta`."""
    connection.execute("INSERT OR REPLACE INTO meta(k, v) VALUES(?, ?)", (key, value))


def get(connection: sqlite3.Connection, key: str) -> bytes | int | None:
    """Read a small value of `meta`; None if there is none."""
    row = connection.execute("SELECT v FROM meta WHERE k = ?", (key,)).fetchone()
    value: bytes | int | None = row[0] if row else None
    return value
