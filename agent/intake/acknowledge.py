"""After a commit: its futures are done and its sources are answered, in the order of hand-overs."""

import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence

from agent.intake.groups import Pending


def acknowledge(group: Sequence[Pending]) -> None:
    """Tell everybody who waits for this commit. On the loop, after COMMIT and never before.

    A turn of the loop for the whole group, not one a message: with 64 producers that wait, the
    loop's own work was a third of the agent's CPU.
    """
    acks = [p.reading.ack for p in group if p.reading.ack is not None]
    for pending in group:
        if not pending.future.done():
            pending.future.set_result(None)
    if acks:
        # Through the loop: an acknowledgement that raises is reported, and stops nobody.
        asyncio.get_running_loop().call_soon(_give, iter(acks))
    sys.audit("shanmen.point", "journal.acknowledged")


def _give(acks: Iterator[Callable[[], None]]) -> None:
    is_over = False
    try:
        for ack in acks:
            ack()
        is_over = True
    finally:
        if not is_over:  # this one raised; the others go on
            asyncio.get_running_loop().call_soon(_give, acks)
