"""The streams of one resource as a hub sees them: which segment may come next, and in which stream.

A stream is one run of sequence numbers; `protocol.chain` judges a segment against its stream's
head. Here stands what spans streams: one live stream a resource, a new one names what it
continues, the old one is bounded by that, and a run that comes back after another has taken over
is a clone (two processes from one image).
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from protocol.chain import Head
from protocol.ids import SegmentId


@dataclass(slots=True, kw_only=True)
class Stream:
    """One stream while a group is judged: the committed head, and how far the group moves it."""

    n: int  # 0 until its row exists
    id: bytes
    seq: int
    head: bytes
    run: bytes  # the newest run in its first segment: the process that began it; empty: decided
    last_seq: int | None = None  # where the stream that continues it says that it ends
    committed_seq: int = -1
    committed_head: bytes = b""

    @property
    def as_head(self) -> Head:
        """What `protocol.chain.judge` asks for."""
        return Head(self.seq, SegmentId(self.head))

    @property
    def moved(self) -> bool:
        """Whether the group has appended to it."""
        return self.n != 0 and self.seq != self.committed_seq

    def takes(self, seq: int) -> bool:
        """Whether the number is within the bound that a continuing stream has set."""
        return self.last_seq is None or seq <= self.last_seq


@dataclass(slots=True, kw_only=True)
class Resource:
    """One resource of an agent while a group is judged."""

    n: int
    id: bytes
    agent: bytes
    streams: dict[bytes, Stream] = field(default_factory=dict)  # oldest first

    def may_begin(self, continues: bytes | None) -> bool:
        """Whether a new stream may begin that says it continues that one.

        The first one always. Afterwards only one that says so, under its signature: two streams
        side by side would be two histories of one resource. The stream that it names need not be
        known here (a restored hub has lost it, or it never arrived).
        """
        return not self.streams or continues is not None

    def bound(self, continues: bytes | None, seq: int) -> list[Stream]:
        """End what a beginning stream replaces; returns the streams whose bound is new.

        The named stream may still be completed up to the number that the new one names: what was
        sealed in it before may be on its way.
        """
        ended = [one for one in self.streams.values() if one.last_seq is None]
        for one in ended:
            one.last_seq = max(one.seq, seq) if one.id == continues else one.seq
        return ended

    def is_clone(self, run: bytes) -> bool:
        """Whether a stream begun by `run` means that two processes take turns.

        One change of run is a restart or a restored image. A run that began a stream, was followed
        by another run's stream, and now begins one again, is alive beside the other.
        """
        runs = [one.run for one in self.streams.values()]
        return run in runs and runs[-1] != run


def newest_run(rows: Iterable[tuple[bytes, int, int]]) -> bytes:
    """The run that wrote the last of a segment's rows: the process that lived at its sealing."""
    return [run for run, _first, _last in rows][-1]
