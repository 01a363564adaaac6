"""The catalog: 数据目录, T/ADEDS 02-2023 §6.3. Lists by filter, one entry with every §6.2 field.

Key-protected resources never reach a hub; fully open ones (完全开放级) have a description but are
in no register, catalog or statistics, so `GET /v1/resources` knows them and `/v1/entries` does not.
"""

from collections.abc import Collection, Mapping
from typing import Final, cast, get_args

from hub.api import identifiers
from hub.api.access import check_read, may_read
from hub.api.entry_view import entry_view, facets_view, resource_view
from hub.api.exchange import Call, Caller, Identity, Reply, json_reply
from hub.api.parts import Parts
from hub.api.views import EntryPage, ResourceList
from hub.store import entries, objects, summaries
from hub.store.engine import Tx
from hub.store.entries import Filter, ResourceRow, State
from hub.store.objects import ObjectRow
from hub.store.summaries import Sums
from protocol.errors import Code, DecodeError, RefusedError

PAGE_MAX: Final = 500
_TEXT_MAX: Final = 100
_KINDS: Final = ("structured", "unstructured", "spatial", "realtime")
_STATES: Final = get_args(State)

FILTERS: Final = {
    "site": "site id",
    "agent": "principal id of the producing agent",
    "owner": "principal id of the owner",
    "grade": "1 to 6, table 7-2",
    "pack": "domain pack, e.g. parking.bay",
    "kind": "structured, unstructured, spatial or realtime",
    "region": "beginning of the region code",
    "state": "catalogued, or unowned where no owner is known",
    "text": "words, all of which stand in names, description, place, fields, owner or code;"
    " Chinese ones anywhere, others at the beginning of a word",
}
PAGING: Final = {
    "limit": "entries of a page, 1 to 500",
    "after": "cursor of the page before",
}


def read_filter(query: Mapping[str, str], *, more: Collection[str] = ()) -> Filter:
    """Read the filter of a list. Raises DecodeError for an unknown name or a bad value.

    more: names that the query may have besides.
    """
    known = (*FILTERS, *more)
    if set(query) - set(known):
        raise DecodeError(Code.UNKNOWN_FIELD, field="query", expected=", ".join(known))
    if any(len(value) > _TEXT_MAX or "\x00" in value for value in query.values()):
        raise DecodeError(Code.OUT_OF_BOUNDS, field="query", expected=f"≤ {_TEXT_MAX} characters")
    if query.get("kind", _KINDS[0]) not in _KINDS:
        raise DecodeError(Code.OUT_OF_BOUNDS, field="kind", expected=", ".join(_KINDS))
    if query.get("state", _STATES[0]) not in _STATES:
        raise DecodeError(Code.OUT_OF_BOUNDS, field="state", expected=", ".join(_STATES))
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
        state=cast("State | None", query.get("state")),
        text=query.get("text"),
    )


def _limit(call: Call) -> int:
    return identifiers.number(call.query.get("limit", "100"), "limit", least=1, most=PAGE_MAX)


async def listing(parts: Parts, call: Call) -> Reply:
    """One page of entries that the filter lets through, and how many there are in all."""
    which = read_filter(call.query, more=PAGING)
    found = await parts.reading.entries(
        which, after=call.query.get("after", ""), limit=_limit(call)
    )
    items = [resource_view(one, readable=may_read(one, call.who)) for one in found.items]
    return json_reply(EntryPage(items=items, total=found.total, exact=found.exact, next=found.next))


async def facets(parts: Parts, call: Call) -> Reply:
    """How many entries have which site, grade, pack, kind, owner, region and state."""
    which = read_filter(call.query)
    return json_reply(facets_view(await parts.reading.facets(which)))


async def resources(parts: Parts, call: Call) -> Reply:
    """Resources that the caller may read now; fully open ones too."""
    mine = call.who.subject if call.who.caller is Caller.AGENT else None
    which = Filter(descriptions=True, agent=mine)
    found = await parts.reading.entries(
        which, after=call.query.get("after", ""), limit=_limit(call)
    )
    items = [resource_view(one, readable=True) for one in found.items if may_read(one, call.who)]
    return json_reply(ResourceList(items=items, next=found.next))


def check_visible(tx: Tx, resource_id: bytes, who: Identity) -> ResourceRow:
    """Return a resource that the catalog shows to the caller. Raises RefusedError."""
    row = entries.resource_of(tx, resource_id)
    if row is None or row.kind != "registration":
        raise RefusedError(Code.UNKNOWN_RESOURCE, field="resource", expected="a catalogued one")
    if who.caller is Caller.AGENT:
        check_read(row, who)
    return row


async def entry(parts: Parts, call: Call) -> Reply:
    """One entry: the newest version in force, with what is computed from accepted data."""
    resource_id = identifiers.resource_id(call.params["resource"])

    def find(tx: Tx) -> tuple[ResourceRow, ObjectRow, Sums]:
        row = check_visible(tx, resource_id, call.who)
        record = objects.get(tx, row.entry)
        assert record is not None
        return row, record, summaries.of_resource(tx, row.n)

    row, record, sums = await parts.store.read(find)
    return json_reply(
        entry_view(row, record, sums, readable=may_read(row, call.who), language=call.language)
    )
