"""`[device.map]`: values of a decoded message -> fields of a domain pack; pure, compiled once.

A value that is missing becomes null. A value of the wrong type, outside its range or not in its
code list becomes null with OUT_OF_RANGE and a rejection that says which: one bad field never costs
the record (R46, R47).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Final, Literal

import msgspec

from devices.counting import CounterRule, minutes_of_day
from devices.transforms import Transform
from protocol.packs import Field, Pack
from protocol.program.walk import Text, Walk
from protocol.records import Value

_INT_MAX: Final = (1 << 63) - 1
#: Longest text without a bound in its pack, in characters.
_TEXT_CHARS_MAX: Final = 1024
_WRAP_DEFAULT: Final = 1 << 32


class CounterTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`counter = { … }`: this field is the increment of a total (R10-R13)."""

    semantics: Literal["cumulative", "window"] = "cumulative"
    # The value after which it shows 0: 128, 65536. Else as wide as its register, or 2^32 in JSON.
    wrap: Annotated[int, msgspec.Meta(ge=2, le=1 << 62)] | None = None
    reset: str = "never"  # local HH:MM at which it starts again
    max_step: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 1000  # per minute
    first: Literal["baseline", "zero"] = "baseline"  # what the first value seen means
    raw: Text | None = None  # field that keeps the total; `<x>_total_raw` for `<x>_count`


