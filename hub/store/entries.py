"""Resources and their registration entries (注册条目): what the catalog lists."""

from collections.abc import Collection
from typing import Any, Final, Literal

import msgspec
from sqlalchemy import ColumnElement, Select, bindparam, false, func, insert, select, tuple_, update

from hub.domain.search import question
from hub.store import rows, search
from hub.store.engine import Tx
from hub.store.prepared import Prepared
from hub.store.tables import entry, object_, resource

#: An entry without an owner is visible and not catalogued (权属绑定, §6.2).
State = Literal["catalogued", "unowned"]
#: Hits are counted so far and no further: nobody reads more, and each costs the same again.
COUNT_MAX: Final = 10_000


class ResourceRow(msgspec.Struct, frozen=True, kw_only=True):
    """One resource as its entry in force says (what lists need; the entry is the object)."""

    n: int
    id: bytes
    agent: bytes  #: its producer's gateway
    site: str
    entry: bytes  #: object id of the entry in force
    kind: str  #: registration; description (完全开放级) is never in catalog or statistics
    version: int
    grade: int
    owner: bytes | None
    pack: str
    data_kind: str  #: structured, unstructured, spatial, realtime
    name_zh: str
    name_en: str
    region: str
    code: str  #: catalog code, given by the hub
    created_us: int
    changed_us: int


class EntryRow(msgspec.Struct, frozen=True, kw_only=True):
    """What a segment's header is held against."""

    object: bytes
    resource: bytes
    version: int
    grade: int
    suite: int


