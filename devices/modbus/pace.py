"""When each unit of a line is asked, and how long its answer may take; pure, the clock is given.

One silent unit must not starve the others (R19). So: the time-out follows what a unit was seen to
need; after three misses a unit is *dead* and is asked less and less often, only in gaps that the
others leave, and never for more than a fixed share of the line's time. A unit that comes back is in
its rhythm again with its first answer.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

SECOND_US: Final = 1_000_000
#: Misses in a row after which a unit is dead: the first may be noise, the second bad luck.
DEAD_AFTER: Final = 3
#: Every so many-th try of a dead unit gets the full time: it may have come back slower.
_PATIENT_EVERY: Final = 4
#: Between a miss and the next try of a unit that is not dead yet, at most.
_RETRY_US: Final = SECOND_US
#: Saved time of the share for dead units, at most: a quiet hour does not pay for a bad minute.
_SAVED_TRIES: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of a line, all in µs but the share."""

    timeout_us: int = 300_000  # longest wait for an answer's first byte
    timeout_min_us: int = 50_000  # shortest: USB adapters alone hold data back for 16 ms
    probe_min_us: int = 2 * SECOND_US  # first pause between two tries of a dead unit
    probe_max_us: int = 60 * SECOND_US  # longest
    dead_share: float = 0.05  # of the line's time, for all dead units together


@dataclass(slots=True)
class Timing:
    """How long one unit thinks: a smoothed mean and deviation, as TCP keeps of a round trip."""

    mean_us: float = 0.0  # 0: never heard
    deviation_us: float = 0.0

    def answered(self, thought_us: int) -> None:
        """Note an answer that came after so long, transmission not counted."""
        if not self.mean_us:
            self.mean_us, self.deviation_us = float(max(thought_us, 1)), thought_us / 2
            return
        self.deviation_us += (abs(thought_us - self.mean_us) - self.deviation_us) / 4
        self.mean_us = max(1.0, self.mean_us + (thought_us - self.mean_us) / 8)

    def timeout_us(self, limits: Limits) -> int:
        """How long to wait for a unit that answers as it did; never heard: as long as allowed."""
        if not self.mean_us:
            return limits.timeout_us
        wanted = int(self.mean_us + 4 * self.deviation_us)
        return max(limits.timeout_min_us, min(limits.timeout_us, wanted))


@dataclass(slots=True)
class Unit:
    """One unit's place in the schedule."""

    name: str
    every_us: int
    due_us: int
    timing: Timing = field(default_factory=Timing)
    misses: int = 0

    @property
    def is_dead(self) -> bool:
        """Whether it missed so often that it is only tried now and then."""
        return self.misses >= DEAD_AFTER


@dataclass(frozen=True, slots=True)
class Turn:
    """Whose turn it is; before `at_us` nobody's."""

    name: str
    at_us: int
    timeout_us: int


