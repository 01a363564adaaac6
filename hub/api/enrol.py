"""`POST /v1/enrol`: a stranger's request, counted before anything of it is believed."""

import asyncio

from hub.api.errors import LaterError
from hub.api.exchange import Call, Reply, raw_reply
from hub.api.parts import Parts
from hub.readmission import Readmission, shown
from protocol.errors import Code, ShanmenError


async def enrol(parts: Parts, call: Call) -> Reply:
    """Let a gateway in with its site's token; the answer is the hub's `enrolled` envelope.

    After a restore a gateway that the backup lacks sends `[enrolment, enrolled]` and waits.
    """
    wait_s = parts.attempts.admit(call.address, asyncio.get_running_loop().time())
    if wait_s:
        parts.metrics.enrolments.labels("limited").inc()
        raise LaterError(Code.RATE_LIMITED, wait_s, field="address")
    try:
        answer = await _let_in(parts, call)
    except ShanmenError:
        parts.metrics.enrolments.labels("refused").inc()
        raise
    parts.metrics.enrolments.labels("enrolled").inc()
    return raw_reply(answer)


async def _let_in(parts: Parts, call: Call) -> bytes:
    """With a token; after a restore also with what this hub had answered before."""
    said = shown(call.body, limit=len(call.body))
    if said is None:
        return await parts.enrolments.enrol(call.body, source=call.address, now_us=call.now_us)
    readmission = Readmission(parts.store, parts.recorder, parts.keys, parts.enrolments)
    return await readmission.readmit(said, source=call.address, now_us=call.now_us)
