"""Signed objects: an owner's principal comes in, objects go out as they arrived."""

from hub.api import identifiers
from hub.api.access import may_read
from hub.api.exchange import Call, Caller, Identity, Reply, json_reply, raw_reply
from hub.api.parts import Parts
from hub.api.views import Accepted
from hub.enrol import Asker
from hub.store import agents, entries, objects, principals
from hub.store.engine import Tx
from hub.store.nonces import RequestNonce
from hub.store.objects import ObjectRow
from protocol import envelope, limits, wire
from protocol.errors import Code, RefusedError
from protocol.ids import ResourceId

_OPEN_KINDS = frozenset({"principal"})
_PER_RESOURCE = frozenset({"registration", "description", "gap", "correction"})
_ID_CHARS_MAX = 64


async def submit(parts: Parts, call: Call) -> Reply:
    """Take a principal: first with the key of an owner's token, later with the owner's own key."""
    invited = call.who.caller is Caller.INVITED
    asker = Asker(
        token=call.who.subject if invited else None,
        principal=None if invited else call.who.subject,
        nonce=RequestNonce(key=call.who.key_id, nonce=call.who.nonce),
        source=call.address,
    )
    done = await parts.enrolments.take_principal(call.body, asker, now_us=call.now_us)
    return json_reply(
        Accepted(
            object=done.object.hex(),
            kind=done.kind,
            known=done.known,
            generation=done.generation,
            leaf=done.leaf,
            sites=done.sites,
        )
    )


async def fetch(parts: Parts, call: Call) -> Reply:
    """One object by its id, a principal's newest by its id, or an agent's enrolment by the agent's.

    The enrolment is how a reader learns the public key that an agent's id stands for.
    """
    text = call.params["object"]
    if len(text) == _ID_CHARS_MAX:
        object_id: bytes | None = identifiers.object_id(text)
    else:
        who = identifiers.principal_id(text)
        principal = await parts.store.read(principals.get, who)
        agent = await parts.store.read(agents.get, who)
        object_id = principal.object if principal else agent.enrolment if agent else None

    def find(tx: Tx) -> bytes | None:
        row = None if object_id is None else objects.get(tx, object_id)
        return row.raw if row is not None and _may_have(tx, row, call.who) else None

    raw = await parts.store.read(find)
    if raw is None:
        raise RefusedError(Code.NOT_FOUND, field="object", expected="an object you may read")
    return raw_reply(raw, cache="private, no-cache")


def _may_have(tx: Tx, row: ObjectRow, who: Identity) -> bool:
    """Tell whether the caller may have the object; a stranger's is as absent as one unknown."""
    if row.kind in _OPEN_KINDS or row.signer == who.subject:
        return True
    if row.kind == "enrolment":  # binds an agent's keys to its id, for whoever reads its data
        return who.caller in {Caller.OWNER, Caller.READER}
    fields = wire.decode_any(envelope.parse(row.raw).payload, limit=limits.OBJECT_BYTES_MAX)
    if not isinstance(fields, dict):
        return False
    if row.kind == "wrap":
        return bool(fields.get("recipient") == who.subject)
    return row.kind in _PER_RESOURCE and _may_have_of(tx, row.kind, fields.get("resource"), who)


def _may_have_of(tx: Tx, kind: str, resource: object, who: Identity) -> bool:
    """Tell whether the caller may have an object about this resource."""
    known = entries.resource_of(tx, resource) if isinstance(resource, bytes) else None
    if known is None:
        return False
    return (kind == "registration" and who.caller is Caller.READER) or may_read(known, who)


async def wraps_of(parts: Parts, call: Call) -> Reply:
    """The caller's wrapped epoch keys as a list of envelopes, epochs ascending."""
    recipient = identifiers.principal_id(call.query.get("recipient", ""))
    if recipient != call.who.subject:
        raise RefusedError(Code.NOT_ALLOWED, field="recipient", expected="your own principal id")
    wanted = call.query.get("resource", "")
    resource: ResourceId | None = identifiers.resource_id(wanted) if wanted else None
    after = call.query.get("after", "")
    epoch = identifiers.number(after, "after", most=2**32 - 1) if after else -1
    found = await parts.reading.wraps_for(recipient, resource, after=epoch)
    return raw_reply(wire.encode(found))
