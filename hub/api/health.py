"""Is the process alive, can it take data, and what does it count."""

import asyncio
import shutil
from pathlib import Path
from typing import Final

from hub.api.exchange import TEXT, Call, Reply, json_reply, raw_reply
from hub.api.parts import Parts
from hub.api.views import Health, Readiness
from hub.store import leaves, summaries
from protocol.errors import Code, ShanmenError

DISK_FREE_MIN: Final = 64 * 1024 * 1024  # bytes: a batch, its pack and its rows, a few times


async def alive(parts: Parts, call: Call) -> Reply:  # noqa: ARG001  # every handler's signature
    """The process answers; says nothing about its store."""
    return json_reply(Health(status="ok"))


async def ready(parts: Parts, call: Call) -> Reply:  # noqa: ARG001  # every handler's signature
    """The store is readable, a ledger is open, and the hub is not stopping."""
    reasons = ["stopping"] if parts.stopping else []
    try:
        if await parts.store.read(leaves.live) is None:
            reasons.append("no-ledger")
    except ShanmenError as error:
        reasons.append(error.code.key)
    if await asyncio.to_thread(_free, parts.store.path.parent) < DISK_FREE_MIN:
        reasons.append(Code.DISK_FULL.key)
    above = parts.ledger.ahead.above
    answer = Readiness(
        status="not-ready" if reasons else "ok",
        reasons=reasons,
        warnings=[f"agents-ahead: shanmen-hub restore --above {above}"] if above else [],
    )
    return json_reply(answer, status=503 if reasons else 200)


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free


async def metrics(parts: Parts, call: Call) -> Reply:  # noqa: ARG001  # every handler's signature
    """Everything that is counted, for Prometheus."""
    sums, head = await parts.store.read(lambda tx: (summaries.of_all(tx), leaves.live(tx)))
    parts.metrics.segments.set(sums.segments)
    parts.metrics.records.set(sums.records)
    if head is not None:
        parts.metrics.leaves.labels(str(head.generation)).set(head.size)
    return raw_reply(parts.metrics.text(), media=TEXT)