class Schedule:
    """The turns of one line. `jitter` gives 0..1; `now_us` is a clock that never jumps back."""

    def __init__(
        self,
        every_us: dict[str, int],
        limits: Limits,
        *,
        now_us: int,
        jitter: Callable[[], float],
    ) -> None:
        self._limits = limits
        self._jitter = jitter
        self.units = {
            name: Unit(name, period, now_us + period) for name, period in every_us.items()
        }
        self._saved_us = 0.0
        self._saved_at_us = now_us

    def next(self, now_us: int) -> Turn:
        """The next turn; its `at_us` may lie ahead, then ask again at that time."""
        self._save(now_us)
        units = self.units.values()
        living = min((u for u in units if not u.is_dead), key=lambda u: u.due_us, default=None)
        dead = min((u for u in units if u.is_dead), key=lambda u: u.due_us, default=None)
        if dead is not None:
            at_us = max(now_us, dead.due_us, self._affordable_us(dead, now_us))
            if living is None or self._fits(dead, at_us, now_us, living.due_us):
                return self._turn(dead, at_us)
        assert living is not None, "a line has units"
        return self._turn(living, max(now_us, living.due_us))

    def opened(self, now_us: int) -> None:
        """The line was opened, perhaps again: nobody waits for a pause from before.

        Turns are spread over the first period, or many units of one line would always queue.
        """
        for at, unit in enumerate(self.units.values()):
            spread_us = min(unit.every_us, SECOND_US) * at // len(self.units)
            unit.due_us = min(max(unit.due_us, now_us), now_us + spread_us)

    def answered(self, name: str, now_us: int, thought_us: int) -> None:
        """A unit answered: it lives, and keeps its rhythm."""
        unit = self.units[name]
        unit.misses = 0
        unit.timing.answered(thought_us)
        self._keep_rhythm(unit, now_us)

    def missed(self, name: str, now_us: int, spent_us: int) -> None:
        """A unit did not answer, or not understandably; `spent_us` of the line's time are gone."""
        unit = self.units[name]
        if unit.is_dead:
            self._saved_us -= spent_us
        unit.misses += 1
        if not unit.is_dead:
            # Not at once: a late answer would be taken for that of the next request (R18).
            pause_us = max(min(unit.every_us, _RETRY_US), self._limits.timeout_us)
            unit.due_us = now_us + pause_us
            return
        pause_us = self._limits.probe_min_us << min(unit.misses - DEAD_AFTER, 20)
        pause_us = min(self._limits.probe_max_us, pause_us)
        unit.due_us = now_us + int(pause_us * (0.8 + 0.2 * self._jitter()))

    def busy(self, name: str, now_us: int) -> None:
        """A unit said "later": it lives; it is asked again before its next regular turn."""
        unit = self.units[name]
        unit.misses = 0
        unit.due_us = now_us + min(unit.every_us, _RETRY_US)

    def _turn(self, unit: Unit, at_us: int) -> Turn:
        return Turn(unit.name, at_us, self._timeout_us(unit))

    def _timeout_us(self, unit: Unit) -> int:
        """As it was seen to need; after a miss twice that; the full time again now and then."""
        limits = self._limits
        usual = unit.timing.timeout_us(limits)
        if not unit.misses:
            return usual
        if unit.is_dead:
            patient = (unit.misses - DEAD_AFTER) % _PATIENT_EVERY == _PATIENT_EVERY - 1
            return limits.timeout_us if patient else min(usual, self._typical_us())
        # The last try before it counts as dead is a full one: it may only have become slower.
        return (
            limits.timeout_us
            if unit.misses == DEAD_AFTER - 1
            else min(limits.timeout_us, 2 * usual)
        )

    def _typical_us(self) -> int:
        """What is enough for any unit of this line that was heard: its units are mostly alike."""
        limits = self._limits
        heard = [one.timing for one in self.units.values() if one.timing.mean_us]
        longest = max((one.timeout_us(limits) for one in heard), default=limits.timeout_us)
        return min(limits.timeout_us, 2 * longest)

    def _keep_rhythm(self, unit: Unit, now_us: int) -> None:
        """The next multiple of its period: turns that were missed are not made up in a burst."""
        late = max(0, now_us - unit.due_us)
        unit.due_us += unit.every_us * (1 + late // unit.every_us)

    def _save(self, now_us: int) -> None:
        """The share of dead units grows with the time that passes."""
        limits = self._limits
        self._saved_us += (now_us - self._saved_at_us) * limits.dead_share
        self._saved_us = min(self._saved_us, float(_SAVED_TRIES * limits.timeout_us))
        self._saved_at_us = now_us

    def _affordable_us(self, unit: Unit, now_us: int) -> int:
        """When the share pays for a try of this unit."""
        owing = self._timeout_us(unit) - self._saved_us
        return now_us if owing <= 0 else now_us + int(owing / self._limits.dead_share) + 1

    def _fits(self, dead: Unit, at_us: int, now_us: int, next_due_us: int) -> bool:
        """Whether a try would be over before a living unit is due.

        A line without such gaps is asked all the same, late by the shortest pause: then the share
        alone bounds what the others feel.
        """
        if at_us + self._timeout_us(dead) <= next_due_us:
            return True
        return at_us <= now_us and now_us - dead.due_us >= self._limits.probe_min_us
