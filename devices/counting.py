"""Totals of counters -> increments: 客流累计值, promise class D (edge-storage.md §1).

What a counter shows may roll over (R10), start again at midnight or at opening (R11), be reset by
an installer (R12), jump through a fault, or be heard of too late to know what passed (R13). One
function decides; its state is the watermark that is committed with the increment, so the sum of
the increments is exact across crashes of either side.
"""

from datetime import datetime, timedelta, tzinfo
from typing import Final

import msgspec

from devices.times import PLAUSIBLE_FROM_US
from protocol.errors import Code, DecodeError
from protocol.records import Value
from protocol.times import NO_MARKS, Quality

_MINUTE_US: Final = 60_000_000
_DAY_MINUTES: Final = 1440
_AGREE_US: Final = 5 * _MINUTE_US  # clocks that differ by less say the same
_AHEAD_US: Final = 60 * _MINUTE_US  # a state so far ahead of two clocks that agree is wrong
_WINDOW_MAX_S: Final = 366 * 86_400  # as the packs have it


class CounterRule(msgspec.Struct, frozen=True, kw_only=True):
    """How one counter of one model behaves."""

    wrap: int = 1 << 32  # the value after which it shows 0: 128, 65536, 4294967296
    reset_minutes: int | None = None  # minute of the local day at which it restarts; None: never
    reset_late_us: int = 15 * _MINUTE_US  # the restart may come so early or late
    max_step: int = 1000  # largest plausible increment per started minute, persons
    first_is_zero: bool = False  # the first value seen counts from 0, not as the base line


class CounterState(msgspec.Struct, frozen=True, array_like=True):
    """The watermark of a counter: (raw, width, reset generation, at), plus an unconfirmed jump."""

    raw: int  # last accepted raw total
    wrap: int  # width that it was counted with; a changed profile starts a new base line
    generation: int  # how often it restarted since we know it
    at_us: int  # event time of `raw`, µs UTC
    suspect: int | None = None  # implausible total seen once: believed when seen again
    unit: str = ""  # serial number of the counter where it tells one: another one counts anew

    def dump(self) -> bytes:
        """The watermark's bytes."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def load(cls, data: bytes) -> "CounterState":
        """Read a watermark of ours; raises DecodeError for anything else."""
        try:
            return msgspec.msgpack.decode(data, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise DecodeError(Code.MALFORMED, field="watermark", expected="counter") from error


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What one report of a counter means."""

    state: CounterState
    increment: int | None  # persons since the last report; None where it cannot be known
    quality: Quality = NO_MARKS
    repeat: bool = False  # the report is one that was counted already: no record


def step(
    rule: CounterRule,
    state: CounterState | None,
    raw: int,
    at_us: int,
    *,
    zone: tzinfo,
    gateway_us: int,
    redelivered: bool = False,
    has_time: bool = True,
    unit: str = "",
) -> Step:
    """Count one report: `raw` as shown by the device at `at_us`.

    gateway_us: when the report arrived, by the gateway's clock.
    redelivered: the transport says that it may have delivered this before (MQTT DUP).
    has_time: `at_us` is the device's own; without it order is known from the transport only.
    unit: the counter's serial number. Another one than before is another counter, whatever it
    shows: its total is the base line of a new generation, and what passed between is unknown.
    A report that is not newer than the state is a repeat and leaves the state alone; unless it is
    the state's time that is wrong, or one bad device time would end the counting until it has come.
    """
    if state is None or state.wrap != rule.wrap:
        done = _first(rule, state, raw, at_us)
    elif unit and state.unit and unit != state.unit:
        done = _first(rule, state, raw, at_us)
        done = msgspec.structs.replace(done, quality=Quality.REBASED | Quality.GAP_BEFORE)
    elif at_us <= state.at_us and _is_ahead(state, raw, at_us, gateway_us):
        if redelivered and raw <= state.raw:
            return Step(state=state, increment=0, repeat=True)
        done = _unordered(rule, state, raw, at_us)
    elif (has_time and at_us <= state.at_us) or (redelivered and not has_time and raw <= state.raw):
        return Step(state=state, increment=0, repeat=True)
    else:
        done = _later(rule, state, raw, at_us, zone)
    known = unit or ("" if state is None else state.unit)
    if done.state.unit == known:
        return done
    return msgspec.structs.replace(done, state=msgspec.structs.replace(done.state, unit=known))


