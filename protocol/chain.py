"""The chain of one stream: what a segment is to the one before it, as a table.

A hub keys streams by (agent, resource, stream) and remembers a head. Where a segment stands to the
head, and whether its link (`prev`, or the id that is already known at its number) holds, decides:

    place of its seq      link holds   link broken
    head + 1              NEXT         FORK
    ≤ head (known)        DUPLICATE    FORK
    beyond head + 1       GAP          GAP
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from protocol.ids import RunId, SegmentId

#: `prev` of a stream's first segment.
NO_SEGMENT = SegmentId(bytes(32))

#: (run, first row, last row), inclusive; rows are numbered per stream.
RowRange = tuple[RunId, int, int]


class Verdict(Enum):
    """What a segment is to its stream."""

    NEXT = "next"  # append it
    DUPLICATE = "duplicate"  # the very same segment is there: answer as before
    GAP = "gap"  # something before it has not arrived: `missing`
    FORK = "fork"  # another segment is in its place, or before it


class Place(Enum):
    """Where a sequence number stands to the head of its stream."""

    FOLLOWS = "follows"
    KNOWN = "known"
    BEYOND = "beyond"


@dataclass(frozen=True, slots=True)
class Head:
    """The last accepted segment of a stream."""

    seq: int  # from 0
    id: SegmentId


_TRANSITIONS: dict[tuple[Place, bool], Verdict] = {
    (Place.FOLLOWS, True): Verdict.NEXT,
    (Place.FOLLOWS, False): Verdict.FORK,
    (Place.KNOWN, True): Verdict.DUPLICATE,
    (Place.KNOWN, False): Verdict.FORK,
    (Place.BEYOND, True): Verdict.GAP,
    (Place.BEYOND, False): Verdict.GAP,
}


def judge(
    head: Head | None,
    seq: int,
    prev: SegmentId,
    id: SegmentId,  # noqa: A002
    known_id_at_seq: SegmentId | None,
) -> Verdict:
    """Say what segment `id` at `seq` after `prev` is to a stream with this head.

    head: None for a stream without segments. known_id_at_seq: what committed state has at `seq`;
    looked at only where seq ≤ head, and None there (it should be known, and is not) is a fork.
    """
    following = 0 if head is None else head.seq + 1
    if seq > following:
        return _TRANSITIONS[Place.BEYOND, False]
    if seq == following:
        holds = prev == (NO_SEGMENT if head is None else head.id)
        return _TRANSITIONS[Place.FOLLOWS, holds]
    return _TRANSITIONS[Place.KNOWN, id == known_id_at_seq]


def rows_overlap(a: Iterable[RowRange], b: Iterable[RowRange]) -> bool:
    """Whether two segments of one (agent, resource) name a row of the same run twice."""
    others = list(b)
    return any(
        run == other and first <= other_last and other_first <= last
        for run, first, last in a
        for other, other_first, other_last in others
    )
