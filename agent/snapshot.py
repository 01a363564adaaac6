"""One look at the running agent, as `status` and `doctor` get it over the socket: JSON, no secrets.

Of key-protected resources it tells nothing but a grade that was kept and how full the vault is:
their counts are with the vault, for the owner.
"""

from collections.abc import Sequence
from typing import Any

from agent.core import Core
from agent.host.clock import Clock
from agent.host.health import Health
from agent.host.plan import Plan
from agent.intake.quarantine import held_rows
from agent.link.uplink import Uplink
from agent.store.disk import DiskLevel
from agent.supervisor import Slot
from protocol import ids
from protocol.errors import Code
from protocol.grades import rules

_CLOCK_NAMES = {0: "none", 1: "hub", 2: "system"}


def state_of(core: Core, uplink: Uplink, *, stopping: bool) -> str:
    """The agent's state in one word; the most urgent one."""
    if stopping:
        return "stopping"
    if core.main.database.level >= DiskLevel.ACKS_STOP:
        return "disk-full"
    if uplink.refused is Code.AGENT_WAITING:
        return "waiting"
    if uplink.refused is Code.UNKNOWN_AGENT:
        return "unknown-at-hub"
    if uplink.refused is Code.AGENT_SUSPENDED:
        return "suspended"
    return "running" if core.identity.owner_confirmed else "owner-unconfirmed"


async def snapshot(
    *,
    plan: Plan,
    core: Core,
    uplink: Uplink,
    health: Health,
    clock: Clock,
    slots: Sequence[Slot],
    link: str,
    stopping: bool,
) -> dict[str, Any]:
    """Everything that `status` shows, as JSON values."""
    identity, mark = core.identity, clock.mark()
    return {
        "name": plan.config.name or "shanmen-agent",
        "agent": ids.show(identity.agent),
        "site": identity.site,
        "state": state_of(core, uplink, stopping=stopping),
        "owner": ids.show(identity.owner.principal) if identity.owner else "",
        "owner_basis": identity.owner_basis,
        "hub": {
            "url": plan.config.hub.url,
            "id": ids.show(identity.hub.hub),
            "link": link,
            "last_receipt_us": uplink.last_receipt_us or 0,
        },
        "clock": {
            "source": _CLOCK_NAMES[int(mark.source)],
            "offset_us": clock.hub_offset_us or 0,
            "error_us": mark.error_us,
            "jumps": clock.jumps,
        },
        "spool": await _spool(plan, core),
        "resources": _resources(plan, core),
        "grades_kept": {  # stricter than configured; with those that are in the vault
            name: rules(bound.grade).name_en
            for name, bound in core.bounds.items()
            if bound.is_grade_kept
        },
        "drivers": [_driver(slot) for slot in slots],
        "devices": [_device(name, health) for name in sorted(health.devices)],
        "counters": dict(health.counters),
        "alarms": [
            {"key": key, "since_us": alarm.since_us, "fields": dict(alarm.fields)}
            for key, alarm in health.alarms.items()
        ],
    }


async def _spool(plan: Plan, core: Core) -> dict[str, int]:
    stats = await core.spool.stats()
    disk = core.main.database.disk
    waiting = sum(
        bound.stream.waiting for bound in core.main.bounds.values() if bound.stream is not None
    )
    quarantined = sum([await lane.database.read(held_rows) for lane in core.lanes])
    budget = int(plan.config.storage.budget)
    return {
        "due": stats.due,
        "due_bytes": stats.due_bytes,
        "objects": stats.objects,
        "grace": stats.grace,
        "journal": waiting,
        "quarantine": quarantined,  # held in both files, also of no resource of ours
        "used": int(disk.share * budget),
        "budget": budget,
        "commits": core.main.journal.commits,
    }


def _resources(plan: Plan, core: Core) -> list[dict[str, Any]]:
    rows = []
    for name, one in core.pipeline.counters().items():
        promise = plan.promises.get(name)
        rows.append(
            {
                "name": name,
                "id": ids.show(core.bounds[name].id),
                "pack": core.bounds[name].pack.id,
                "grade": rules(core.bounds[name].grade).name_en,
                "promise": promise.value if promise else "",
                "produced": one.produced,
                "records": one.journalled,
                "sealed": one.sealed,
                "accepted": one.accepted,
                "lost": one.lost,
                "duplicates": one.duplicates,
                "maybe_repeat": one.maybe_repeat,
                "quarantined": one.quarantined,
            }
        )
    return rows


def _driver(slot: Slot) -> dict[str, Any]:
    return {
        "name": slot.name,
        "promise": slot.driver.promise.value if slot.driver is not None else "C",
        "running": slot.running,
        "restarts": slot.restarts,
        "last_error": "" if slot.running else slot.last_error,
    }


def _device(name: str, health: Health) -> dict[str, Any]:
    one = health.devices[name]
    return {
        "name": name,
        "state": one.state.value if one.state is not None else "unknown",
        "detail": one.detail,
        "since_us": one.since_us,
        "last_seen_us": one.last_seen_us,
        "counters": dict(one.counters),
    }
