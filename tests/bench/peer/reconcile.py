"""Ids offered against ids received; pure."""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple


class Outcome(NamedTuple):
    """What became of the records offered."""

    offered: int
    lost: int
    doubled: int


def reconcile(offered: Iterable[int], received: Counter[int]) -> Outcome:
    """Hold identities against each other: lost are those that never came, doubled each one too many."""
    ids = list(offered)
    found = [received[one] for one in ids]
    return Outcome(len(ids), found.count(0), sum(n - 1 for n in found if n > 1))
