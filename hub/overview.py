"""The hub as it stands now, for everybody who looks: one snapshot, at most once a second.

`Overview.look` reads sites, gateways, resources with their totals, and the ledger's head in one
transaction, adds what only memory knows (who polls, what gateways report, what is leased), and
keeps the result. However many tabs are open, they share it.

Tables of plain values by id, so that two snapshots can be compared line by line and only what
moved is sent. A value of data never stands here.
"""

import asyncio
import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from hub.bells import Bells
from hub.domain.agents import AgentState
from hub.leases import Leases
from hub.reports import Reports
from hub.store import leaves, overview
from hub.store.engine import Store, Tx
from hub.store.leaves import HeadRow
from hub.store.overview import AgentLine, ResourceLine, SiteLine
from protocol import ids, merkle
from protocol.grades import Grade, rules

FRESH_S: Final = 0.95  # a snapshot is shared for so long

Line = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything at one moment."""

    at_us: int
    sites: tuple[SiteLine, ...] = ()
    agents: Mapping[bytes, AgentLine] = field(default_factory=dict)
    resources: Mapping[int, ResourceLine] = field(default_factory=dict)  #: by n
    gateways: Mapping[str, Line] = field(default_factory=dict)  #: what moves, by shown id
    totals: Mapping[str, Line] = field(default_factory=dict)  #: what moves of resources, by n
    ledger: Line = field(default_factory=dict)

    def shape(self) -> tuple[object, ...]:
        """What a page is built from; when it changes, a page fetches itself anew."""
        agents = tuple((one.id, one.name, one.site) for one in self.agents.values())
        lines = tuple(
            (n, one.agent, one.grade, one.owner, one.name_zh) for n, one in self.resources.items()
        )
        return self.sites, agents, lines

    def state(self) -> dict[str, Any]:
        """All that moves, as a page gets it first."""
        return {
            "t": self.at_us,
            "gateways": self.gateways,
            "resources": self.totals,
            "ledger": self.ledger,
        }

    def since(self, old: "Snapshot") -> dict[str, Any]:
        """What moved since an older snapshot; empty if nothing did."""
        found: dict[str, Any] = {
            "gateways": _moved(self.gateways, old.gateways),
            "resources": _moved(self.totals, old.totals),
        }
        if self.ledger != old.ledger:
            found["ledger"] = self.ledger
        moved = {name: lines for name, lines in found.items() if lines}
        return {"t": self.at_us, **moved} if moved else {}


def _moved(new: Mapping[str, Line], old: Mapping[str, Line]) -> dict[str, Line]:
    return {name: line for name, line in new.items() if line != old.get(name)}


def may_show(line: ResourceLine) -> bool:
    """Tell whether the hub may read a resource's values: open grades, until owners can grant."""
    return not rules(Grade(line.grade)).sealed


class Overview:
    """Makes snapshots."""

    def __init__(self, store: Store, bells: Bells, reports: Reports, leases: Leases) -> None:
        self._store = store
        self._bells = bells
        self._reports = reports
        self._leases = leases
        self._turn = asyncio.Lock()
        self._made_s = float("-inf")
        self._newest = Snapshot(0)

    async def look(self, now_us: int) -> Snapshot:
        """The present snapshot; made anew if the last one is older than a second."""
        async with self._turn:
            loop = asyncio.get_running_loop()
            if loop.time() - self._made_s >= FRESH_S:
                self._newest = self._made(await self._store.read(_read), now_us, loop.time())
                self._made_s = loop.time()
            return self._newest

    def _made(self, rows: "_Rows", now_us: int, now_s: float) -> Snapshot:
        accepted: dict[bytes, list[int]] = {}
        totals = {}
        live = self._leases.live(now_us)
        for one in rows.resources:
            sums = accepted.setdefault(one.agent, [0, 0])
            sums[0] += one.records
            sums[1] = max(sums[1], one.accepted_us or 0)
            totals[str(one.n)] = {
                "records": one.records,
                "segments": one.segments,
                "bytes": one.bytes,
                "accepted": one.accepted_us,
                "live": one.n in live,
            }
        gateways = {}
        for agent in rows.agents:
            records, newest_us = accepted.get(agent.id, (0, 0))
            gateways[ids.show(agent.id)] = self._gateway(agent, now_s) | {
                "accepted": records,
                "newest": newest_us or None,
            }
        return Snapshot(
            at_us=now_us,
            sites=tuple(rows.sites),
            agents={one.id: one for one in rows.agents},
            resources={one.n: one for one in rows.resources},
            gateways=gateways,
            totals=totals,
            ledger=_ledger(rows.head),
        )

    def _gateway(self, agent: AgentLine, now_s: float) -> dict[str, Any]:
        heard = self._reports.of(agent.id)
        found: dict[str, Any] = {"state": self._presence(agent, now_s), "report": None}
        if heard is not None:
            report = heard.report
            found["report"] = {
                "records": report.records,
                "segments": report.segments,
                "bytes": report.bytes,
                "sending": report.sending,
                # by the hub's clock, whatever the gateway's says
                "oldest": None
                if report.oldest is None
                else heard.at_us - max(0, report.at - report.oldest),
            }
        return found

    def _presence(self, agent: AgentLine, now_s: float) -> str:
        if agent.state != AgentState.ACTIVE:
            return agent.state
        if self._bells.is_away(agent.id, now_s):
            return "away"
        return "online" if self._bells.was_heard(agent.id) else "expected"


@dataclass(frozen=True, slots=True)
class _Rows:
    """What one transaction read."""

    sites: list[SiteLine]
    agents: list[AgentLine]
    resources: list[ResourceLine]
    head: HeadRow | None


def _read(tx: Tx) -> _Rows:
    return _Rows(
        sites=overview.sites(tx),
        agents=overview.agents(tx),
        resources=overview.resources(tx),
        head=leaves.live(tx),
    )


def _ledger(head: HeadRow | None) -> Line:
    if head is None:
        return {}
    root = merkle.Frontier.load(head.frontier).root()
    return {
        "generation": head.generation,
        "size": head.size,
        "root": base64.b64encode(root).decode(),
    }
