"""What a reading came across besides records, told on standard error."""

import sys
from collections.abc import Iterable

from hub.owner.reader import Found
from hub.owner.reading import Interval
from hub.owner.texts import reason, say
from protocol.ids import show
from protocol.notes import Correction, Gap
from protocol.segment import Segment
from protocol.times import show_time


def tell_found(found: Found, interval: Interval) -> bool:
    """Tell all of it; returns whether what was asked for is complete."""
    for lost in found.set_back:
        _tell("read.set_back", generation=lost.generation, seen=lost.seen, kept=lost.kept)
    for head in found.continued:
        follows = head.header.continues
        assert follows is not None
        _tell("read.continued", stream=show(head.header.stream), reason=reason(follows.reason))
    for head in found.without_body:
        header = head.header
        _tell("read.without_body", segment=head.id.hex(), count=header.count,
              first=show_time(header.first_at), last=show_time(header.last_at))  # fmt: skip
    if found.others:
        _tell("read.others", count=found.others)
    gaps = [one for one in found.notes if isinstance(one, Gap) and _concerns(one, interval)]
    _tell_gaps(gaps)
    for note in found.notes:
        if isinstance(note, Correction):
            _tell_correction(note, found.heads)
    return not (found.without_body or found.others or gaps)


def _concerns(gap: Gap, interval: Interval) -> bool:
    """Whether the loss may lie in the interval: numbers without times may lie anywhere."""
    return gap.unit != "time" or interval.touches(gap.first, gap.last)


def _tell_gaps(gaps: list[Gap]) -> None:
    if not gaps:
        return
    for gap in gaps:
        first, last = str(gap.first), str(gap.last)
        if gap.unit == "time":
            first, last = show_time(gap.first), show_time(gap.last)
        count = "?" if gap.count is None else gap.count
        _tell("read.gap", stream=show(gap.stream), unit=say(f"unit.{gap.unit}"), first=first,
              last=last, count=count, reason=reason(gap.reason))  # fmt: skip
    known = sum(gap.count or 0 for gap in gaps)
    _tell("read.gaps", count=len(gaps), known=known, unknown=sum(g.count is None for g in gaps))


def _tell_correction(note: Correction, heads: Iterable[Segment]) -> None:
    """Say how far event times of some segments are off; they stay as they were recorded."""
    concerned = [
        one.header
        for one in heads
        if one.header.stream == note.stream and note.first_seq <= one.header.seq <= note.last_seq
    ]
    if not concerned:
        return
    _tell("read.correction", stream=show(note.stream), first_seq=note.first_seq,
          last_seq=note.last_seq, seconds=f"{note.offset_us / 1e6:+.6f}",
          count=sum(one.count for one in concerned),
          first=show_time(min(one.first_at for one in concerned)),
          last=show_time(max(one.last_at for one in concerned)))  # fmt: skip


def _tell(key: str, **fields: object) -> None:
    print(say(key, **fields), file=sys.stderr)
