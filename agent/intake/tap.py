"""What was just committed, for somebody who watches at the gateway (`shanmen-agent watch`).

A look, and nothing else: it never slows a commit down, is bounded, and keeps nothing. Values of
personal fields (个人信息) are left out unless they were asked for, and resources that must not
leave the gateway are never shown: what a vault holds is its owner's.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from agent.intake.groups import Pending, Prepared
from agent.store.resources import Bound
from protocol.records import Record
from protocol.times import quality_names

WATCHERS_MAX: Final = 4
WAITING_MAX: Final = 1_000  # shown records that wait for one watcher's terminal
TEXT_CHARS_MAX: Final = 1_000  # of one value
RAW_BYTES_MAX: Final = 200  # of a message that no driver understood


class Wish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a watcher wants to see."""

    resources: tuple[str, ...] = ()  # local names; none: all
    devices: tuple[str, ...] = ()  # none: all
    personal: bool = False  # values of personal fields as well


class Shown(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="record"):
    """One record, or one message that was refused, as it goes over the socket: a line of JSON."""

    at_us: int  # event time; of a refused message: when the gateway had it
    driver: str
    device: str
    resource: str = ""  # local name; empty where the driver could not tell
    outcome: str = "taken"  # taken: it is durable here; repeat: dropped; refused: in quarantine
    reason: str = ""  # of a refusal: key of `reject.…`
    quality: tuple[str, ...] = ()  # names of the marks
    values: dict[str, Any] = {}
    hidden: tuple[str, ...] = ()  # fields whose values are personal and were not asked for
    detail: str = ""  # of a refusal: where in the message
    raw: str = ""  # of a message that was refused, as hexadecimal, its beginning
    skipped: int = 0  # records before this one that came faster than they could be shown


class Refusal(msgspec.Struct, frozen=True, kw_only=True, tag="refusal"):
    """Why nothing is shown; the last line over the socket."""

    why: str  # "busy": others watch already; "wish": it cannot be read


@dataclass(eq=False, slots=True)
class Watcher:
    """Somebody who watches: what waits to be shown, and how much did not fit."""

    wish: Wish
    waiting: asyncio.Queue[Shown] = field(default_factory=lambda: asyncio.Queue(WAITING_MAX))
    skipped: int = 0

    def show(self, one: Shown) -> None:
        """Queue it if it is wished for; count it where there is no room."""
        wish = self.wish
        if wish.resources and one.resource not in wish.resources:
            return
        if wish.devices and one.device not in wish.devices:
            return
        if self.skipped:
            one = msgspec.structs.replace(one, skipped=self.skipped)
        try:
            self.waiting.put_nowait(one)
        except asyncio.QueueFull:
            self.skipped += 1
        else:
            self.skipped = 0


class Tap:
    """Who watches one file's commits. All methods are for the loop's thread."""

    def __init__(self, bounds: Mapping[str, Bound]) -> None:
        self.watchers: list[Watcher] = []
        self._bounds = bounds
        self._is_vault = False

    def of_vault(self) -> "Tap":
        """A tap on the vault for the same watchers: that a message was refused, nothing else."""
        tap = Tap({})
        tap.watchers, tap._is_vault = self.watchers, True
        return tap

    def committed(self, group: Sequence[Pending], prepared: Prepared) -> None:
        """Show a commit; called after it, in the order of the hand-overs."""
        if not self.watchers:
            return
        fresh = set(prepared.keys)
        refused = {id(record): one.reason for one in prepared.refused for record in one.records}
        for watcher in self.watchers:
            left = Counter(fresh)
            for pending in group:
                is_fresh = pending.key is None or left[pending.key] > 0
                if pending.key is not None:
                    left[pending.key] -= 1  # the same again in one group is a repeat
                if not self._is_vault:
                    wish = watcher.wish
                    for one in _records(pending, self._bounds, refused, wish, is_fresh=is_fresh):
                        watcher.show(one)
                if is_fresh:
                    for one in _rejected(
                        pending, in_full=watcher.wish.personal and not self._is_vault
                    ):
                        watcher.show(one)


def _records(
    pending: Pending,
    bounds: Mapping[str, Bound],
    refused: Mapping[int, str],
    wish: Wish,
    *,
    is_fresh: bool,
) -> Iterator[Shown]:
    reading = pending.reading
    for rows in reading.rows:
        bound = bounds.get(rows.resource)
        for record in rows.records:
            reason = refused.get(id(record), "")
            outcome = "repeat" if not is_fresh else "refused" if reason else "taken"
            one = Shown(
                at_us=pending.wall_us,
                driver=pending.driver,
                device="",
                resource=rows.resource,
                outcome=outcome,
                reason=reason,
            )
            # A driver's record of a wrong shape was refused; it must not fail here after all.
            with suppress(TypeError, ValueError, AttributeError):
                one = _described(one, record, bound, wish)
            yield one


def _rejected(pending: Pending, *, in_full: bool) -> Iterator[Shown]:
    for bad in pending.reading.rejected:
        yield Shown(
            at_us=pending.wall_us,
            driver=pending.driver,
            device=_plain(bad.device),
            outcome="refused",
            reason=bad.reason,
            detail=_plain(bad.detail) if in_full else "",
            raw=bad.raw[:RAW_BYTES_MAX].hex() if in_full else "",
        )


def _described(one: Shown, record: Record, bound: Bound | None, wish: Wish) -> Shown:
    values, hidden = _values(record, bound, wish)
    return msgspec.structs.replace(
        one,
        at_us=record.event_time_us + 0,
        device=_plain(record.device),
        quality=quality_names(record.quality),
        values=values,
        hidden=hidden,
    )


def _plain(value: object) -> Any:
    """A value as JSON can hold it, whatever a driver made of it."""
    match value:
        case bool() | int() | float():
            return value
        case bytes():
            return value.hex()
        case _:
            return str(value)[:TEXT_CHARS_MAX].encode("utf-8", "replace").decode()


def _values(
    record: Record, bound: Bound | None, wish: Wish
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Values that may be shown, in the order of the pack, and names of those that may not.

    What no pack describes may be anything, so it counts as personal.
    """
    fields = {} if bound is None else {one.name: one for one in bound.pack.fields}
    values: dict[str, Any] = {}
    hidden: list[str] = []
    order = [name for name in fields if name in record.values]
    order += [name for name in record.values if name not in fields]
    for name in order:
        value = record.values[name]
        if value is None:
            continue
        known = fields.get(name)
        if wish.personal or (known is not None and known.personal == "none"):
            values[name] = _plain(value)
        else:
            hidden.append(name)
    return values, tuple(hidden)
