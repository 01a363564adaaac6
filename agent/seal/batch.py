"""The next batch: objects before segments, segments in the order of their sealing, all bounded.

Nothing overtakes what stands before it in its chain. The first item goes whatever the bound is: no
segment may be larger than a bound that a slow line or the configuration made small, or it would
wait for ever, and everything behind it.
"""

import heapq
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from agent.store.segments import digest_of, is_head, is_object
from protocol.messages import HeaderItem, Item, ObjectItem, SegmentItem

ITEM_OVERHEAD_BYTES: Final = 16  # of one item in a batch
BATCH_OVERHEAD_BYTES: Final = 1_024
ORDER_SLACK: Final = 512  # header-only items looked at beside the bodies

_HEADERS: Final = (
    "SELECT o.id, o.object, o.data, o.body, o.stream, o.seq, c.id FROM outbox o"
    " LEFT JOIN chain c ON c.stream = o.stream AND c.seq = o.seq"
    " WHERE o.state = 0 AND o.body IS NOT NULL AND o.stream NOT IN ({})"
    " ORDER BY o.body, o.seq LIMIT ?"
)
_BODIES: Final = (
    "SELECT b.id, b.stream, b.seq, b.size, b.n, b.digest, c.data FROM body b"
    " LEFT JOIN content c ON c.id = b.id"
    " WHERE b.state = 2 AND b.stream NOT IN ({}) ORDER BY b.id"
)


@dataclass(frozen=True, slots=True)
class Ref:
    """Where an item of a batch stands in the file."""

    kind: str  # "object", "header", "body", "evidence"
    row: int  # id in outbox or body; 0 for evidence
    stream: bytes = b""
    seq: int = -1
    size: int = 0
    records: int = 0
    body: int = 0  # of a header-only item: the row of its body


@dataclass(frozen=True, slots=True)
class SpoolItem:
    """One item of a batch, and where its outcome goes."""

    ref: Ref
    item: Item


def next_batch(
    connection: sqlite3.Connection,
    bytes_max: int,
    items_max: int,
    held: Sequence[bytes],
    public: bytes,
) -> tuple[list[SpoolItem], list[Ref]]:
    """The items that go now, and those found damaged; empty only if nothing may be sent.

    bytes_max: of the request; only its first item may be larger, and no item is as large as
    SYNC_BYTES_MAX. held: streams of which nothing goes. public: our own signing key.
    """
    room = _Room(bytes_max - BATCH_OVERHEAD_BYTES, items_max)
    found: list[SpoolItem] = []
    broken: list[Ref] = []
    for one, is_whole in _objects(connection, public):
        if not is_whole:
            broken.append(one.ref)
            continue
        if not room.take(one.ref.size):
            return found, broken
        found.append(one)
    damaged: dict[bytes, Ref] = {}  # by stream, of which nothing more goes into this batch
    for link in heapq.merge(
        _headers(connection, held), _bodies(connection, held), key=lambda link: link.place
    ):
        ref = link.ref
        if ref.stream in damaged:
            continue
        if link.is_damaged:
            damaged[ref.stream] = ref
            continue
        if not room.take(ref.size):
            break
        found.append(SpoolItem(ref, link.item))
    return found, [*broken, *damaged.values()]


@dataclass(slots=True)
class _Room:
    """What still fits into a batch; one item always does."""

    bytes: int
    items: int
    is_empty: bool = True

    def take(self, size: int) -> bool:
        size += ITEM_OVERHEAD_BYTES
        if self.items <= 0 or (self.bytes < size and not self.is_empty):
            return False
        self.is_empty = False
        self.items -= 1
        self.bytes -= size
        return True


@dataclass(frozen=True, slots=True)
class _Link:
    """A segment or its header at its place in the order of sealing."""

    ref: Ref
    data: bytes | None
    digest: bytes | None  # of a body; of a header-only item the id of its segment
    reason: str = ""  # of a header-only item

    @property
    def place(self) -> tuple[int, bool]:
        """The row of its body; a header of a body that is gone stands before all (row 0)."""
        is_body = self.ref.kind == "body"
        return (self.ref.row if is_body else self.ref.body, not is_body)

    @property
    def is_damaged(self) -> bool:
        """Whether its bytes are not those that were sealed."""
        if self.ref.kind == "header":
            return not is_head(self.data, self.digest)
        return self.data is None or digest_of(self.data) != self.digest

    @property
    def item(self) -> Item:
        """As it travels."""
        data = self.data or b""
        return SegmentItem(data) if self.ref.kind == "body" else HeaderItem(data, self.reason)


def _objects(connection: sqlite3.Connection, public: bytes) -> Iterator[tuple[SpoolItem, bool]]:
    """Objects in their order, and whether their bytes are those that were signed."""
    cursor = connection.execute(
        "SELECT id, object, data FROM outbox WHERE state = 0 AND body IS NULL ORDER BY id"
    )
    with closing(cursor):
        for row, object_id, data in cursor:
            item = SpoolItem(Ref("object", row, size=len(data or b"")), ObjectItem(data))
            yield item, is_object(data, object_id, public)


def _headers(connection: sqlite3.Connection, held: Sequence[bytes]) -> list[_Link]:
    """Header-only items by the row of their body, so that they keep their place in the chain."""
    rows = connection.execute(_HEADERS.format(_marks(held)), (*held, ORDER_SLACK)).fetchall()
    return [
        _Link(
            Ref("header", row, stream, seq, len(data or b""), body=body),
            data,
            segment,
            reason=str(reason, "utf-8", "replace"),
        )
        for row, reason, data, body, stream, seq, segment in rows
    ]


def _bodies(connection: sqlite3.Connection, held: Sequence[bytes]) -> Iterator[_Link]:
    """Due bodies as they are asked for; of held streams not even the bytes are read."""
    cursor = connection.execute(_BODIES.format(_marks(held)), held)
    with closing(cursor):
        for row, stream, seq, size, records, digest, data in cursor:
            yield _Link(Ref("body", row, stream, seq, size, records), data, digest)


def _marks(values: Sequence[bytes]) -> str:
    return ", ".join("?" * len(values))
