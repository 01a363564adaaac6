"""What of a batch's proofs and evidence fits into one answer, and which pages show it.

An answer may be 8 MiB, and a leaf 64 KiB; a thousand old segments may stand in a thousand leaves.
What does not fit is answered `later`: sent again, it comes first.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from hub.domain import outcomes
from hub.domain.outcomes import Evidence, Outcome
from hub.store import leaves, segments, streams
from hub.store.engine import Tx
from hub.store.segments import SegmentRow
from protocol.ids import SegmentId
from protocol.limits import EVIDENCE_PAGE_MAX, LEAF_BYTES_MAX, SYNC_ITEMS_MAX

PROOFS_BYTES_MAX: Final = 4 * 1024 * 1024  # of leaves, paths and evidence headers in one answer
PROOFS_MAX: Final = SYNC_ITEMS_MAX
EVIDENCE_MAX: Final = 2 * EVIDENCE_PAGE_MAX  # headers in one answer
_PATH_BYTES: Final = 64 * 34 + 64  # of the longest path, and what is around it


class Shown(msgspec.Struct, kw_only=True):
    """One evidence page."""

    rows: list[SegmentRow]
    head: tuple[int, SegmentId] | None  #: of the stream, where the page is one stream's
    more: bool
    then: bytes | None = None  #: the resource's next stream, where the page ends this one
    cut: bool = False  #: there was something to show, and no room for any of it


class Room:
    """Which leaves an answer will prove, within its bounds."""

    def __init__(self, tx: Tx, generation: int) -> None:
        self._tx = tx
        self._generation = generation
        self._left = PROOFS_BYTES_MAX
        self._sizes: dict[int, int] = {}
        self.leaves: dict[int, None] = {}  #: indexes, in the order in which they are proven
        self.headers = EVIDENCE_MAX

    def claim(self, index: int) -> None:
        """Prove the batch's own new leaf: it always fits."""
        if index not in self.leaves:
            self.leaves[index] = None
            self._left -= LEAF_BYTES_MAX + _PATH_BYTES

    def know(self, indexes: Iterable[int]) -> None:
        """Ask for the sizes of leaves that `take` will be asked about, all at once."""
        new = set(indexes) - self._sizes.keys() - self.leaves.keys()
        if new:
            self._sizes |= leaves.sizes(self._tx, self._generation, new)

    def take(self, index: int, *, header_bytes: int = 0) -> bool:
        """Prove this leaf too, and show a header beside it; False if there is no room."""
        cost = header_bytes
        if index not in self.leaves:
            cost += self._sizes[index] + _PATH_BYTES
        if cost > self._left or len(self.leaves) >= PROOFS_MAX:
            return False
        self._left -= cost
        self.leaves[index] = None
        return True


class Pages:
    """The evidence of one answer, and the items that must wait for another."""

    def __init__(self, tx: Tx, generation: int, room: Room) -> None:
        self._tx = tx
        self._generation = generation
        self._room = room
        self.pages: dict[int, Shown] = {}  #: by number of the item

    def collect(self, results: Sequence[Outcome]) -> None:
        """Make a page for each item that needs one, in order."""
        for number, one in enumerate(results):
            match one:
                case outcomes.Fork() | outcomes.Page():
                    self.pages[number] = self._stream_page(one.evidence)
                case outcomes.Overlap():
                    self.pages[number] = self._overlap_page(one.segments)
                case _:
                    pass

    def _stream_page(self, evidence: Evidence) -> Shown:
        limit = min(self._room.headers, EVIDENCE_PAGE_MAX)
        stream = streams.get(self._tx, evidence.stream)
        rows = segments.page_of_stream(self._tx, evidence.stream, evidence.after, limit + 1)
        if stream is None or any(row.generation != self._generation for row in rows[:limit]):
            return Shown(rows=[], head=None, more=False)
        fitting = self._fitting(rows[:limit])
        more = len(rows) > len(fitting)
        return Shown(
            rows=fitting,
            head=(stream.seq, SegmentId(stream.head)),
            more=more,
            then=None if more else streams.following(self._tx, stream),
            cut=bool(rows) and not fitting,
        )

    def _overlap_page(self, ids: Sequence[bytes]) -> Shown:
        found = segments.by_ids(self._tx, ids[: self._room.headers])
        rows = [
            found[one] for one in ids if one in found and found[one].generation == self._generation
        ]
        fitting = self._fitting(rows)
        return Shown(rows=fitting, head=None, more=False, cut=bool(ids) and not fitting)

    def _fitting(self, rows: Sequence[SegmentRow]) -> list[SegmentRow]:
        """The rows up to the first that does not fit: what is shown has no hole."""
        self._room.know(row.leaf for row in rows)
        fitting: list[SegmentRow] = []
        for row in rows:
            if not self._room.take(row.leaf, header_bytes=len(row.head) + 16):
                break
            fitting.append(row)
        self._room.headers -= len(fitting)
        return fitting
