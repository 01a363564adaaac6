"""The catalog as a page: 数据目录, T/ADEDS 02-2023 §6.3. Search, facets, one page of entries."""

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from hub.api import views
from hub.api.access import may_read
from hub.api.catalog import FILTERS, read_filter
from hub.api.entry_view import facets_view, resource_view
from hub.api.exchange import Caller, Identity, Reply
from hub.console.parts import Console
from hub.console.visit import Visit
from hub.domain.search import question
from protocol.program.messages import Language

PATH: Final = "/catalog"
PAGE: Final = 25
_AFTER: Final = "after"

_FACETS: Final = tuple(name for name in views.Facets.__struct_fields__ if name != "exact")

#: Whoever is logged in sees of the data what a read token shows: the open grades.
STAFF: Final = Identity(caller=Caller.READER)


@dataclass(frozen=True, slots=True)
class Choice:
    """One value of a facet, or a filter that is set."""

    facet: str
    label: str
    url: str  #: the list with it, or without it where it is set
    count: int = 0
    chosen: bool = False


async def show(console: Console, visit: Visit) -> Reply:
    """The list under the filter that the address holds. Raises DecodeError for one that is none."""
    asked = {name: value.strip() for name, value in visit.query.items() if value.strip()}
    after = asked.pop(_AFTER, "")
    which = read_filter(asked)
    found = await console.hub.reading.entries(which, after=after, limit=PAGE)
    facets = facets_view(await console.hub.reading.facets(which))
    offered = {name: _choices(name, facets, asked, visit.language) for name in _FACETS}
    return console.render(
        visit,
        "catalog_list.html",
        entries=[resource_view(one, readable=may_read(one, STAFF)) for one in found.items],
        total=found.total,
        exact=found.exact,
        facets=offered,
        chosen=_chosen(asked, offered),
        kept={name: value for name, value in asked.items() if name != "text"},
        text=asked.get("text", ""),
        is_wordless="text" in asked and not question(asked["text"]),
        onward="" if found.next is None else _url(asked | {_AFTER: found.next}),
        is_first=not after,
        first=_url(asked),
        without_filters=_url({"text": asked["text"]} if "text" in asked else {}),
        everything=PATH,
    )


def _url(query: dict[str, str]) -> str:
    return f"{PATH}?{urlencode(query)}" if query else PATH


def _choices(
    name: str, facets: views.Facets, asked: dict[str, str], language: Language
) -> list[Choice]:
    values: list[views.FacetValue] = getattr(facets, name)
    return [
        Choice(
            facet=name,
            label=one.zh if language == "zh" else one.en,
            url=_url({k: v for k, v in asked.items() if k != name})
            if asked.get(name) == one.value
            else _url(asked | {name: one.value}),
            count=one.count,
            chosen=asked.get(name) == one.value,
        )
        for one in values
        if one.value
    ]


def _chosen(asked: dict[str, str], offered: dict[str, list[Choice]]) -> list[Choice]:
    """Return the filters that are set, each with the list without it; the text has its own box."""
    return [
        Choice(
            facet=name,
            label=next((one.label for one in offered.get(name, []) if one.chosen), value),
            url=_url({k: v for k, v in asked.items() if k != name}),
        )
        for name, value in asked.items()
        if name != "text" and name in FILTERS
    ]
