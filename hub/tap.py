"""The tap: values of open resources that somebody looks at, as they are accepted.

Only grades that are open by table 7-2 (signed, in clear), only resources in view, only so many
records, only in memory: nothing is decoded when nobody watches. A sealed resource cannot come in
here, whatever a page asks: the segment's own signed grade decides, and there is no key.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

from hub.verify import CheckedSegment
from protocol import segment
from protocol.errors import ShanmenError
from protocol.grades import rules
from protocol.header import decode_header
from protocol.limits import BODY_BYTES_MAX, PRELUDE_BYTES
from protocol.records import Value
from protocol.schema import Field
from protocol.segment import Segment

log = logging.getLogger(__name__)

POINTS_MAX: Final = 240  #: records of one resource that are kept
WAITING_MAX: Final = 256  # segments that wait to be decoded; more are passed over
#: Of their bodies: these copies stand beside the pool of bodies in flight.
WAITING_BYTES_MAX: Final = 2 * BODY_BYTES_MAX
FIELDS_MAX: Final = 8
TEXT_MAX: Final = 64

Row = tuple[int, str, tuple[Value, ...]]  #: event time µs, device, values of the fields
Point = tuple[int, int, str, tuple[Value, ...]]  #: its number, and the same


@dataclass(slots=True)
class Ring:
    """The last records of one resource in view."""

    n: int  #: ResourceRow.n
    fields: tuple[Field, ...]  #: of the entry in force, personal ones left out
    points: deque[Point] = field(default_factory=lambda: deque(maxlen=POINTS_MAX))
    count: int = 0  #: records since the ring was begun


def shown_fields(fields: Iterable[Field]) -> tuple[Field, ...]:
    """The fields that a page shows: never a personal one, and not more than fit."""
    return tuple(one for one in fields if one.personal == "none")[:FIELDS_MAX]


class Tap:
    """Decodes accepted segments of resources in view. Used on the loop; decodes on a thread."""

    def __init__(self) -> None:
        self._rings: dict[bytes, Ring] = {}  # by resource id
        self._thread = ThreadPoolExecutor(1, "tap")
        self._waiting = 0
        self._waiting_bytes = 0
        self.moved: Callable[[], None] = lambda: None  #: told when a ring has new points

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def ring(self, resource: bytes) -> Ring | None:
        """The ring of a resource in view."""
        return self._rings.get(resource)

    def rings(self) -> dict[int, Ring]:
        """All rings by ResourceRow.n."""
        return {ring.n: ring for ring in self._rings.values()}

    def watch(self, resource: bytes, ring: Ring) -> Ring:
        """Keep what comes of a resource from now on; returns the ring that is in use."""
        return self._rings.setdefault(resource, ring)

    def keep_only(self, resources: Collection[bytes]) -> None:
        """Forget what nobody looks at any more."""
        for gone in self._rings.keys() - set(resources):
            del self._rings[gone]

    def accepted(self, items: Iterable[CheckedSegment]) -> None:
        """Take what a group brought, after its commit; cheap when nobody watches."""
        if not self._rings:
            return
        for one in items:
            if one.header.resource in self._rings:
                self._take(one)

    def _take(self, item: CheckedSegment) -> None:
        if rules(item.header.grade).sealed or item.body is None or item.flaw is not None:
            return
        size = len(item.body)
        if self._waiting >= WAITING_MAX or self._waiting_bytes + size > WAITING_BYTES_MAX:
            return
        ring = self._rings[item.header.resource]
        self._waiting += 1
        self._waiting_bytes += size
        future = asyncio.get_running_loop().run_in_executor(
            self._thread, decoded, item.head + bytes(item.body), ring.fields
        )
        future.add_done_callback(lambda done: self._done(ring, size, done))

    def _done(self, ring: Ring, size: int, future: "asyncio.Future[list[Row]]") -> None:
        self._waiting -= 1
        self._waiting_bytes -= size
        if future.cancelled():
            return
        add(ring, future.result())
        self.moved()


def add(ring: Ring, rows: Sequence[Row]) -> None:
    """Put records into a ring, numbered, so that a page can be told what is new."""
    for row in rows:
        ring.count += 1
        ring.points.append((ring.count, *row))


def decoded(raw: bytes, fields: Sequence[Field]) -> list[Row]:
    """The last records of an open segment that was verified: event time, device, values.

    A sealed one shows nothing, and neither does one that cannot be decoded (its producer's fault).
    """
    try:
        opened = _opened(raw)
        if rules(opened.header.grade).sealed:
            return []
        found = segment.open_segment(opened)
    except ShanmenError as error:
        log.info("segment not shown", extra={"reason": error.code.key})
        return []
    names = [one.name for one in fields]
    first = max(0, found.count - POINTS_MAX)
    empty: list[Value] = [None] * found.count
    columns = [found.fields.get(name, empty)[first:] for name in names]
    cells = zip(*columns, strict=True) if columns else iter([()] * (found.count - first))
    return [
        (at, device[:TEXT_MAX], tuple(map(_short, row)))
        for at, device, row in zip(
            found.event_time[first:], found.device[first:], cells, strict=True
        )
    ]


def _opened(raw: bytes) -> Segment:
    """The segment again, whose signature was verified when it was accepted."""
    unverified = segment.parse(raw)
    prelude = unverified.prelude
    end = PRELUDE_BYTES + prelude.header_bytes
    header_bytes = raw[PRELUDE_BYTES:end]
    return Segment(
        prelude=prelude,
        header=decode_header(header_bytes, prelude),
        header_bytes=header_bytes,
        signature=raw[end : prelude.head_bytes],
        body=memoryview(raw)[prelude.head_bytes :],
        id=unverified.id,
        raw=raw,
    )


def _short(value: Value) -> Value:
    if isinstance(value, bytes):
        return value[: TEXT_MAX // 2].hex()
    return value[:TEXT_MAX] if isinstance(value, str) else value
