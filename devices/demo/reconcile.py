"""Reconciliation: what the simulators' books say against what the owner read back.

Compared by identity (device and event time, which no simulator uses twice; of units that tell no
time, device and totals) and by content, per resource and by the promise of its class of source;
never by count alone.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from devices.simulators.books import Content, Fact, Made
from protocol.times import parse_rfc3339

#: Fields that the agent replaces by pseudonyms: equal texts must give equal ones, others not.
HIDDEN: Final = frozenset({"ticket_ref", "plate_ref"})
#: Fields of a counter's record: increment, raw total, and in the books the total without wraps.
TOTALS: Final = (("in_count", "in_total_raw", "in_total", "in_sum"),
                 ("out_count", "out_total_raw", "out_total", "out_sum"))  # fmt: skip
#: Marks with which a repeat that could not be recognised is told.
REPEAT_MARKS: Final = frozenset({"maybe_repeat", "repeat"})

#: Between a unit's answer by its own clock and the gateway's time of the record, at most.
POLLED_WITHIN_US: Final = 5_000_000

Row = Mapping[str, Any]

#: Classes whose promise is judged here; the words stand in `messages/`.
PROMISES: Final = ("A", "B", "D")


@dataclass(slots=True)
class Account:
    """What became of one resource. The last four are 0 where nothing went wrong."""

    resource: str
    promise: str
    produced: int = 0  # observations in the books
    acknowledged: int = 0  # of these, acknowledged to the device by the broker
    read: int = 0  # records that the owner read back and decrypted
    repeats_marked: int = 0  # copies beyond the first that carry a mark (class B)
    units: int = 0  # class D: what the counters counted, in persons
    lost: int = 0  # acknowledged and not read back; class D: persons missing from the total
    duplicated: int = 0  # unmarked copies; class D: persons counted twice
    altered: int = 0  # content differs from the books
    unknown: int = 0  # read back, and in no book
    examples: list[str] = field(default_factory=list)  # the first findings, in words
    others_ms: list[float] = field(default_factory=list)  # see `beside`

    @property
    def kept(self) -> bool:
        """Whether the promise of this class held, and there was something to hold it for."""
        clean = not (self.lost or self.duplicated or self.altered or self.unknown)
        return clean and self.acknowledged > 0 and self.read > 0

    def note(self, text: str) -> None:
        """Keep one finding in words; the first ten are enough."""
        if len(self.examples) < 10:
            self.examples.append(text)


def reconcile(made: Sequence[Made], rows: Sequence[Row], resource: str) -> Account:
    """Account for one resource: the books' observations against the rows read back."""
    promise = made[0].promise if made else "?"
    account = Account(resource, promise)
    account.produced = len(made)
    account.acknowledged = sum(one.acked > 0 for one in made)
    account.read = len(rows)
    seen = _match(account, made, rows)
    if promise == "D":
        _totals(account, made, rows)
    else:
        _delivery(account, made, seen)
    return account


def _match(account: Account, made: Sequence[Made], rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by the observation they are; counts what is unknown or altered."""
    index: dict[tuple[str, int], tuple[Made, Content]] = {}
    shown: dict[tuple[str, Fact, Fact], list[tuple[Made, Content]]] = {}
    for one in made:
        for form in one.forms:
            index[one.device, form.time_us] = (one, form)
            totals = (one.device, form.values.get("in_total"), form.values.get("out_total"))
            shown.setdefault(totals, []).append((one, form))
    hidden = _Pseudonyms()
    seen: dict[str, list[Row]] = {}
    for row in rows:
        time_us = parse_rfc3339(row["event_time"])
        found = index.get((row["device"], time_us))
        if found is None and account.promise == "D" and "clock_gateway" in row["quality"]:
            found = _polled(row, time_us, shown)
        if found is None:
            account.unknown += 1
            account.note(f"in no book: {dict(row)}")
            continue
        one, form = found
        wrong = _difference(form, row, hidden, account.promise)
        if wrong:
            account.altered += 1
            account.note(f"{one.key}: {wrong}")
        seen.setdefault(one.key, []).append(row)
    return seen


def _polled(
    row: Row, time_us: int, shown: Mapping[tuple[str, Fact, Fact], Sequence[tuple[Made, Content]]]
) -> tuple[Made, Content] | None:
    """The answer that a row was read from: units that are asked tell no time, but their totals."""
    totals = (row["device"], row.get("in_total_raw"), row.get("out_total_raw"))
    near = min(shown.get(totals, ()), key=lambda one: abs(one[1].time_us - time_us), default=None)
    return near if near and abs(near[1].time_us - time_us) <= POLLED_WITHIN_US else None


def _difference(form: Content, row: Row, hidden: "_Pseudonyms", promise: str) -> str:
    """What differs between a book's content and a row, in words; empty if nothing."""
    expected = dict(form.values)
    if promise == "D":
        for _, raw_field, shown, whole in TOTALS:
            expected.pop(whole, None)
            expected[raw_field] = expected.pop(shown, None)
    for name, value in expected.items():
        got = row.get(name)
        if name in HIDDEN:
            if not hidden.agree(str(value), str(got)):
                return f"{name}: pseudonym {got!r} does not follow {value!r}"
        elif got != value or isinstance(got, bool) != isinstance(value, bool):
            return f"{name}: {got!r} instead of {value!r}"
    return ""


def _delivery(account: Account, made: Sequence[Made], seen: Mapping[str, Sequence[Row]]) -> None:
    """Classes A and B: everything acknowledged is there; copies are none, or marked."""
    for one in made:
        copies = seen.get(one.key, ())
        if not copies and one.acked:
            account.lost += 1
            account.note(f"{one.key}: acknowledged, not read back")
        marked = sum(not REPEAT_MARKS.isdisjoint(row["quality"]) for row in copies)
        surplus = max(0, len(copies) - 1)
        allowed = min(surplus, marked) if account.promise == "B" else 0
        account.repeats_marked += allowed
        if surplus > allowed:
            account.duplicated += surplus - allowed
            account.note(f"{one.key}: {len(copies)} copies, {marked} marked")


def _totals(account: Account, made: Sequence[Made], rows: Sequence[Row]) -> None:
    """Class D: per line and direction, the increments add up to what the counter counted."""
    times = Counter((row["device"], row["event_time"]) for row in rows)
    for (device, at), copies in times.items():
        if copies > 1:
            account.duplicated += copies - 1
            account.note(f"{device} at {at}: {copies} copies")
    for device in sorted({one.device for one in made}):
        shown = [one.forms[0].values for one in made if one.device == device and one.acked]
        for increment, _, _, whole in TOTALS:
            totals = [int(values[whole] or 0) for values in shown]
            counted = max(totals, default=0) - min(totals, default=0)
            summed = sum(row.get(increment) or 0 for row in rows if row["device"] == device)
            account.units += counted
            account.lost += max(0, counted - summed)
            account.duplicated += max(0, summed - counted)
            if counted != summed:
                account.note(f"{device} {increment}: {summed} instead of {counted}")


class _Pseudonyms:
    """A one-to-one relation between texts and pseudonyms, learned while it is checked."""

    def __init__(self) -> None:
        self._forward: dict[str, str] = {}
        self._backward: dict[str, str] = {}

    def agree(self, clear: str, hidden: str) -> bool:
        return (
            clear.casefold() != hidden.casefold()
            and self._forward.setdefault(clear, hidden) == hidden
            and self._backward.setdefault(hidden, clear) == clear
        )
