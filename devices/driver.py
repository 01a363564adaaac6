"""The interface of every driver: configuration in, readings with watermark and acknowledgement out.

The order of effects is the whole point of it:

1. the driver yields a `Reading` and keeps its source waiting (no PUBACK, no cursor moved);
2. the agent writes records, `identity` and `watermarks` of the reading in **one** commit;
3. then the agent calls `ack` on the event loop, never before, once; the source is answered.

A crash before 2 makes the source send again, a crash between 2 and 3 makes it send what is already
committed: `identity` (class A) or the watermark (D, E) recognises it. The agent may have several
readings of one driver under way and must keep their order. A reading that was submitted and could
not be committed ends the driver *instance*: a new instance reads its watermarks from the context,
an instance in use trusts what it has already yielded.
"""

from collections.abc import AsyncIterator, Callable, Iterable
from enum import Enum
from typing import Any, Protocol, runtime_checkable

import msgspec

from protocol.errors import Code, UnavailableError
from protocol.records import Record


class Promise(Enum):
    """What can be promised about a source (edge-storage.md §1); shown in `status` and docs."""

    A = "A"  # acknowledges and identifies its messages: exactly once
    B = "B"  # acknowledges, no id: at least once, a possible repeat is marked MAYBE_REPEAT
    C = "C"  # cannot be asked again: loses at most the open commit
    D = "D"  # cumulative counter: exact total
    E = "E"  # cursor of a database, service or file: exact


#: From the weakest promise to the strongest.
_ORDER = (Promise.C, Promise.B, Promise.D, Promise.E, Promise.A)


def weakest(promises: Iterable[Promise]) -> Promise:
    """The promise that holds for all of several sources; there must be one at least."""
    return min(promises, key=_ORDER.index)


class DeviceState(Enum):
    """How a device looks from the gateway: 设备状态."""

    ONLINE = "online"  # it speaks, and is understood
    SILENT = "silent"  # nothing for longer than `policy.silence_alarm`
    ABSENT = "absent"  # the way to it is gone: unplugged, refused, broker away
    GARBLED = "garbled"  # it speaks and is not understood
    REFUSED = "refused"  # it, or its broker, does not accept our credentials


class Rows(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Records of one resource out of one message, in the order in which the device gave them."""

    resource: str  # local name of the resource in agent.toml
    records: list[Record]


class Watermark(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the driver must know after a restart, written in the commit of the reading."""

    source: str  # stable name within the driver's configuration, e.g. "counter/n2/in_count"
    value: bytes  # the driver's own encoding, at most 4 KiB; a later value replaces it
    #: It says what came, not where the source can be read again: setting it back brings nothing.
    is_memory: bool = False


class Rejected(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What could not become a record: quarantined with its reason, never skipped in silence."""

    device: str  # id of the device, or what the message claimed, shortened and printable
    reason: str  # message key under `reject.`, e.g. "unknown-device"
    raw: bytes = b""  # as received, shortened to RAW_BYTES_MAX; empty where personal data may be
    detail: str = ""  # where in the message: offset, field, claimed value; one line, printable


class Lost(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a source had for us and lost before we read it: how much, nobody knows."""

    resource: str  # local name
    since_us: int  # gateway time before which nothing is missing, µs UTC
    reason: str  # of the gap note, e.g. "session lost"; shown in the alarm


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that one message of a source leads to; committed whole or not at all."""

    rows: list[Rows] = []
    #: Class A: the message's identity. The agent keeps a keyed hash of it and drops a reading whose
    #: identity it has committed before (its watermarks too), then acknowledges.
    identity: bytes | None = None
    watermarks: list[Watermark] = []
    rejected: list[Rejected] = []
    lost: list[Lost] = []  # declared in gap notes, within the commit
    urgent: bool = False  # seal at once: an alarm, not a measurement
    #: Of the source of this reading. A, B and C commit at once, D and E may wait for the next
    #: commit; a driver may ask for B where its source of class D cannot wait just now.
    promise: Promise = Promise.C
    #: Called by the agent on its loop after the commit; None where the source is not answered.
    ack: Callable[[], None] | None = None


#: Longest raw message kept with a rejection, in bytes.
RAW_BYTES_MAX = 4096
#: Longest id of a device, in characters; longer claims are rejected.
DEVICE_CHARS_MAX = 64


class HealthSink(Protocol):
    """Where drivers tell how their devices do; cheap, called on the loop, never blocks.

    Implementations log a state once when it changes and count in between.
    """

    def seen(self, device: str, at_us: int) -> None:
        """`device` was heard at `at_us` (gateway clock, µs UTC); ends SILENT and ABSENT."""

    def changed(self, device: str, state: DeviceState, detail: str = "") -> None:
        """The state of `device` is now `state`; repeated calls with the same state are harmless."""

    def count(self, device: str, counter: str, by: int = 1) -> None:
        """Add to a counter of `device`, e.g. "maybe_repeat", "retained", "frames_lost"."""


class DriverContext(Protocol):
    """What the agent lends to a driver: its memory, its clock, its secrets."""

    @property
    def health(self) -> HealthSink:
        """Where to tell how devices do."""

    def watermark(self, source: str) -> bytes | None:
        """The last committed watermark of `source`, or None; from memory, never blocks."""

    async def note(self, watermark: Watermark) -> None:
        """Commit a watermark that no reading carries; it is durable when this returns.

        For what must be known after a kill before the source is asked at all. A commit of its
        own: never once a message. Raises DriverError.
        """

    def clock_us(self) -> int:
        """The gateway's clock, µs UTC, corrected by the hub's where that is known."""

    def secret(self, name: str) -> str:
        """The secret `name` of the keyring; raises ConfigError if there is none.

        "pseudonym" always exists: the site's key for pseudonyms (化名), made at enrolment and kept.
        """


class ProbeResult(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `doctor`: what was tried and what to do about it."""

    device: str
    ok: bool
    key: str  # message key under `probe.`
    fields: dict[str, str] = {}


class Driver(Protocol):
    """One connection to devices. Constructing checks and never connects; `run` does the IO."""

    promise: Promise  # the weakest of its sources

    def __init__(self, config: Any, context: DriverContext) -> None: ...

    def run(self) -> AsyncIterator[Reading]:
        """Connect and yield readings until cancelled; `aclose()` of the iterator disconnects.

        Raises DriverError when the way to the source is lost; the agent's supervisor then calls
        `run` again after a back-off, on the same instance.
        """


@runtime_checkable
class Probes(Protocol):
    """A driver that `doctor` can ask; must not change anything at the device."""

    async def probe(self) -> list[ProbeResult]:
        """Try to reach the source once; never raises for a source that does not answer."""


class DriverError(UnavailableError):
    """The source cannot be read now. `retry`: whether trying again by itself can help.

    was_read: it was read until now, so the next try has the shortest wait, however often it goes.
    """

    def __init__(
        self,
        code: Code,
        *,
        retry: bool = True,
        after_s: float = 0.0,
        was_read: bool = False,
        **about: Any,
    ) -> None:
        super().__init__(code, **about)
        self.retry = retry
        self.was_read = was_read
        self.after_s = after_s  # wait at least so long before the next try, in seconds


def printable(text: str, chars_max: int = 120) -> str:
    """One line for logs and quarantine: no control characters, shortened."""
    clean = "".join(c if c.isprintable() else "\ufffd" for c in text[: chars_max + 1])
    return clean if len(clean) <= chars_max else clean[: chars_max - 1] + "…"
