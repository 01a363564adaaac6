"""Everything that the live page shows, in a handful of queries whatever the number of rows."""

from typing import Any, NamedTuple

from sqlalchemy import bindparam, select

from hub.store.engine import Tx
from hub.store.prepared import Prepared
from hub.store.tables import agent, resource, segment, site, tally
from protocol.leaf import State


class SiteLine(NamedTuple):
    """A site (站点)."""

    id: str
    name: str
    region: str


class AgentLine(NamedTuple):
    """A gateway (采集代理)."""

    id: bytes
    site: str
    name: str
    software: str
    state: str
    seen_us: int


class ResourceLine(NamedTuple):
    """A data resource (数据资源) with its totals."""

    n: int
    id: bytes
    agent: bytes
    kind: str
    grade: int
    owner: bytes | None
    pack: str
    name_zh: str
    name_en: str
    code: str
    entry: bytes
    segments: int
    records: int
    bytes: int
    last_us: int | None
    accepted_us: int | None


_SITES = Prepared(select(site.c.id, site.c.name, site.c.region).order_by(site.c.id))
_AGENTS = Prepared(
    select(
        agent.c.id, agent.c.site, agent.c.name, agent.c.software, agent.c.state, agent.c.seen_us
    ).order_by(agent.c.site, agent.c.created_us, agent.c.id)
)
_RESOURCES = Prepared(
    select(
        resource.c.n, resource.c.id, resource.c.agent, resource.c.kind, resource.c.grade,
        resource.c.owner, resource.c.pack, resource.c.name_zh, resource.c.name_en,
        resource.c.code, resource.c.entry, tally.c.segments, tally.c.records, tally.c.bytes,
        tally.c.last_us, tally.c.accepted_us,
    )
    .join(tally, tally.c.resource == resource.c.n)
    .order_by(resource.c.n)
)  # fmt: skip
_NEWEST = Prepared(
    select(segment.c.id, segment.c.generation, segment.c.leaf, segment.c.state)
    .where(segment.c.resource == bindparam("resource"))
    .order_by(segment.c.change.desc())
    .limit(bindparam("limit"))
)


def sites(tx: Tx) -> list[SiteLine]:
    """All sites."""
    return [SiteLine(*row) for row in _SITES.rows(tx, {})]


def agents(tx: Tx) -> list[AgentLine]:
    """All gateways, those of a site together."""
    return [AgentLine(*row) for row in _AGENTS.rows(tx, {})]


def resources(tx: Tx) -> list[ResourceLine]:
    """All resources with their totals."""
    return [ResourceLine(*row) for row in _RESOURCES.rows(tx, {})]


class Newest(NamedTuple):
    """A segment that was accepted last, and where the ledger has it."""

    id: bytes
    generation: int
    leaf: int
    state: int

    @property
    def has_body(self) -> bool:
        """Whether more than its header is here."""
        return self.state == State.BODY


def newest(tx: Tx, resource_n: int, limit: int = 1) -> list[Newest]:
    """The last accepted segments of a resource, newest first."""
    found: list[Any] = _NEWEST.rows(tx, {"resource": resource_n, "limit": limit})
    return [Newest(*row) for row in found]