def state_window(values: dict[str, Value], since_us: int, until_us: int) -> None:
    """Put `window_start` and `window_s` of what was counted meanwhile, unless they are there.

    Neither where the two times cannot both be right: a clock that was set by years must not cost
    what was counted.
    """
    seconds = (until_us - since_us) // 1_000_000
    if 0 <= since_us < until_us and seconds <= _WINDOW_MAX_S:
        values.setdefault("window_start", since_us)
        values.setdefault("window_s", seconds)


def _is_ahead(state: CounterState, raw: int, at_us: int, gateway_us: int) -> bool:
    """Whether a report is not older than the state although its time is: the state's was wrong.

    Two clocks that agree outvote it. A gateway that stands in 1970 cannot say; there a total that
    rose is news.
    """
    if gateway_us < PLAUSIBLE_FROM_US:
        return raw > state.raw
    return abs(at_us - gateway_us) <= _AGREE_US and state.at_us > gateway_us + _AHEAD_US


def _unordered(rule: CounterRule, state: CounterState, raw: int, at_us: int) -> Step:
    """A report after a state whose time is wrong: nobody knows how long it was until now."""
    allowed = min(rule.max_step * _DAY_MINUTES, rule.wrap // 2)
    increment = (raw - state.raw) % rule.wrap
    if increment > allowed:
        done = _doubt(rule, state, raw, at_us, allowed)
    else:
        done = Step(state=_accept(rule, state, raw, at_us, restarts=0), increment=increment)
    if done.state.raw != raw:
        return done
    return msgspec.structs.replace(done, state=msgspec.structs.replace(done.state, at_us=at_us))


def _later(rule: CounterRule, state: CounterState, raw: int, at_us: int, zone: tzinfo) -> Step:
    """A report after the last one, of the same counter."""
    restarted = _restart_between(rule, state.at_us, at_us, zone)
    if raw < state.raw:
        return _fell(rule, state, raw, at_us, restarted)
    # A state from before the gateway knew the time says nothing of when it was.
    if restarted == "surely" and state.at_us >= PLAUSIBLE_FROM_US:
        # It restarted unseen and has already passed its old value: unknowable (R13), unless that
        # was 0: it counted `raw` since, whether it did restart or stood at 0 all the time.
        is_known = state.raw == 0 and raw <= _allowed(rule, state, at_us)
        after = _accept(rule, state, raw, at_us, restarts=1)
        increment = raw if is_known else None
        return Step(state=after, increment=increment, quality=Quality.GAP_BEFORE)
    return _rose(rule, state, raw, at_us, raw - state.raw, wrapped=False)


def _first(rule: CounterRule, state: CounterState | None, raw: int, at_us: int) -> Step:
    generation = 0 if state is None else state.generation + 1
    fresh = CounterState(raw=raw, wrap=rule.wrap, generation=generation, at_us=at_us)
    if rule.first_is_zero and state is None:
        return Step(state=fresh, increment=raw)
    return Step(state=fresh, increment=0, quality=Quality.REBASED)


def _fell(rule: CounterRule, state: CounterState, raw: int, at_us: int, restarted: str) -> Step:
    """Lower than before: the daily restart, a roll-over, a reset, or a fault; in this order."""
    allowed = _allowed(rule, state, at_us)
    if restarted != "no" and raw <= allowed:
        quality = Quality.GAP_BEFORE if restarted == "surely" else NO_MARKS
        after = _accept(rule, state, raw, at_us, restarts=1)
        return Step(state=after, increment=raw, quality=quality)
    modular = raw - state.raw + rule.wrap
    if modular <= min(allowed, rule.wrap // 2):
        return _rose(rule, state, raw, at_us, modular, wrapped=True)
    if raw <= allowed:
        # Somebody restarted it: it has counted `raw` since, what passed before is unknown.
        after = _accept(rule, state, raw, at_us, restarts=1)
        return Step(state=after, increment=raw, quality=Quality.REBASED)
    return _doubt(rule, state, raw, at_us, allowed)


def _rose(
    rule: CounterRule, state: CounterState, raw: int, at_us: int, increment: int, *, wrapped: bool
) -> Step:
    allowed = _allowed(rule, state, at_us)
    if not wrapped and increment > allowed:
        return _doubt(rule, state, raw, at_us, allowed)
    return Step(state=_accept(rule, state, raw, at_us, restarts=0), increment=increment)


def _doubt(rule: CounterRule, state: CounterState, raw: int, at_us: int, allowed: int) -> Step:
    """An impossible jump: a fault when seen once, a new base line when seen twice."""
    since = -1 if state.suspect is None else raw - state.suspect
    if 0 <= since <= allowed:
        # Another counter, most likely: what it counted since it was first seen is known.
        after = _accept(rule, state, raw, at_us, restarts=1)
        return Step(state=after, increment=since, quality=Quality.REBASED | Quality.GAP_BEFORE)
    doubted = CounterState(
        raw=state.raw,
        wrap=state.wrap,
        generation=state.generation,
        at_us=state.at_us,
        suspect=raw,
    )
    return Step(state=doubted, increment=None, quality=Quality.OUT_OF_RANGE)


def _accept(
    rule: CounterRule, state: CounterState, raw: int, at_us: int, *, restarts: int
) -> CounterState:
    return CounterState(
        raw=raw,
        wrap=rule.wrap,
        generation=state.generation + restarts,
        at_us=max(at_us, state.at_us),
    )


def _allowed(rule: CounterRule, state: CounterState, at_us: int) -> int:
    """The most that can have passed since the last report: outages make large steps plausible."""
    minutes = max(1, -(-(at_us - state.at_us) // _MINUTE_US))
    return rule.max_step * minutes


def _restart_between(rule: CounterRule, before_us: int, after_us: int, zone: tzinfo) -> str:
    """Whether a daily restart lies between two reports: "no", "perhaps" (it is near), "surely"."""
    if rule.reset_minutes is None:
        return "no"
    late = rule.reset_late_us
    start = _at_local(before_us - late, zone)
    instant = start.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(
        minutes=rule.reset_minutes
    )
    answer = "no"
    # Two days are enough to tell near from sure: an instant further on is beyond doubt anyway.
    for days in range(3):
        at = _us(instant + timedelta(days=days))
        if before_us + late < at < after_us - late:
            return "surely"
        if before_us - late <= at <= after_us + late:
            answer = "perhaps"
    return answer


def _at_local(at_us: int, zone: tzinfo) -> datetime:
    seconds, micros = divmod(at_us, 1_000_000)
    return datetime.fromtimestamp(seconds, tz=zone).replace(microsecond=micros)


def _us(instant: datetime) -> int:
    return int(instant.timestamp() * 1_000_000)


def minutes_of_day(text: str) -> int:
    """`05:30` -> 330; raises ValueError for anything else than HH:MM of one day."""
    hours, colon, minutes = text.partition(":")
    if not (colon and len(hours) == len(minutes) == 2 and (hours + minutes).isascii()):
        raise ValueError(text)
    value = int(hours) * 60 + int(minutes)
    if not 0 <= value < _DAY_MINUTES or int(minutes) > 59:
        raise ValueError(text)
    return value
