"""What the agent knows in memory of its resources and live streams; moved after COMMIT only.

A `Bound` is a configured resource (数据资源) tied to its pack and grade; a `Stream` is its live
run of sequence numbers. Everything here can be read again from the file at a start, in time that
does not grow with the spool.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from agent.store.ports import ResourceSettings
from agent.store.schema import StreamState
from protocol import ids
from protocol.errors import Code, ConfigError
from protocol.grades import Grade, effective, more_open, rules
from protocol.ids import ObjectId, PrincipalId, ResourceId, RunId, StreamId
from protocol.packs import Pack
from protocol.segment import Layout, layout_of

NO_HEAD: Final = bytes(32)
NO_ENTRY: Final = ObjectId(bytes(32))
BYTES_PER_RECORD_GUESS: Final = 256


@dataclass(frozen=True, slots=True)
class JournalRow:
    """A journal row that waits for the sealer; its body stays in the file."""

    id: int
    stream: StreamId  # in which it was numbered; a stream that follows inherits it
    run: RunId
    first_row: int
    count: int
    boot_us: int  # monotonic time of its commit, of this or an earlier boot
    wall_us: int
    source: int  # times.ClockSource when it was committed
    is_this_boot: bool = True  # False: monotonic times cannot be compared any more


@dataclass(slots=True)
class Counters:
    """Totals of one resource since its first record, as `status` shows them."""

    journalled: int = 0
    duplicates: int = 0  # refused by `seen`: the device sent them again
    maybe_repeat: int = 0  # class B: marked, kept
    quarantined: int = 0
    sealed: int = 0
    accepted: int = 0  # in segments with a verified receipt
    lost: int = 0  # counted in gap notes

    @property
    def produced(self) -> int:
        """Records that drivers handed over."""
        return self.journalled + self.duplicates + self.quarantined


@dataclass(slots=True)
class Stream:
    """One live run of sequence numbers of one resource."""

    id: StreamId
    next_row: int = 0
    waiting: int = 0  # records in the journal that no segment has yet
    next_seq: int = 0
    head: bytes = NO_HEAD  # id of seq - 1
    state: StreamState = StreamState.LIVE
    continues: bytes | None = None  # msgpack of [stream, seq, id, reason] of what it follows
    rows: deque[JournalRow] = field(default_factory=deque)
    oldest_us: int | None = None  # monotonic time of the oldest row of this process that waits
    is_fresh: bool = True  # nothing sealed since this start: the first segment goes after 1 s
    is_urgent: bool = False


@dataclass(slots=True)
class Bound:
    """A configured resource, its effective grade, and its live stream if it has had a record."""

    settings: ResourceSettings
    id: ResourceId
    grade: Grade
    names: tuple[str, ...]  # all fields of the pack
    layout: Layout  # field names by column group
    entry: ObjectId = NO_ENTRY  # registration in force
    entry_version: int = 0
    entry_hash: bytes = b""  # of what was registered, to see a change
    must_register: bool = True
    is_regraded: bool = False  # registered under another grade; the next record begins a stream
    is_grade_kept: bool = False  # the configuration asks for more openness than is registered
    epoch: int = 0  # number of the newest epoch
    decision: int = 0  # last applied decision of the owner
    stream: Stream | None = None
    counters: Counters = field(default_factory=Counters)
    record_bytes: float = BYTES_PER_RECORD_GUESS  # moving average in the journal

    @property
    def local(self) -> str:
        """The name in the configuration."""
        return self.settings.local

    @property
    def pack(self) -> Pack:
        """The domain pack of this resource."""
        return self.settings.pack

    @property
    def is_sealed(self) -> bool:
        """Whether its segments are ciphertext."""
        return rules(self.grade).sealed

    @property
    def leaves(self) -> bool:
        """Whether it may leave the gateway at all."""
        return rules(self.grade).leaves


def bind(settings: ResourceSettings, agent: PrincipalId) -> Bound:
    """Tie a configured resource to its id and grade (绑定).

    The configuration can only protect more: a grade more open than the pack's default needs an
    owner-signed object. Raises ConfigError.
    """
    wanted = settings.pack.grade if settings.grade is None else settings.grade
    if more_open(wanted, settings.pack.grade):
        raise ConfigError(
            Code.GRADE_FORBIDDEN,
            field=f"resource.{settings.local}.grade",
            value=rules(wanted).name_en,
            expected=f"{rules(settings.pack.grade).name_en} or more protective",
        )
    return Bound(
        settings=settings,
        id=ids.resource_id(agent, settings.local),
        grade=effective(wanted, settings.secrecy),
        names=settings.pack.names,
        layout=layout_of(settings.pack),
    )
