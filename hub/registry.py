"""Registration entries (注册条目) that a group brings: kept, put in force, written to the trail."""

from hub.judged import Judged, NewEntry
from hub.store import audit, entries, summaries
from hub.store.agents import AgentRow
from hub.store.engine import Tx
from hub.store.entries import EntryRow, ResourceRow
from protocol import ids


def write_entries(tx: Tx, judged: Judged, now_us: int) -> None:
    """Keep a batch's entries; a new resource gets its number, an older version changes nothing.

    Fully open resources (完全开放级) only describe themselves: not in the trail of the register.
    """
    for new in judged.entries:
        row = _resource_row(new, judged.agent, now_us)
        if new.resource.n == 0:
            new.resource.n = entries.add_resource(tx, row)
            summaries.begin(tx, new.resource.n)
        elif new.in_force:
            entries.change_resource(tx, row)
        entries.add_entry(
            tx,
            EntryRow(
                object=new.checked.id,
                resource=new.resource.id,
                version=new.payload.version,
                grade=new.payload.grade,
                suite=new.payload.encryption.suite,
            ),
        )
        if new.checked.envelope.kind == "registration":
            _record(tx, new, judged.agent, now_us)


def _record(tx: Tx, new: NewEntry, agent: AgentRow, now_us: int) -> None:
    before = new.before
    audit.record(
        tx,
        audit.Actor(who=ids.show(agent.id), source="sync"),
        now_us,
        "entry.add" if before is None else "entry.change",
        ids.show(new.resource.id),
        before=before and {"entry": before.entry.hex(), "version": before.version},
        after={"entry": new.checked.id.hex(), "version": new.payload.version},
    )


def _resource_row(new: NewEntry, agent: AgentRow, now_us: int) -> ResourceRow:
    entry = new.payload
    return ResourceRow(
        n=new.resource.n,
        id=entry.resource,
        agent=agent.id,
        site=agent.site,
        entry=new.checked.id,
        kind=new.checked.envelope.kind,
        version=entry.version,
        grade=entry.grade,
        owner=entry.owner,
        pack=entry.pack,
        data_kind=entry.kind,
        name_zh=entry.name_zh,
        name_en=entry.name_en,
        region=entry.region,
        code="",
        created_us=now_us,
        changed_us=now_us,
    )
