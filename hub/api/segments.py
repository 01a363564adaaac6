"""Segments and their parts, for those who may read them; a sealed part is useless without a key."""

from typing import Final

from hub.api import identifiers
from hub.api.access import check_read
from hub.api.exchange import OCTETS, Call, Reply, raw_reply
from hub.api.parts import Parts
from hub.reading import PAGE_SEGMENTS_MAX
from hub.store import entries
from protocol import wire
from protocol.errors import Code, RefusedError
from protocol.ids import SegmentId

_FOR_EVER: Final = "private, max-age=31536000, immutable"


async def listing(parts: Parts, call: Call) -> Reply:
    """Headers of one resource: `{items: [[state, leaf index, head], …], next}`.

    `next` is the cursor of the following page, nil on the last. Order is that of acceptance; a
    segment completed by its body later comes again at its new place.
    """
    resource_id = identifiers.resource_id(call.params["resource"])
    after = identifiers.number(call.query.get("after", "0"), "after")
    limit = identifiers.number(
        call.query.get("limit", "256"), "limit", least=1, most=PAGE_SEGMENTS_MAX
    )
    check_read(await parts.store.read(entries.resource_of, resource_id), call.who)
    found = await parts.reading.segments_of(resource_id, after=after, limit=limit)
    page = {
        "items": [[one.state, one.leaf, one.head] for one in found],
        "next": found[-1].change if len(found) == limit else None,
    }
    return raw_reply(wire.encode(page))


async def _readable(parts: Parts, call: Call) -> SegmentId:
    """Return the id of a segment that the caller may read. Raises RefusedError."""
    segment_id = identifiers.segment_id(call.params["segment"])
    whose = await parts.reading.resource_of_segment(segment_id)
    if whose is None:
        raise RefusedError(Code.NOT_FOUND, field="segment", expected="a known segment")
    check_read(await parts.store.read(entries.resource_of, whose[1]), call.who)
    return segment_id


async def whole(parts: Parts, call: Call) -> Reply:
    """One segment as it arrived; only prelude, header and signature where no body is kept."""
    found = await parts.reading.segment(await _readable(parts, call))
    return raw_reply(found, media=OCTETS, cache="private, no-cache")


async def part(parts: Parts, call: Call) -> Reply:
    """One column group as stored: what is sealed stays sealed."""
    group = identifiers.number(call.params["group"], "group", most=255)
    found = await parts.reading.part(await _readable(parts, call), group)
    return raw_reply(found, media=OCTETS, cache=_FOR_EVER)
