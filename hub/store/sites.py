"""Sites (站点): where gateways stand; each has a region, and may name the owner of its data."""

import msgspec
from sqlalchemy import insert, select

from hub.store import audit, rows
from hub.store.audit import Actor
from hub.store.engine import Tx
from hub.store.tables import site
from protocol.errors import Code, RefusedError


class SiteRow(msgspec.Struct, frozen=True, kw_only=True):
    """One site as the operator entered it."""

    id: str  #: short name, ≤ 64 characters
    name: str
    region: str  #: 行政区划代码, GB/T 2260
    owner: bytes | None  #: principal id of the owner, offered to agents that have no pin
    created_us: int


def add(tx: Tx, row: SiteRow, by: Actor) -> None:
    """Enter a site. Raises RefusedError if one of that id exists."""
    if get(tx, row.id) is not None:
        raise RefusedError(Code.CONFLICT, field="site", value=row.id)
    tx.execute(insert(site), msgspec.structs.asdict(row))
    after = {"name": row.name, "region": row.region, "owner": row.owner and row.owner.hex()}
    audit.record(tx, by, row.created_us, "site.add", row.id, before=None, after=after)


def get(tx: Tx, site_id: str) -> SiteRow | None:
    """The site of that id, or None."""
    return rows.one(SiteRow, tx.execute(select(site).where(site.c.id == site_id)).first())


def all_of(tx: Tx) -> list[SiteRow]:
    """Every site, by id."""
    return rows.many(SiteRow, list(tx.execute(select(site).order_by(site.c.id))))
