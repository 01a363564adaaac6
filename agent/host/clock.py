"""What time it is, how sure that is, and when the wall clock jumped.

Sources in order of trust: the system's clock while the kernel says that it is synchronised, the
hub's clock, none. Event times are never rewritten; what a clock was worth travels in segments.

A hub may be wrong for an hour, and nothing of that may last. A synchronised clock is therefore
never corrected by the hub's, and the floor is what two sources agree on: see `learn_hub`.
"""

import ctypes
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from protocol.times import ClockMark, ClockSource

#: No build of ours is older; a wall clock before it is wrong. 2026-11-21T00:00:00Z in µs.
BUILD_TIME_US: Final = 1_795_219_200_000_000
#: A wall clock that moved against CLOCK_BOOTTIME by more than this has been set, not slewed.
JUMP_US: Final = 500_000
_ERROR_UNKNOWN_US: Final = 3_600_000_000
_ERROR_BY_FILE_US: Final = 1_000_000
_TIMESYNCD: Final = Path("/run/systemd/timesync/synchronized")
_TIME_ERROR: Final = 5
_STA_UNSYNC: Final = 0x0040


class _Timeval(ctypes.Structure):
    _fields_ = (("sec", ctypes.c_long), ("usec", ctypes.c_long))


class _Timex(ctypes.Structure):
    """struct timex of <sys/timex.h> as the 64-bit ABIs have it."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("constant", ctypes.c_long),
        ("precision", ctypes.c_long),
        ("tolerance", ctypes.c_long),
        ("time", _Timeval),
        ("tick", ctypes.c_long),
        ("room", ctypes.c_byte * 256),
    )


@dataclass(frozen=True, slots=True)
class SystemState:
    """The kernel's word on its clock: synchronised or not, and the bound of its error in µs."""

    synchronised: bool
    error_us: int


def system_state() -> SystemState:
    """Ask the kernel (adjtimex, read only); unsynchronised where it cannot be asked."""
    try:
        call = ctypes.CDLL(None, use_errno=True).adjtimex
    except (OSError, AttributeError):
        return SystemState(synchronised=False, error_us=_ERROR_UNKNOWN_US)
    answer = _Timex()
    state = call(ctypes.byref(answer))
    if state < 0:
        # A unit with ProtectClock= may not even ask; timesyncd leaves a file for such cases.
        by_file = _TIMESYNCD.exists()
        return SystemState(synchronised=by_file, error_us=_ERROR_BY_FILE_US)
    bad = state == _TIME_ERROR or bool(answer.status & _STA_UNSYNC)
    return SystemState(synchronised=not bad, error_us=max(0, int(answer.maxerror)))


def wall_us() -> int:
    """The system's wall clock, µs since 1970 UTC."""
    return time.time_ns() // 1_000


