"""What gateways declared about a resource: loss (gap notes), and what early times meant."""

from typing import Final

from hub.api import identifiers
from hub.api.access import check_read
from hub.api.exchange import Call, Reply, raw_reply
from hub.api.parts import Parts
from hub.store import entries, objects, streams
from hub.store.engine import Tx
from hub.store.objects import ObjectRow
from protocol import envelope, limits, wire
from protocol.ids import ResourceId

PAGE_MAX: Final = 256
_START: Final = (-1, b"")


async def listing(parts: Parts, call: Call) -> Reply:
    """Gap notes and corrections of one resource as they arrived: `{items: [envelope, …], next}`.

    `next` is the cursor of the following page, nil on the last; a page may have no items and still
    be followed, because what the gateway declared of its other resources is passed over.
    """
    resource_id = identifiers.resource_id(call.params["resource"])
    limit = identifiers.number(call.query.get("limit", "256"), "limit", least=1, most=PAGE_MAX)
    after = _cursor(call.query.get("after", ""))

    def find(tx: Tx) -> tuple[list[bytes], str | None]:
        row = check_read(entries.resource_of(tx, resource_id), call.who)
        found = objects.notes_after(tx, row.agent, after, limit=limit)
        mine = {one.id for one in streams.of(tx, [row.agent], [resource_id])}
        last = found[-1] if len(found) == limit else None
        following = None if last is None else f"{last.accepted_us}.{last.id.hex()}"
        return [one.raw for one in found if _is_about(one, resource_id, mine)], following

    items, following = await parts.store.read(find)
    return raw_reply(wire.encode({"items": items, "next": following}))


def _cursor(text: str) -> tuple[int, bytes]:
    """Read a cursor of this list. Raises DecodeError."""
    if not text:
        return _START
    time_us, _, object_id = text.partition(".")
    return identifiers.number(time_us, "after"), identifiers.object_id(object_id)


def _is_about(row: ObjectRow, resource: ResourceId, mine: set[bytes]) -> bool:
    """Tell whether a note concerns the resource; a correction names only a stream of it."""
    fields = wire.decode_any(envelope.parse(row.raw).payload, limit=limits.OBJECT_BYTES_MAX)
    if not isinstance(fields, dict):
        return False
    if row.kind == "gap":
        return bool(fields.get("resource") == resource)
    return fields.get("stream") in mine
