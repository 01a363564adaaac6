"""The check of columns against a pack: every value that may not be sealed is found here.

It works on whole columns with operations that run in C; only a column that fails is looked at
value by value. Values that are absent (None) always pass.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal, NamedTuple, TypeAlias

from protocol import limits
from protocol.records import Columns, Value
from protocol.schema import Field, Pack

ProblemKind: TypeAlias = Literal["type", "range", "length", "code", "unknown-field"]


class Problem(NamedTuple):
    """Values of one column that its declaration does not allow: quarantined, or nulled."""

    field: str  # "@event_time", "@device_time", "@device", "@quality": what every record has
    rows: list[int]  # ascending
    value: object  # of the first of them
    expected: str
    kind: ProblemKind


_NONE = type(None)
_PYTHON: dict[str, type] = {
    "int": int,
    "float": float,
    "bool": bool,
    "string": str,
    "code": str,
    "time": int,
    "token": bytes,
}
_LENGTHS = {"string": limits.STRING_CHARS_MAX, "token": limits.TOKEN_VALUE_BYTES_MAX}
_CODES_SHOWN = 12


def check_columns(pack: Pack, columns: Columns) -> list[Problem]:
    """Find every value that its field's declaration does not allow, column by column.

    One normalisation happens in place: integers in a float column become floats (JSON writes 3
    for 3.0). About 0.5 µs a record of eight good fields.
    """
    problems: list[Problem] = []
    _check_fixed(columns, problems)
    declared = 0
    for field in pack.fields:
        column = columns.fields.get(field.name)
        if column is None:
            continue
        declared += 1
        if field.type == "float":
            column = columns.fields[field.name] = _floats(column)
        _check_field(field, column, problems)
    if declared < len(columns.fields):
        _find_undeclared(pack, columns, problems)
    return problems


def _find_undeclared(pack: Pack, columns: Columns, problems: list[Problem]) -> None:
    for name in columns.fields.keys() - set(pack.names):
        column = columns.fields[name]
        rows = [row for row, value in enumerate(column) if value is not None]
        if rows:
            expected = f"a field of {pack.id}"
            problems.append(Problem(name, rows, column[rows[0]], expected, "unknown-field"))


@dataclass(slots=True)
class _Check:
    """One column under examination."""

    name: str
    column: Sequence[Value]
    wanted: type
    problems: list[Problem]

    def typed(self, expected: str, *, absent: bool = True) -> Sequence[Any]:
        """Report foreign types; give the values of the right type."""
        types = set(map(type, self.column))
        if types == {self.wanted}:
            return self.column
        allowed = {self.wanted, _NONE} if absent else {self.wanted}
        if not types <= allowed:
            rows = [row for row, value in enumerate(self.column) if type(value) not in allowed]
            self.problems.append(Problem(self.name, rows, self.column[rows[0]], expected, "type"))
        return [value for value in self.column if type(value) is self.wanted]

    def report(self, is_wrong: Callable[[Any], bool], expected: str, kind: ProblemKind) -> None:
        """Look at each value of the right type: called only when some are wrong."""
        wanted = self.wanted
        rows = [
            row
            for row, value in enumerate(self.column)
            if type(value) is wanted and is_wrong(value)
        ]
        self.problems.append(Problem(self.name, rows, self.column[rows[0]], expected, kind))

    def within(self, present: Sequence[Any], low: float | None, high: float | None) -> None:
        """Report numbers outside the bounds."""
        if (low is None or min(present) >= low) and (high is None or max(present) <= high):
            return

        def outside(value: Any) -> bool:
            return (low is not None and value < low) or (high is not None and value > high)

        bounds = ("" if low is None else str(low), "" if high is None else str(high))
        self.report(outside, "..".join(bounds), "range")

    def not_longer(self, present: Sequence[Any], most: int) -> None:
        """Report texts and tokens that are too long, and empty tokens."""
        least = 1 if self.wanted is bytes else 0
        lengths = set(map(len, present))
        if max(lengths) > most or min(lengths) < least:
            self.report(
                lambda value: not least <= len(value) <= most, f"{least}..{most} long", "length"
            )

    def utf8(self, present: Sequence[Any]) -> None:
        """Report texts with a lone surrogate, which JSON can write and UTF-8 cannot."""
        if not _is_utf8("".join(present)):
            self.report(lambda value: not _is_utf8(value), "valid Unicode", "type")


def _check_field(field: Field, column: list[Value], problems: list[Problem]) -> None:
    check = _Check(field.name, column, _PYTHON[field.type], problems)
    present = check.typed(field.type)
    if not present or field.type == "bool":
        return
    if field.type == "float":
        _check_floats(check, present, field)
    elif field.type in ("int", "time"):
        low = limits.INT_MIN if field.minimum is None else max(field.minimum, limits.INT_MIN)
        high = limits.INT_MAX if field.maximum is None else min(field.maximum, limits.INT_MAX)
        check.within(present, low, high)
    elif field.type == "code":
        codes = set(field.codes)
        if not codes.issuperset(present):
            check.report(
                lambda value: value not in codes, ", ".join(field.codes[:_CODES_SHOWN]), "code"
            )
    else:
        check.not_longer(present, field.length_max or _LENGTHS[field.type])
        if check.wanted is str:
            check.utf8(present)


def _check_floats(check: _Check, present: Sequence[Any], field: Field) -> None:
    if not all(map(isfinite, present)):
        check.report(lambda value: not isfinite(value), "a finite number", "range")
        # The bounds are for the rest: no comparison is meant to see a NaN.
        rest = [
            value if type(value) is float and isfinite(value) else None for value in check.column
        ]
        present = [value for value in rest if value is not None]
        check = _Check(check.name, rest, float, check.problems)
    if present:
        check.within(present, field.minimum, field.maximum)


def _check_fixed(columns: Columns, problems: list[Problem]) -> None:
    """Check what every record has beside its pack's fields: times, device, marks."""
    for name, column, low, high, absent in (
        ("@event_time", columns.event_time, limits.INT_MIN, limits.INT_MAX, False),
        ("@device_time", columns.device_time, limits.INT_MIN, limits.INT_MAX, True),
        ("@quality", columns.quality, 0, 2**32 - 1, False),
    ):
        check = _Check(name, column, int, problems)
        present = check.typed("int", absent=absent)
        if present:
            check.within(present, low, high)
    device = _Check("@device", columns.device, str, problems)
    names = list(set(device.typed("string", absent=False)))
    if names:
        device.not_longer(names, limits.NAME_CHARS_MAX)
        device.utf8(names)


def _floats(column: list[Value]) -> list[Value]:
    if int not in set(map(type, column)):
        return column
    # An integer that no float can hold stays, and is reported as a wrong type.
    return [
        float(value) if type(value) is int and abs(value) < 2**1023 else value for value in column
    ]


def _is_utf8(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