def boot_ns() -> int:
    """CLOCK_BOOTTIME in ns: never set, runs through suspend."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def boot_id() -> bytes:
    """16 bytes that name this boot of the kernel.

    Random where it does not say (a unit with ProcSubset=pid): then nothing that was measured by an
    earlier process is compared, which is safe.
    """
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text("ascii")
        return bytes.fromhex(text.strip().replace("-", ""))
    except (OSError, ValueError):
        return secrets.token_bytes(16)


class Clock:
    """Wall and monotonic time with the hub's offset; one object a process.

    `floor_us` is a time that has surely passed, for as long as nobody tells what time it is
    (persisted by the core with each receipt).
    """

    def __init__(
        self,
        *,
        wall: Callable[[], int] = wall_us,
        boot: Callable[[], int] = boot_ns,
        system: Callable[[], SystemState] = system_state,
        floor_us: int = 0,
    ) -> None:
        self._wall = wall
        self._boot = boot
        self._system = system
        self.floor_us = max(BUILD_TIME_US, floor_us)
        self._hub_offset_us: int | None = None  # hub time − wall time
        self._hub_error_us = _ERROR_UNKNOWN_US
        self._base_us = wall() - boot() // 1_000
        self._state = system()
        self._state_at = boot()
        self.jumps = 0

    def now_us(self) -> int:
        """Wall time as the system has it, µs UTC; may jump, never used for intervals."""
        return self._wall()

    def boot_ns(self) -> int:
        """Monotonic time for intervals."""
        return self._boot()

    def monotonic_us(self) -> int:
        """The same in µs, as the core wants it."""
        return self._boot() // 1_000

    def best_us(self) -> int:
        """The best guess of the true time; the wall clock's where nobody knows better."""
        known_us = self.known_us()
        return self._wall() if known_us is None else known_us

    def known_us(self) -> int | None:
        """The time by the most trusted source that there is; None if there is none."""
        self.check()
        if self.is_synchronised:
            return self._wall()
        return None if self._hub_offset_us is None else self.hub_us()

    def hub_us(self) -> int:
        """The time as the hub has it, right or wrong; the wall clock's before the first exchange.

        What the hub judges by its own clock is said in this: freshness of requests, expiry of its
        messages. So a hub that is wrong still gets its data.
        """
        self.check()
        return self._wall() + (self._hub_offset_us or 0)

    @property
    def is_synchronised(self) -> bool:
        """Whether the kernel vouches for the system's clock, and not for an impossible time."""
        return self._fresh_state().synchronised and self._wall() >= BUILD_TIME_US

    def check(self) -> int:
        """Notice a jump of the wall clock; returns its size in µs, 0 for none.

        After a jump the hub's offset is moved with it, so that corrected time does not jump.
        """
        base = self._wall() - self._boot() // 1_000
        jump = base - self._base_us
        self._base_us = base
        if abs(jump) < JUMP_US:
            return 0
        self.jumps += 1
        if self._hub_offset_us is not None:
            self._hub_offset_us -= jump
        self._state = self._system()
        self._state_at = self._boot()
        return jump

    def learn_hub(
        self, hub_us: int, *, sent_ns: int, received_ns: int, certificate_ends_us: int | None = None
    ) -> int:
        """Take the hub's time from an exchange between two readings of `boot_ns`.

        Half the round trip is the error. A worse measurement does not replace a better one
        unless they contradict each other. Returns the offset in µs.

        The floor becomes the hub's time as far as a second witness goes with it: the synchronised
        clock, else the end of the certificate under which the hub said it, else not at all. Thus
        no word of the hub's, kept through a restart, makes its own certificate look expired, and a
        later word takes a false one back.
        """
        self.check()
        trip_us = max(0, received_ns - sent_ns) // 1_000
        age_us = max(0, self._boot() - received_ns) // 1_000
        offset = hub_us + trip_us // 2 + age_us - self._wall()
        error = trip_us // 2 + 1
        old = self._hub_offset_us
        if old is None or error <= self._hub_error_us or abs(offset - old) > error:
            self._hub_offset_us, self._hub_error_us = offset, error
        witness_us = self._wall() if self.is_synchronised else certificate_ends_us
        if witness_us is not None:
            self.floor_us = max(BUILD_TIME_US, min(hub_us, witness_us))
        return self._hub_offset_us or 0

    @property
    def hub_offset_us(self) -> int | None:
        """Hub time − wall time in µs; None before the first exchange."""
        return self._hub_offset_us

    def mark(self) -> ClockMark:
        """What the wall clock is worth now, as segments say it."""
        if self.is_synchronised:
            return ClockMark(offset_us=0, error_us=self._state.error_us, source=ClockSource.SYSTEM)
        if self._hub_offset_us is not None:
            return ClockMark(
                offset_us=self._hub_offset_us,
                error_us=self._hub_error_us,
                source=ClockSource.HUB,
            )
        return ClockMark(offset_us=0, error_us=_ERROR_UNKNOWN_US, source=ClockSource.NONE)

    def _fresh_state(self) -> SystemState:
        """The kernel's word, asked at most every 16 s: marks are made for every commit."""
        if self._boot() - self._state_at > 16_000_000_000:
            self._state = self._system()
            self._state_at = self._boot()
        return self._state