class VersionRow(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a resource's entry, and the leaf that records it."""

    id: bytes  #: object id
    version: int
    signer: bytes  #: the agent whose statement it is
    raw: bytes  #: the envelope as it arrived
    generation: int
    leaf: int
    accepted_us: int


#: Where a version stands in the order of a history: accepted µs, version, object id.
Place = tuple[int, int, bytes]


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """An entry with the resource that it belongs to."""

    object: bytes
    grade: int
    suite: int
    resource: bytes
    n: int  #: ResourceRow.n
    agent: bytes
    site: str


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """What a list of entries may be narrowed to; None leaves a field open."""

    site: str | None = None
    agent: bytes | None = None
    owner: bytes | None = None
    grade: int | None = None
    pack: str | None = None
    data_kind: str | None = None
    region: str | None = None  #: prefix of the region code
    state: State | None = None
    text: str | None = None  #: words as `hub.domain.search` reads them; blank ones ask nothing
    descriptions: bool = False  #: fully open resources too (never in the catalog)


_RESOURCES = Prepared(
    select(resource).where(resource.c.id.in_(bindparam("ids", expanding=True))), lists=("ids",)
)
_KNOWN = Prepared(
    select(
        entry.c.object,
        entry.c.grade,
        entry.c.suite,
        resource.c.id.label("resource"),
        resource.c.n,
        resource.c.agent,
        resource.c.site,
    )
    .join(resource, resource.c.id == entry.c.resource)
    .where(entry.c.object.in_(bindparam("objects", expanding=True))),
    lists=("objects",),
)


def resources_of(tx: Tx, ids: Collection[bytes]) -> dict[bytes, ResourceRow]:
    """Those of the resource ids that are known."""
    return {one.id: one for one in _RESOURCES.structs(ResourceRow, tx, {"ids": list(ids)})}


def resource_of(tx: Tx, resource_id: bytes) -> ResourceRow | None:
    """One resource, or None."""
    return resources_of(tx, [resource_id]).get(resource_id)


def known(tx: Tx, objects: Collection[bytes]) -> dict[bytes, Known]:
    """Entries by object id, with whose resource each describes."""
    return {one.object: one for one in _KNOWN.structs(Known, tx, {"objects": list(objects)})}


def add_resource(tx: Tx, row: ResourceRow) -> int:
    """Enter a resource with its first entry; returns n (the row's own n and code are ignored).

    The catalog code is region ‖ running number: 目录编码, given by the hub, never changed.
    """
    fields = msgspec.structs.asdict(row)
    del fields["n"]
    n = int(tx.execute(insert(resource).returning(resource.c.n), fields).scalar_one())
    code = f"{row.region or '000000'}-{n:08d}"
    tx.execute(update(resource).where(resource.c.n == n), {"code": code})
    return n


def change_resource(tx: Tx, row: ResourceRow) -> None:
    """Put a newer entry in force."""
    fields = msgspec.structs.asdict(row)
    for kept in ("n", "id", "agent", "site", "code", "created_us"):
        del fields[kept]
    tx.execute(update(resource).where(resource.c.n == row.n), fields)


def add_entry(tx: Tx, row: EntryRow) -> None:
    """Keep what headers are held against; entries of all versions stay."""
    tx.execute(insert(entry), msgspec.structs.asdict(row))


def page(tx: Tx, which: Filter, *, after: int = 0, limit: int = 100) -> list[ResourceRow]:
    """Resources that the filter lets through, in order of entry from above n = `after`."""
    query, order = chosen(tx, which, resource)
    found = tx.execute(query.where(order > after).order_by(order).limit(limit))
    return rows.many(ResourceRow, list(found))


def count(tx: Tx, which: Filter) -> int:
    """How many resources the filter lets through; COUNT_MAX + 1 stands for any number above."""
    query, _ = chosen(tx, which, resource.c.n)
    counted = select(func.count()).select_from(query.limit(COUNT_MAX + 1).subquery())
    return int(tx.execute(counted).scalar_one())


def history(
    tx: Tx, resource_id: bytes, *, before: Place | None = None, limit: int = 100
) -> list[VersionRow]:
    """Versions of a registered resource, the newest first, from behind a place in that order."""
    order = (object_.c.accepted_us, entry.c.version, object_.c.id)
    query = (
        _versions(resource_id)
        .where(object_.c.kind == "registration")
        .order_by(*(one.desc() for one in order))
        .limit(limit)
    )
    if before is not None:
        query = query.where(tuple_(*order) < tuple_(*before))
    return rows.many(VersionRow, list(tx.execute(query)))


def versions_of(tx: Tx, resource_id: bytes, objects: Collection[bytes]) -> dict[bytes, VersionRow]:
    """Those of the objects that are versions of this resource's entry."""
    query = _versions(resource_id).where(entry.c.object.in_(list(objects)))
    return {one.id: one for one in rows.many(VersionRow, list(tx.execute(query)))}


def _versions(resource_id: bytes) -> Select[Any]:
    names = [name for name in VersionRow.__struct_fields__ if name != "version"]
    columns = [object_.c[name] for name in names]
    return (
        select(*columns, entry.c.version)
        .join(entry, entry.c.object == object_.c.id)
        .where(entry.c.resource == resource_id)
    )


def chosen(tx: Tx, which: Filter, *columns: Any) -> tuple[Select[Any], ColumnElement[int]]:
    """Return a query over the resources that the filter lets through, and what orders it by n."""
    query = select(*columns).select_from(resource).where(*_where(which))
    if not (which.text or "").strip():
        return query, resource.c.n
    asked = question(which.text or "")
    if not asked:
        return query.where(false()), resource.c.n
    index = search.index_of(tx)
    return index.narrow(query, asked), index.order


def _where(which: Filter) -> list[ColumnElement[bool]]:
    equal = {
        "site": which.site,
        "agent": which.agent,
        "owner": which.owner,
        "grade": which.grade,
        "pack": which.pack,
        "data_kind": which.data_kind,
    }
    where: list[ColumnElement[bool]] = [
        resource.c[name] == value for name, value in equal.items() if value is not None
    ]
    if which.region is not None:
        where.append(resource.c.region.startswith(which.region, autoescape=True))
    if which.state is not None:
        unowned = resource.c.owner.is_(None)
        where.append(unowned if which.state == "unowned" else ~unowned)
    if not which.descriptions:
        where.append(resource.c.kind == "registration")
    return where
