"""What owners and catalog readers ask: pages of segments, single parts, wraps, objects, entries."""

import msgspec

from hub.domain.search import weight
from hub.store import entries, facets, objects, segments, wraps
from hub.store.bodies import Bodies
from hub.store.engine import Store, Tx
from hub.store.entries import Filter, ResourceRow
from hub.store.objects import ObjectRow
from hub.store.segments import Place, SegmentRow
from protocol.errors import Code, DecodeError, FatalError, RefusedError
from protocol.header import decode_header, read_prelude
from protocol.leaf import State
from protocol.limits import PRELUDE_BYTES

PAGE_SEGMENTS_MAX = 1000
_RANKED = "r"  # begins a cursor that counts hits in order of rank


#: Up to so many hits of a question are put in order of how well their names answer it; more are
#: shown in order of entry, because an order of all costs more than anybody reads.
RANKED_MAX = 500


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One page of the catalog."""

    items: list[ResourceRow]
    total: int  #: entries that the filter lets through, or that were counted
    exact: bool  #: whether that is all of them
    next: str | None  #: cursor of the following page


class Reading:
    """Read-only use cases; who may ask is decided by the caller (`api`)."""

    def __init__(self, store: Store, bodies: Bodies) -> None:
        self._store = store
        self._bodies = bodies

    async def segments_of(
        self, resource: bytes, *, after: int = 0, limit: int = PAGE_SEGMENTS_MAX
    ) -> list[SegmentRow]:
        """A page of a resource's accepted segments in order of change; `change` is the cursor.

        A header-only segment that is completed later comes again with a larger `change`.
        """
        return await self._store.read(
            segments.page_of_resource, resource, after, min(limit, PAGE_SEGMENTS_MAX)
        )

    async def part(self, segment_id: bytes, group: int) -> bytes:
        """One column group of a segment, as stored: a range read of its pack.

        Raises RefusedError NOT_FOUND for an unknown segment or group, or one whose body never
        came; FatalError STORAGE_DAMAGED if the pack is gone (the hub lost a file).
        """
        place = await self._store.read(segments.place, segment_id)
        if place is None:
            raise RefusedError(Code.NOT_FOUND, field="segment", value=segment_id)
        return await self._store.read(lambda _: self._read_part(place, group))

    async def segment(self, segment_id: bytes) -> bytes:
        """A whole segment as it was sent (its head alone where the body never came).

        Raises RefusedError NOT_FOUND, FatalError STORAGE_DAMAGED.
        """
        return await self._store.read(self.whole, segment_id)

    def whole(self, tx: Tx, segment_id: bytes) -> bytes:
        """As `segment`, inside the caller's transaction."""
        place = segments.place(tx, segment_id)
        if place is None:
            raise RefusedError(Code.NOT_FOUND, field="segment", value=segment_id)
        return place.head + self._body(place)

    async def resource_of_segment(self, segment_id: bytes) -> tuple[bytes, bytes] | None:
        """(agent, resource) of a segment, for the question who may read it; None if unknown."""
        return await self._store.read(segments.agent_of, segment_id)

    async def wraps_for(
        self, recipient: bytes, resource: bytes | None = None, *, after: int = -1
    ) -> list[bytes]:
        """Wrap envelopes that the recipient can open, epochs ascending (≤ 1,000 a page)."""
        return await self._store.read(wraps.of, recipient, resource, after=after)

    async def object(self, object_id: bytes) -> ObjectRow | None:
        """One signed object as it arrived, or None."""
        return await self._store.read(objects.get, object_id)

    async def entries(self, which: Filter, *, after: str = "", limit: int = 100) -> Found:
        """A page of the catalog (数据目录). Raises DecodeError for a cursor that is none."""
        return await self._store.read(_page, which, after, limit)

    async def facets(self, which: Filter) -> dict[str, facets.Facet]:
        """How the hits spread over each dimension."""
        return await self._store.read(facets.of, which)

    async def entry(self, resource: bytes) -> tuple[ResourceRow, bytes] | None:
        """A resource and the raw entry in force with all its fields of §6.2, or None."""

        def both(tx: Tx) -> tuple[ResourceRow, bytes] | None:
            row = entries.resource_of(tx, resource)
            found = None if row is None else objects.get(tx, row.entry)
            return None if row is None or found is None else (row, found.raw)

        return await self._store.read(both)

    def _body(self, place: Place) -> bytes:
        if place.state != State.BODY:
            return b""
        assert place.pack is not None
        assert place.offset is not None
        assert place.length is not None
        return self._range(place, 0, place.length)

    def _read_part(self, place: Place, group: int) -> bytes:
        if place.state != State.BODY:
            raise RefusedError(Code.NOT_FOUND, field="body", value="header only")
        at = 0
        prelude = read_prelude(place.head)
        header = decode_header(place.head[PRELUDE_BYTES:][: prelude.header_bytes], prelude)
        for part in header.parts:
            if part.group == group:
                return self._range(place, at, part.length)
            at += part.length
        raise RefusedError(Code.NOT_FOUND, field="group", value=group)

    def _range(self, place: Place, at: int, length: int) -> bytes:
        assert place.pack is not None
        assert place.offset is not None
        try:
            return self._bodies.read(place.pack, place.offset + at, length)
        except (FileNotFoundError, EOFError) as error:
            raise FatalError(
                Code.STORAGE_DAMAGED, field="pack", value=place.pack, expected="to be there"
            ) from error


def _page(tx: Tx, which: Filter, after: str, limit: int) -> Found:
    total = entries.count(tx, which)
    ranked = after.startswith(_RANKED) or (not after and _is_asked(which) and total <= RANKED_MAX)
    digits = after.removeprefix(_RANKED) if after else "0"
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 19):
        raise DecodeError(Code.MALFORMED, field="after", expected="a cursor of this list")
    start = int(digits)
    if ranked:
        hits = entries.page(tx, which, limit=RANKED_MAX)
        text = which.text or ""
        hits.sort(key=lambda row: weight(text, (row.name_zh, row.name_en, row.code)))
        items = hits[start : start + limit]
        following = f"{_RANKED}{start + limit}" if start + limit < len(hits) else None
    else:
        items = entries.page(tx, which, after=start, limit=limit)
        following = str(items[-1].n) if len(items) == limit else None
    return Found(
        items=items,
        total=min(total, entries.COUNT_MAX),
        exact=total <= entries.COUNT_MAX,
        next=following,
    )


def _is_asked(which: Filter) -> bool:
    return bool((which.text or "").strip())
