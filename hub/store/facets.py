"""How the hits of a filter spread over each of its dimensions (分类, 视图, §6.2): facets."""

from typing import Any, Final

import msgspec
from sqlalchemy import ColumnElement, case, func, select

from hub.store.engine import Tx
from hub.store.entries import COUNT_MAX, Filter, chosen
from hub.store.tables import resource

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


def of(tx: Tx, which: Filter) -> dict[str, list[Count]]:
    """Counts by facet, the most frequent first, over the first COUNT_MAX hits.

    Each facet is counted without its own part of the filter, so that what could be chosen instead
    is seen too; the region is counted one level below what was chosen.
    """
    return {name: _counts(tx, which, name) for name in NAMES}


def _counts(tx: Tx, which: Filter, name: str) -> list[Count]:
    if name == "region":
        chosen_length = len(which.region or "")
        level = next((one for one in _LEVELS if one > chosen_length), _LEVELS[-1])
        by: ColumnElement[Any] = func.substr(resource.c.region, 1, level)
    else:
        by = _COLUMNS[name]
        without: dict[str, Any] = {name: None}
        which = msgspec.structs.replace(which, **without)
    query, _ = chosen(tx, which, by.label("value"))
    hits = query.limit(COUNT_MAX).subquery()
    number = func.count().label("number")
    counted = (
        select(hits.c.value, number)
        .where(hits.c.value.is_not(None))
        .group_by(hits.c.value)
        .order_by(number.desc(), hits.c.value)
        .limit(VALUES_MAX)
    )
    return [Count(value=value, count=count) for value, count in tx.execute(counted)]