class FieldMap(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One field: where its value is, and what is done to it; see devices.md §2.2."""

    path: Text | None = None  # "a.b.0": keys and list positions of the JSON document
    const: str | int | float | bool | None = None
    scale: str | None = None  # decimal text, "0.1"; multiplied
    offset: float | None = None  # added after scaling
    codes: dict[str, str | int | bool] | None = None  # device's word -> the pack's
    missing: list[str | int | float] = []  # values that mean "no value": sentinels (R17)
    range: Annotated[list[float], msgspec.Meta(min_length=2, max_length=2)] | None = None
    transform: Transform | None = None
    counter: CounterTable | None = None


class Fault(msgspec.Struct, frozen=True, gc=False):
    """Why a field became null: a message key under `reject.` and where."""

    reason: str
    field: str
    path: str


Convert = Callable[[Any], Value]


class _WrongError(Exception):
    """A value that its field cannot hold; carries the reason."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """One field of the map, ready to run."""

    name: str
    steps: tuple[str | int, ...]  # empty: a constant
    const: Value
    codes: Mapping[str, Value] | None
    missing: frozenset[Any]
    scale: float | None
    decimals: int  # digits to round a scaled value to, so that 271 * 0.1 is 27.1
    offset: float
    low: float
    high: float
    convert: Convert
    transform: Transform | None
    counter: CounterRule | None
    raw_field: str | None

    def value(self, document: Any) -> Value:
        """The field's value in a document; raises `_WrongError` with the reason."""
        if not self.steps:
            return self.const
        raw = dig(document, self.steps)
        if raw is None or (self.missing and _hashable(raw) and raw in self.missing):
            return None
        if self.codes is not None:
            return self._code(raw)
        if self.transform is not None:
            return _text(raw)
        if self.scale is not None or self.offset:
            raw = self._scaled(raw)
        value = self.convert(raw)
        if type(value) in (int, float) and not self.low <= value <= self.high:  # type: ignore[operator]
            raise _WrongError("out-of-range")
        return value

    def _code(self, raw: Any) -> Value:
        assert self.codes is not None
        key = ""
        if isinstance(raw, bool):
            key = str(raw).lower()
        elif isinstance(raw, str) or (isinstance(raw, int) and abs(raw) <= _INT_MAX):
            key = str(raw)
        if key not in self.codes:
            raise _WrongError("unknown-code")
        return self.codes[key]

    def _scaled(self, raw: Any) -> Any:
        if isinstance(raw, bool) or not isinstance(raw, int | float):
            raise _WrongError("wrong-type")
        return round(raw * (self.scale or 1.0) + self.offset, self.decimals)


class Mapping_(tuple[Compiled, ...]):  # noqa: N801 — `Mapping` is taken
    """All fields of one device."""

    __slots__ = ()

    def values(self, document: Any) -> tuple[dict[str, Value], list[Fault]]:
        """The fields of a document (transforms and counters not yet applied), and the faults."""
        found: dict[str, Value] = {}
        faults: list[Fault] = []
        for one in self:
            try:
                found[one.name] = one.value(document)
            except _WrongError as wrong:
                found[one.name] = None
                faults.append(Fault(str(wrong), one.name, ".".join(map(str, one.steps))))
        return found, faults


def dig(document: Any, steps: tuple[str | int, ...]) -> Any:
    """The value at a path, or None where the path ends early."""
    for one in steps:
        if isinstance(document, dict):
            document = document.get(str(one))
        elif isinstance(document, list) and isinstance(one, int) and one < len(document):
            document = document[one]
        else:
            return None
    return document


def steps_of(path: str) -> tuple[str | int, ...]:
    """`a.b.0` -> ("a", "b", 0)."""
    return tuple(
        int(one) if one.isascii() and one.isdigit() and len(one) < 6 else one
        for one in path.split(".")
    )


def compile_map(table: Mapping[str, FieldMap], pack: Pack, walk: Walk, path: str) -> Mapping_:
    """Compile the map of one device against its pack; every problem goes to `walk`."""
    fields = {one.name: one for one in pack.fields}
    compiled: list[Compiled] = []
    for name, entry in table.items():
        where = f"{path}.{name}"
        if name not in fields:
            walk.add(where, "not-a-field", name, pack=pack.id, known=", ".join(fields))
        elif (entry.path is None) == (entry.const is None):
            walk.add(where, "path-or-const", None)
        else:
            one = _compile(name, entry, fields, walk, where)
            if one is not None:
                compiled.append(one)
    if not table:
        walk.add(path, "missing", None, expected="one-field")
    return Mapping_(compiled)


def _compile(
    name: str, entry: FieldMap, fields: Mapping[str, Field], walk: Walk, path: str
) -> Compiled | None:
    field = fields[name]
    before = len(walk.problems)
    scale, decimals = _scale(entry, field, walk, path)
    if (field.type == "token") != (entry.transform is not None):
        walk.add(f"{path}.transform", "transform-for-token", entry.transform, field=name)
    if field.type == "code":
        _check_codes(entry, field, walk, path)
    convert = _CONVERT[field.type](field)
    const: Value = None
    if entry.const is not None:
        try:
            const = convert(entry.const)
        except _WrongError:
            walk.add(f"{path}.const", "impossible", entry.const, expected=f"type-{field.type}")
    counter, raw_field = _counter(name, entry.counter, fields, walk, path)
    if len(walk.problems) > before:
        return None
    low, high = _bounds(entry, field, counter)
    return Compiled(
        name=name,
        steps=steps_of(entry.path) if entry.path else (),
        const=const,
        codes=dict(entry.codes) if entry.codes is not None else None,
        missing=frozenset(entry.missing),
        scale=scale,
        decimals=decimals,
        offset=entry.offset or 0.0,
        low=low,
        high=high,
        convert=convert,
        transform=entry.transform,
        counter=counter,
        raw_field=raw_field,
    )


def _bounds(entry: FieldMap, field: Field, counter: CounterRule | None) -> tuple[float, float]:
    """What is possible: as configured, else as the pack says; a total is below its roll-over."""
    if entry.range is not None:
        return entry.range[0], entry.range[1]
    if counter is not None:
        return 0, counter.wrap - 1
    low = -math.inf if field.minimum is None else field.minimum
    return low, math.inf if field.maximum is None else field.maximum


def _scale(entry: FieldMap, field: Field, walk: Walk, path: str) -> tuple[float | None, int]:
    if entry.scale is None and entry.offset is None:
        return None, 9
    try:
        scale = Decimal(entry.scale or "1")
    except InvalidOperation:
        walk.add(f"{path}.scale", "impossible", entry.scale, expected="decimal")
        return None, 9
    if field.type not in {"int", "float"} or not scale.is_finite() or scale == 0:
        walk.add(f"{path}.scale", "impossible", entry.scale, expected="scale")
        return None, 9
    exponent = scale.as_tuple().exponent
    return float(scale), max(0, -exponent if isinstance(exponent, int) else 0) + 3


def _check_codes(entry: FieldMap, field: Field, walk: Walk, path: str) -> None:
    for word, code in (entry.codes or {}).items():
        if field.codes and code not in field.codes:
            choices = ", ".join(field.codes)
            walk.add(f"{path}.codes.{word}", "impossible", code, expected="one-of", choices=choices)


def _counter(
    name: str, table: CounterTable | None, fields: Mapping[str, Field], walk: Walk, path: str
) -> tuple[CounterRule | None, str | None]:
    if table is None or table.semantics == "window":
        return None, None
    reset: int | None = None
    if table.reset != "never":
        try:
            reset = minutes_of_day(table.reset)
        except ValueError:
            walk.add(f"{path}.counter.reset", "impossible", table.reset, expected="clock-or-never")
    raw_field = table.raw
    guessed = name.removesuffix("_count") + "_total_raw"
    if raw_field is None and guessed in fields:
        raw_field = guessed
    elif raw_field is not None and raw_field not in fields:
        walk.add(f"{path}.counter.raw", "not-a-field", raw_field, pack="", known=", ".join(fields))
    rule = CounterRule(
        wrap=table.wrap or _WRAP_DEFAULT,
        reset_minutes=reset,
        max_step=table.max_step,
        first_is_zero=table.first == "zero",
    )
    return rule, raw_field


def _hashable(raw: Any) -> bool:
    return isinstance(raw, str | int | float | bool)


def _int(raw: Any) -> Value:
    if isinstance(raw, float) and raw.is_integer() and abs(raw) < 2**53:
        raw = int(raw)
    if isinstance(raw, bool) or not isinstance(raw, int):
        raise _WrongError("wrong-type")
    if not -_INT_MAX - 1 <= raw <= _INT_MAX:
        raise _WrongError("out-of-range")
    return raw


def _float(raw: Any) -> Value:
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        raise _WrongError("wrong-type")
    try:
        value = float(raw)
    except OverflowError:
        raise _WrongError("out-of-range") from None
    if not math.isfinite(value):
        raise _WrongError("out-of-range")
    return value


def _bool(raw: Any) -> Value:
    if not isinstance(raw, bool):
        raise _WrongError("wrong-type")
    return raw


def _text(raw: Any) -> str:
    if isinstance(raw, bool) or not isinstance(raw, str | int):
        raise _WrongError("wrong-type")
    text = str(raw) if not isinstance(raw, int) or abs(raw) <= _INT_MAX else ""
    if not text or len(text) > _TEXT_CHARS_MAX:
        raise _WrongError("out-of-range")
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON can write half a surrogate pair
        raise _WrongError("wrong-type") from None
    return text


def _string_of(field: Field) -> Convert:
    longest = field.length_max or _TEXT_CHARS_MAX

    def convert(raw: Any) -> Value:
        text = _text(raw)
        if len(text) > longest:
            raise _WrongError("too-long")
        return text

    return convert


def _code_of(field: Field) -> Convert:
    codes = frozenset(field.codes)

    def convert(raw: Any) -> Value:
        text = _text(raw)
        if codes and text not in codes:
            raise _WrongError("unknown-code")
        return text

    return convert


_CONVERT: Final[dict[str, Callable[[Field], Convert]]] = {
    "int": lambda _field: _int,
    "time": lambda _field: _int,
    "float": lambda _field: _float,
    "bool": lambda _field: _bool,
    "string": _string_of,
    "code": _code_of,
    "token": _string_of,
}
