"""The catalog: 数据目录, T/ADEDS 02-2023 §6.3. Lists by filter, one entry with every §6.2 field.

Key-protected resources never reach a hub; fully open ones (完全开放级) have a description but are
in no register, catalog or statistics, so `GET /v1/resources` knows them and `/v1/entries` does not.
"""

from typing import Final

from hub.api import identifiers
from hub.api.access import check_read, may_read
from hub.api.entry_view import entry_view, resource_view
from hub.api.exchange import Call, Caller, Reply, json_reply
from hub.api.parts import Parts
from hub.api.views import EntryPage, ResourceList
from hub.store import entries, objects, summaries
from hub.store.engine import Tx
from hub.store.entries import Filter, ResourceRow
from hub.store.objects import ObjectRow
from hub.store.summaries import Sums
from protocol.errors import Code, DecodeError, RefusedError

PAGE_MAX: Final = 500
_TEXT_MAX: Final = 100
_KINDS: Final = ("structured", "unstructured", "spatial", "realtime")

FILTERS: Final = {
    "site": "site id",
    "agent": "principal id of the producing agent",
    "owner": "principal id of the owner",
    "grade": "1 to 6, table 7-2",
    "pack": "domain pack, e.g. parking.bay",
    "kind": "structured, unstructured, spatial or realtime",
    "region": "beginning of the region code",
    "text": "part of a name (Chinese or English) or of the catalog code",
    "limit": "entries of a page, 1 to 500",
    "after": "cursor of the page before",
}


def _filter(call: Call) -> Filter:
    """Read the filter of a list. Raises DecodeError for an unknown name or a bad value."""
    unknown = sorted(set(call.query) - set(FILTERS))
    if unknown:
        raise DecodeError(Code.UNKNOWN_FIELD, field="query", expected=", ".join(FILTERS))
    query = call.query
    if any(len(value) > _TEXT_MAX or "\x00" in value for value in query.values()):
        raise DecodeError(Code.OUT_OF_BOUNDS, field="query", expected=f"≤ {_TEXT_MAX} characters")
    if query.get("kind", _KINDS[0]) not in _KINDS:
        raise DecodeError(Code.OUT_OF_BOUNDS, field="kind", expected=", ".join(_KINDS))
    return Filter(
        site=query.get("site"),
        agent=identifiers.principal_id(query["agent"]) if "agent" in query else None,
        owner=identifiers.principal_id(query["owner"]) if "owner" in query else None,
        grade=identifiers.number(query["grade"], "grade", least=1, most=6)
        if "grade" in query
        else None,
        pack=query.get("pack"),
        data_kind=query.get("kind"),
        region=query.get("region"),
        text=query.get("text"),
    )


def _paging(call: Call) -> tuple[int, int]:
    after = identifiers.number(call.query.get("after", "0"), "after")
    return after, identifiers.number(
        call.query.get("limit", "100"), "limit", least=1, most=PAGE_MAX
    )


async def listing(parts: Parts, call: Call) -> Reply:
    """One page of entries that the filter lets through, and how many there are in all."""
    which = _filter(call)
    after, limit = _paging(call)
    found, total = await parts.reading.entries(which, after=after, limit=limit)
    following = str(found[-1].n) if len(found) == limit else None
    items = [resource_view(one, readable=may_read(one, call.who)) for one in found]
    return json_reply(EntryPage(items=items, total=total, next=following))


async def resources(parts: Parts, call: Call) -> Reply:
    """Resources that the caller may read now; fully open ones too."""
    after, limit = _paging(call)
    mine = call.who.subject if call.who.caller is Caller.AGENT else None
    which = Filter(descriptions=True, agent=mine)
    found, _ = await parts.reading.entries(which, after=after, limit=limit)
    following = str(found[-1].n) if len(found) == limit else None
    items = [resource_view(one, readable=True) for one in found if may_read(one, call.who)]
    return json_reply(ResourceList(items=items, next=following))


async def entry(parts: Parts, call: Call) -> Reply:
    """One entry: the newest version in force, with what is computed from accepted data."""
    resource_id = identifiers.resource_id(call.params["resource"])

    def find(tx: Tx) -> tuple[ResourceRow, ObjectRow, Sums] | None:
        row = entries.resource_of(tx, resource_id)
        if row is None or row.kind != "registration":
            return None
        found = objects.get(tx, row.entry)
        return None if found is None else (row, found, summaries.of_resource(tx, row.n))

    found = await parts.store.read(find)
    if found is None:
        raise RefusedError(Code.UNKNOWN_RESOURCE, field="resource", expected="a catalogued one")
    row, record, sums = found
    if not may_read(row, call.who) and call.who.caller is Caller.AGENT:
        check_read(row, call.who)
    return json_reply(
        entry_view(row, record, sums, readable=may_read(row, call.who), language=call.language)
    )
