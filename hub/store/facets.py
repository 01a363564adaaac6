"""How the hits of a filter spread over each of its dimensions (分类, 视图, §6.2): facets."""

from typing import Any, Final

import msgspec
from msgspec import structs
from sqlalchemy import ColumnElement, Table, case, func, select

from hub.store.engine import Tx
from hub.store.entries import COUNT_MAX, Filter, chosen
from hub.store.tables import principal, resource, site

#: Values of one facet; the rest is reached by narrowing or by typing.
VALUES_MAX: Final = 30
#: Where a region code may be cut: province, city, county (GB/T 2260), township (GB/T 10114).
_LEVELS: Final = (2, 4, 6, 9)

_COLUMNS: Final[dict[str, ColumnElement[Any]]] = {
    "site": resource.c.site,
    "grade": resource.c.grade,
    "pack": resource.c.pack,
    "data_kind": resource.c.data_kind,
    "owner": resource.c.owner,
    "state": case((resource.c.owner.is_(None), "unowned"), else_="catalogued"),
}
NAMES: Final = (*_COLUMNS, "region")


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """One value of a facet."""

    value: Any  #: as Filter takes it
    count: int
    name: str = ""  #: of a site or an owner, where it has one


class Facet(msgspec.Struct, frozen=True, kw_only=True):
    """One dimension of the hits."""

    counts: list[Count]  #: the most frequent first
    exact: bool  #: false: only the first COUNT_MAX hits were counted


def of(tx: Tx, which: Filter) -> dict[str, Facet]:
    """The facets of a filter, by name.

    Each facet is counted without its own part of the filter, so that what could be chosen instead
    is seen too; the region is counted one level below what was chosen.
    """
    found = {name: _facet(tx, which, name) for name in NAMES}
    for name, table in (("site", site), ("owner", principal)):
        found[name] = _named(tx, found[name], table)
    return found


def _facet(tx: Tx, which: Filter, name: str) -> Facet:
    if name == "region":
        chosen_length = len(which.region or "")
        level = next((one for one in _LEVELS if one > chosen_length), _LEVELS[-1])
        by: ColumnElement[Any] = func.substr(resource.c.region, 1, level)
    else:
        by = _COLUMNS[name]
        without: dict[str, Any] = {name: None}
        which = structs.replace(which, **without)
    query, _ = chosen(tx, which, by.label("value"))
    hits = query.limit(COUNT_MAX + 1).subquery()
    number = func.count()
    counted = (
        select(hits.c.value, number, func.sum(number).over())
        .group_by(hits.c.value)
        .order_by(number.desc(), hits.c.value)
        .limit(VALUES_MAX + 1)  # one of them may stand for no value at all
    )
    rows = tx.execute(counted).all()
    return Facet(
        counts=[Count(value=value, count=count) for value, count, _ in rows if value is not None][
            :VALUES_MAX
        ],
        exact=all(total <= COUNT_MAX for *_, total in rows),
    )


def _named(tx: Tx, facet: Facet, table: Table) -> Facet:
    wanted = [one.value for one in facet.counts]
    query = select(table.c.id, table.c.name).where(table.c.id.in_(wanted))
    names = {row.id: row.name for row in tx.execute(query)}
    named = [structs.replace(one, name=names.get(one.value, "")) for one in facet.counts]
    return structs.replace(facet, counts=named)
