"""How an entry came to be what it is, and the proof that it stands in the ledger (§6.2, §6.3).

A proof convinces a third party without this hub: the leaf stands under the checkpoint by its path,
the checkpoint is signed by the log key, the leaf names the entry's object id, and the entry is the
envelope that the gateway signed.
"""

from typing import Final

from hub.api import identifiers, views
from hub.api.catalog import check_visible
from hub.api.exchange import Call, Reply, json_reply
from hub.api.parts import Parts
from hub.domain.differences import changes
from hub.record import Recorded
from hub.store import entries
from hub.store.engine import Tx
from hub.store.entries import Place, ResourceRow, VersionRow
from protocol import envelope, ids
from protocol.errors import Code, DecodeError, RefusedError
from protocol.registration import Registration

PAGE_MAX: Final = 100


def _opened(row: VersionRow) -> Registration:
    return envelope.decode_payload(envelope.parse(row.raw), Registration)


def _view(row: VersionRow, before: VersionRow | None, *, in_force: bool) -> views.VersionView:
    entry = _opened(row)
    return views.VersionView(
        version=row.version,
        object=row.id.hex(),
        previous=None if entry.previous is None else entry.previous.hex(),
        previous_known=before is not None,
        in_force=in_force,
        agent=ids.show(row.signer),
        registered_agent_us=entry.registered_at.wall_us,
        registered_hub_us=row.accepted_us,
        generation=row.generation,
        leaf=row.leaf,
        changes=[] if before is None else changes(_opened(before), entry),
    )


def page(tx: Tx, row: ResourceRow, before: Place | None, limit: int) -> views.VersionPage:
    """One page of a resource's versions, the newest first, each against the one that it follows."""
    found = entries.history(tx, row.id, before=before, limit=limit)
    named = [entry.previous for one in found if (entry := _opened(one)).previous is not None]
    known = entries.versions_of(tx, row.id, named)
    items = [
        _view(one, known.get(_opened(one).previous or b""), in_force=one.id == row.entry)
        for one in found
    ]
    last = found[-1] if len(found) == limit else None
    return views.VersionPage(
        items=items,
        next=None if last is None else f"{last.accepted_us}.{last.version}.{last.id.hex()}",
    )


def cursor(text: str) -> Place | None:
    """Read where a page of versions begins. Raises DecodeError."""
    if not text:
        return None
    parts = text.split(".")
    if len(parts) != 3:  # see Place
        raise DecodeError(Code.MALFORMED, field="after", expected="a cursor of this list")
    accepted_us, version, object_id = parts
    return (
        identifiers.number(accepted_us, "after"),
        identifiers.number(version, "after"),
        identifiers.object_id(object_id),
    )


async def versions(parts: Parts, call: Call) -> Reply:
    """Who changed what of an entry, and when."""
    resource_id = identifiers.resource_id(call.params["resource"])
    limit = identifiers.number(call.query.get("limit", "20"), "limit", least=1, most=PAGE_MAX)
    before = cursor(call.query.get("after", ""))

    def find(tx: Tx) -> views.VersionPage:
        return page(tx, check_visible(tx, resource_id, call.who), before, limit)

    return json_reply(await parts.store.read(find))


async def proof(parts: Parts, call: Call) -> Reply:
    """The leaf that records a version of an entry, and its way to the newest checkpoint."""
    resource_id = identifiers.resource_id(call.params["resource"])
    wanted = call.query.get("object")
    object_id = None if wanted is None else identifiers.object_id(wanted)

    def find(tx: Tx) -> VersionRow | None:
        row = check_visible(tx, resource_id, call.who)
        named = object_id or row.entry
        return entries.versions_of(tx, resource_id, [named]).get(named)

    found = await parts.store.read(find)
    if found is None:
        raise RefusedError(Code.NOT_FOUND, field="object", expected="a version of this entry")
    return json_reply(await prove(parts, found))


async def prove(parts: Parts, row: VersionRow) -> views.LedgerProof:
    """Prove one version under the newest checkpoint of the generation that records it."""
    made = await parts.recorder.prove(Recorded(generation=row.generation, index=row.leaf))
    return views.LedgerProof(
        object=row.id.hex(),
        entry=row.raw,
        generation=row.generation,
        leaf=made.leaf,
        index=made.index,
        path=made.path,
        checkpoint=made.checkpoint,
        log_key=parts.recorder.vkey(row.generation),
    )
