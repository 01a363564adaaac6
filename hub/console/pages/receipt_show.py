"""A receipt for the browser to verify: a leaf, its path, the checkpoint, the log's key."""

import base64

import msgspec

from hub.api import identifiers
from hub.api.exchange import Reply, json_reply
from hub.console.parts import Console
from hub.console.visit import Visit
from hub.record import Recorded
from hub.store import overview, segments
from hub.store.engine import Tx
from protocol.errors import Code, RefusedError


class ReceiptView(msgspec.Struct, frozen=True, kw_only=True):
    """What the browser needs; it believes none of it."""

    segment: str  #: hex id of the segment that the leaf must name
    head: str  #: base64 of its prelude, header and signature: the id's input, names the resource
    leaf: str  #: base64 of the leaf's bytes
    index: int
    path: list[str]  #: base64, from the leaf up
    checkpoint: str  #: signed note, as it stands at /log/{generation}/checkpoint
    vkey: str  #: the log's verifier key, to be compared with what the operator prints


async def newest(console: Console, visit: Visit) -> Reply:
    """The receipt of the newest segment of a resource."""
    hub = console.hub
    n = identifiers.number(visit.query.get("resource", ""), "resource")
    found = await hub.store.read(_newest, n)
    if found is None:
        raise RefusedError(Code.NOT_FOUND, field="resource", expected="one with a segment")
    one, head = found
    proof = await hub.recorder.prove(Recorded(generation=one.generation, index=one.leaf))
    return json_reply(
        ReceiptView(
            segment=one.id.hex(),
            head=base64.b64encode(head).decode(),
            leaf=base64.b64encode(proof.leaf).decode(),
            index=proof.index,
            path=[base64.b64encode(step).decode() for step in proof.path],
            checkpoint=proof.checkpoint,
            vkey=hub.recorder.vkey(one.generation),
        )
    )


def _newest(tx: Tx, resource_n: int) -> tuple[overview.Newest, bytes] | None:
    """The newest segment of a resource, and its head."""
    found = overview.newest(tx, resource_n)
    place = segments.place(tx, found[0].id) if found else None
    return None if place is None else (found[0], place.head)
