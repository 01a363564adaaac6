"""`POST /v1/sync`: one batch in, one signed answer out; and the heads of the agent's streams."""

from hub.api.exchange import Call, Reply, json_reply, raw_reply
from hub.api.parts import Parts
from hub.api.views import StreamList, StreamView
from hub.store import streams
from hub.store.nonces import RequestNonce
from protocol import ids
from protocol.errors import Code, DecodeError
from protocol.messages import SYNC_VERSION, decode_batch


async def exchange(parts: Parts, call: Call) -> Reply:
    """Take one batch of the agent that signed the request; the answer names the body's hash.

    What an agent that waits or is suspended sends is answered `later`: it keeps everything.
    """
    batch = decode_batch(call.body)
    if batch.version != SYNC_VERSION:
        raise DecodeError(
            Code.VERSION_UNSUPPORTED,
            field="version",
            expected=f"{SYNC_VERSION}; this batch has {batch.version}",
        )
    if batch.report is not None and batch.agent == call.who.subject:
        parts.reports.note(batch.agent, batch.report, call.now_us)
    nonce = RequestNonce(key=call.who.key_id, nonce=call.who.nonce)
    answer = await parts.ingest.submit(batch, call.who.row, nonce, call.body_sha256)
    parts.reports.taken(batch.agent)
    return raw_reply(answer)


async def streams_of(parts: Parts, call: Call) -> Reply:
    """Every stream of the calling agent, as the hub has it: what a restored gateway asks."""
    found = await parts.store.read(streams.all_of, call.who.subject)
    items = [
        StreamView(
            resource=ids.show(one.resource),
            stream=ids.show(one.id),
            seq=one.seq,
            head=one.head.hex(),
        )
        for one in found
    ]
    return json_reply(StreamList(items=items))
