"""The live page: sites, gateways and resources as they stand now."""

from typing import Any

from hub.api.exchange import Reply
from hub.console import texts
from hub.console.parts import Console
from hub.console.visit import Visit
from hub.overview import Snapshot, may_show
from hub.store.overview import ResourceLine
from protocol import ids
from protocol.grades import Grade, rules
from protocol.program.messages import Language


async def show(console: Console, visit: Visit) -> Reply:
    """What stands still; what moves comes by the stream, into the places that are marked here."""
    now = await console.overview.look(visit.now_us)
    return console.render(
        visit,
        "live.html",
        sites=_sites(now, visit.language),
        gateways=len(now.agents),
        resources=len(now.resources),
        texts=texts.group("script", visit.language),
    )


def _sites(now: Snapshot, language: Language) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {
        site.id: {"id": site.id, "name": site.name, "region": site.region, "gateways": []}
        for site in now.sites
    }
    gateways: dict[bytes, dict[str, Any]] = {}
    for agent in now.agents.values():
        shown = ids.show(agent.id)
        gateways[agent.id] = {
            "id": shown,
            "name": agent.name,
            "software": agent.software,
            "state": now.gateways[shown]["state"],
            "resources": [],
        }
        found[agent.site]["gateways"].append(gateways[agent.id])
    for line in now.resources.values():
        gateways[line.agent]["resources"].append(_resource(line, language))
    return list(found.values())


def _resource(line: ResourceLine, language: Language) -> dict[str, Any]:
    rule = rules(Grade(line.grade))
    is_chinese = language == "zh"
    return {
        "n": line.n,
        "id": line.id.hex(),
        "name": line.name_zh if is_chinese else line.name_en or line.name_zh,
        "code": line.code,
        "grade": rule.name_zh if is_chinese else rule.name_en,
        "sealed": not may_show(line),
        "owner": None if line.owner is None else ids.show(line.owner),
    }
