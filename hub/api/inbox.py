"""`GET /v1/inbox`: the long poll through which a hub reaches a gateway that it never connects to.

A heartbeat byte 0x00 every 5 s, then, when there is a message or 8 s are over, the msgpack list of
inbox envelopes. One poll an agent: a newer one ends the older, so nobody can hold many. Only the
beginning of a poll is a sign of life: a stopped process and a black-holed link hold one open
(docs/decisions/0011).
"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from hub.api import identifiers
from hub.api.exchange import MSGPACK, Call, Reply, raw_reply
from hub.api.parts import Parts
from hub.store import inbox
from protocol import wire
from protocol.report import from_query

POLL_S: Final = 8.0
HEARTBEAT_S: Final = 5.0
HEARTBEAT: Final = b"\x00"


async def poll(parts: Parts, call: Call) -> Reply:
    """Answer at once when there is a message, else wait for one and keep the line alive."""
    after = (
        identifiers.number(call.query.get("generation", "0"), "generation", most=2**32 - 1),
        identifiers.number(call.query.get("n", "0"), "n"),
    )
    if "report" in call.query:
        parts.reports.note(call.who.subject, from_query(call.query["report"]), call.now_us)
    parts.bells.heard(call.who.subject, asyncio.get_running_loop().time())
    found = await _waiting(parts, call.who.subject, after)
    if found or parts.stopping:
        return raw_reply(wire.encode(found))
    return Reply(media=MSGPACK, stream=_wait(parts, call.who.subject, after))


async def _waiting(parts: Parts, agent: bytes, after: tuple[int, int]) -> list[bytes]:
    rows = await parts.store.read(inbox.waiting, agent, after, parts.clock_us())
    return [one.raw for one in rows]


async def _wait(parts: Parts, agent: bytes, after: tuple[int, int]) -> AsyncGenerator[bytes, None]:
    """Yield heartbeats, the first at once, and in the end the list, which may be empty."""
    loop = asyncio.get_running_loop()
    end = loop.time() + POLL_S
    bell = parts.bells.stand(agent)
    try:
        yield HEARTBEAT
        # A message put between the first look and the bell must not wait for the end.
        found = await _waiting(parts, agent, after)
        while not found and not bell.is_set() and loop.time() < end:
            try:
                async with asyncio.timeout(min(HEARTBEAT_S, end - loop.time())):
                    await bell.wait()
            except TimeoutError:
                yield HEARTBEAT
            else:
                found = await _waiting(parts, agent, after)
        yield wire.encode(found)
    finally:
        parts.bells.leave(agent, bell)
