"""How long the others on a line wait while one unit of it is silent, by the simulator's book.

A counter does not say when somebody passed it. But what a record counts was not yet in the answer
before the one that it was read from; so from that answer to the moment in which the gateway handed
the record to its journal is the most that any of its passings waited, the wait for their unit's
turn included: more than the delay of the record itself, never less.

What is not in it: the commit that follows. The journal tells no time of it; a counter's record
rides on the next commit that any source asks for, and waits `commit_delay` at most.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from devices.simulators.books import Made
from protocol.times import parse_rfc3339

#: A book's clock tells whole milliseconds, and no millisecond twice: so far it may be ahead.
_AHEAD_US: Final = 3_000

#: An answer that was under way when the agent was killed went out, and is booked, after the kill.
_UNDER_WAY_US: Final = 1_000_000

Row = Mapping[str, Any]


def waits_ms(
    made: Sequence[Made],
    rows: Sequence[Row],
    *,
    silent: str,
    others: Sequence[str],
    killed_us: Sequence[int],
) -> list[float]:
    """The longest wait that each record of the others stands for, while `silent` was silent.

    killed_us: SIGKILLs of the agent; a wait over one of them is the kill's, and left out.
    """
    answers = {
        device: sorted(one.forms[0].time_us for one in made if one.device == device)
        for device in (silent, *others)
    }
    began_us, ended_us = _silence(answers[silent])
    found: list[float] = []
    for row in rows:
        at_us = parse_rfc3339(row["event_time"])
        if row["device"] not in others or not began_us < at_us < ended_us:
            continue
        times = answers[row["device"]]
        # Nobody asks a unit again before its answer is in the record: the last one before it.
        read = bisect_right(times, at_us + _AHEAD_US) - 1
        if read < 1 or _any_between(killed_us, times[read - 1], at_us):
            continue
        found.append((at_us - times[read - 1]) / 1000)
    return found


def _any_between(killed_us: Sequence[int], before_us: int, at_us: int) -> bool:
    return any(before_us - _UNDER_WAY_US <= one <= at_us for one in killed_us)


def p99(values: Sequence[float]) -> float | None:
    """The value that one of a hundred is above; None of nothing."""
    return sorted(values)[math.ceil(0.99 * len(values)) - 1] if values else None


def _silence(times_us: Sequence[int]) -> tuple[int, int]:
    """The longest time without an answer; none of fewer than two answers."""
    return max(pairwise(times_us), key=lambda one: one[1] - one[0], default=(0, 0))
