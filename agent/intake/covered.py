"""What the hub's evidence says of one resource, gathered page by page in bounded memory.

An image may be a year old, and the evidence half a million headers. What an agent needs of them is
little: which rows are at the hub, and for each source the newest watermark. Rows merge into a few
ranges a run, watermarks into one a source; the headers themselves are let go of with their page.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from agent.intake.resume import Tail, open_resume
from agent.store.ports import Identity
from protocol.chain import RowRange
from protocol.errors import ShanmenError
from protocol.evidence import Shown
from protocol.ids import RunId
from protocol.leaf import State

Key = tuple[str, str]  # driver, source

#: (how many streams after the one that could not go on, row number): later is newer. Row numbers
#: alone do not tell: the stream of a restored gateway counts on from the image.
Place = tuple[int, int]

#: Where a source stood, and when that was said.
Told = tuple[Place, bytes]


@dataclass(slots=True)
class Covered:
    """Verified headers of a resource, folded together in the order of the hub's pages."""

    origin: bytes = b""  # the stream of this file that could not go on
    first: int = 0  # its segment that the hub did not take
    headers: int = 0
    epoch: int = 0  # the highest that they name
    #: Newest watermark by source; and of those that the source gives again from there (class D, E).
    newest: dict[Key, Told] = field(default_factory=dict)
    newest_regained: dict[Key, Told] = field(default_factory=dict)
    _durable: dict[RunId, list[tuple[int, int]]] = field(default_factory=dict)
    _named: dict[RunId, list[tuple[int, int]]] = field(default_factory=dict)
    _streams: dict[bytes, int] = field(default_factory=dict)

    def add(self, shown: Iterable[Shown], identity: Identity) -> None:
        """Take in one page; `protocol.sync` verified every header of it."""
        for one in shown:
            header = one.header
            nth = self._streams.setdefault(header.stream, self._next_place(header.stream))
            self.headers += 1
            self.epoch = max(self.epoch, header.epoch)
            _merge(self._named, header.rows)
            if one.state is State.BODY:
                _merge(self._durable, header.rows)
                last = max((last for _, _, last in header.rows), default=-1)
                self._tell((nth, last), _tail_of(one, identity))

    def knows(self, stream: bytes) -> bool:
        """Whether headers of this stream were shown."""
        return stream in self._streams

    @property
    def durable(self) -> list[RowRange]:
        """Rows whose bodies are at the hub: they may be dropped here."""
        return _ranges(self._durable)

    @property
    def named(self) -> list[RowRange]:
        """Rows that any header names, those of header-only segments too."""
        return _ranges(self._named)

    def _next_place(self, stream: bytes) -> int:
        return 0 if stream == self.origin else len(self._streams) + 1

    def _tell(self, place: Place, tail: Tail) -> None:
        for key, value in tail.marks.items():
            keep_newest(self.newest, key, (place, value))
            if tail.is_regained:
                keep_newest(self.newest_regained, key, (place, value))


def keep_newest(told: dict[Key, Told], key: Key, said: Told) -> None:
    """Let a source's newest watermark stand; of one place, the one that is said last."""
    known = told.get(key)
    if known is None or known[0] <= said[0]:
        told[key] = said


def _tail_of(one: Shown, identity: Identity) -> Tail:
    header = one.header
    if header.resume is None:
        return Tail()
    try:
        return open_resume(header.resume, header.stream, header.seq, identity)
    except ShanmenError:
        return Tail()


def _merge(into: dict[RunId, list[tuple[int, int]]], rows: Sequence[RowRange]) -> None:
    for run, first, last in rows:
        known = into.setdefault(run, [])
        if known and known[-1][1] + 1 == first:
            known[-1] = (known[-1][0], last)
        else:
            known.append((first, last))


def _ranges(by_run: Mapping[RunId, Sequence[tuple[int, int]]]) -> list[RowRange]:
    return [(run, first, last) for run, pairs in by_run.items() for first, last in pairs]
