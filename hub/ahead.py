"""Agents that have seen more of this ledger than the hub has: the hub was put back in time.

A fresh machine has no `last-checkpoint` to hold its database against; what agents show is the only
sign. One agent may lie, so this warns and blocks nothing; the way out is `restore --above`.
"""

import logging

from hub.store.leaves import HeadRow
from protocol import ids
from protocol.checkpoint import generation_of, same_log
from protocol.errors import Code, DecodeError, VerifyError
from protocol.wraps import Seen

log = logging.getLogger(__name__)


class Ahead:
    """What agents showed that this ledger does not have."""

    def __init__(self) -> None:
        self.above = 0  #: the highest generation shown; 0 if nothing is ahead

    def judge(self, agent: bytes, seen: Seen | None, head: HeadRow) -> VerifyError | None:
        """Hold an agent's last checkpoint against the committed head.

        Returns the refusal for an agent of a later generation: no answer of this ledger could be
        believed by it. A longer tree of this generation is answered: the agent keeps both
        checkpoints as evidence.
        """
        if seen is None or not same_log(seen.origin, head.origin):
            return None
        try:
            generation = generation_of(seen.origin)
        except DecodeError:
            return None
        if (generation, seen.size) <= (head.generation, head.size) or generation < head.generation:
            return None
        self.above = max(self.above, generation)
        log.error(
            "an agent has seen a later ledger than this hub has; see restore --above",
            extra={
                "agent": ids.show(agent),
                "shown": f"{generation}/{seen.size}",
                "have": f"{head.generation}/{head.size}",
                "above": self.above,
            },
        )
        if generation == head.generation:
            return None
        return VerifyError(
            Code.GENERATION_UNKNOWN,
            field="checkpoint",
            value=generation,
            expected=f"shanmen-hub restore --above {self.above}",
        )
