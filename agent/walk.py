"""Decode a parsed TOML table into typed structs and find every problem on the way.

msgspec stops at the first problem and does not show the value, so structs are walked here and only
leaves are converted by it. Knows nothing of agent.toml: any tree of msgspec structs will do.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import inspect

from agent.units import Duration

T = TypeVar("T", bound=msgspec.Struct)

#: A value is shown shortened: a whole pasted certificate helps nobody.
SHOWN_CHARS_MAX: Final = 60
_SECRET_WORDS: Final = ("password", "secret", "token", "private")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to repair in a configuration, with the words to say it in two languages.

    path: key path such as `hub.retry_min` or `resource[1].pack`; empty for the whole file.
    key: message key under `config.`; fields: what the message names.
    """

    path: str
    key: str
    value: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)


def show(value: object, path: str = "") -> str:
    """The value as a technician typed it, one line, shortened; never what may be a secret."""
    leaf = path.rpartition(".")[2].lower()
    if any(word in leaf for word in _SECRET_WORDS):
        return "•••"
    if isinstance(value, Mapping):
        text = "{" + ", ".join(str(key) for key in value) + "}"
    elif isinstance(value, bool):
        text = "true" if value else "false"
    else:
        text = f'"{value}"' if isinstance(value, str) else str(value)
    text = "".join(c if c.isprintable() else "�" for c in text[: SHOWN_CHARS_MAX + 1])
    return text if len(text) <= SHOWN_CHARS_MAX else text[: SHOWN_CHARS_MAX - 1] + "…"


class Walk:
    """Collects problems while tables become structs; one use, one file."""

    def __init__(
        self,
        bounds: Mapping[str, tuple[str, str]] | None = None,
        words: Mapping[str, str] | None = None,
    ) -> None:
        """bounds: of units by key path. words: what would be right, where a pattern says it ill."""
        self.problems: list[Problem] = []
        #: What decoded, by key path, defaults as well: one bad option does not hide the others.
        self.found: dict[str, Any] = {}
        self._bounds = bounds or {}
        self._words = words or {}

    def struct(self, raw: object, cls: type[T], path: str = "") -> T | None:
        """Decode one table; None if anything in it is wrong, with the problems collected."""
        if not isinstance(raw, Mapping):
            self._problem(path, "wrong-type", raw, expected="table")
            return None
        before = len(self.problems)
        known = {entry.encode_name: entry for entry in _fields(cls)}
        for key in raw:
            if key not in known:
                self._unknown(_join(path, str(key)), str(key), raw[key], list(known))
        values: dict[str, Any] = {}
        for name, entry in known.items():
            where = _join(path, name)
            if name in raw:
                values[entry.name] = self._kept(raw[name], entry.type, where)
            elif entry.required:
                self._missing(where, entry.type)
            elif entry.default is not msgspec.NODEFAULT:
                self.found[where] = entry.default
        if len(self.problems) > before:
            return None
        return cls(**values)

    def _kept(self, raw: object, kind: inspect.Type, path: str) -> Any:
        before = len(self.problems)
        value = self._value(raw, kind, path)
        if len(self.problems) == before or isinstance(value, tuple):
            self.found[path] = value
        return value

    def _value(self, raw: object, kind: inspect.Type, path: str) -> Any:
        if isinstance(kind, inspect.Metadata):
            return self._value(raw, kind.type, path)
        if isinstance(kind, inspect.UnionType):
            # TOML has no null, so an optional value is the other member of its union.
            rest = [one for one in kind.types if not isinstance(one, inspect.NoneType)]
            return self._value(raw, rest[0], path)
        if isinstance(kind, inspect.StructType):
            return self.struct(raw, kind.cls, path)
        if isinstance(kind, inspect.VarTupleType):
            return self._sequence(raw, kind.item_type, path)
        if isinstance(kind, inspect.CustomType):
            return self._unit(raw, kind.cls, path)
        return self._leaf(raw, kind, path)

    def _sequence(self, raw: object, item: inspect.Type, path: str) -> tuple[Any, ...]:
        if not isinstance(raw, list):
            expected = "tables" if isinstance(item, inspect.StructType) else "list"
            self._problem(path, "wrong-type", raw, expected=expected)
            return ()
        return tuple(self._value(one, item, f"{path}[{index}]") for index, one in enumerate(raw))

    def _unit(self, raw: object, cls: type[Any], path: str) -> Any:
        expected = "duration" if cls is Duration else "size"
        if not isinstance(raw, str):
            self._problem(path, "wrong-type", raw, expected=expected)
            return None
        try:
            value = cls.parse(raw)
        except ValueError:
            self._problem(path, "impossible", raw, expected=expected)
            return None
        bound = self._bounds.get(_pattern(path))
        if bound is not None and not cls.parse(bound[0]) <= value <= cls.parse(bound[1]):
            self._problem(path, "impossible", raw, expected="between", low=bound[0], high=bound[1])
        return value

    def _leaf(self, raw: object, kind: inspect.Type, path: str) -> Any:
        expected, fields, python_type = _leaf_words(kind)
        expected = self._words.get(_pattern(path), expected)
        right_type = isinstance(raw, python_type) and (
            python_type is bool or not isinstance(raw, bool)
        )
        if not right_type:
            self._problem(path, "wrong-type", raw, expected=expected, **fields)
            return None
        try:
            return msgspec.convert(raw, _rebuilt(kind))
        except msgspec.ValidationError:
            self._problem(path, "impossible", raw, expected=expected, **fields)
            return None

    def _unknown(self, path: str, key: str, value: object, known: list[str]) -> None:
        near = difflib.get_close_matches(key, known, n=1)
        if near:
            self._problem(path, "unknown-key-near", value, near=near[0])
        else:
            self._problem(path, "unknown-key", value, known=", ".join(known))

    def _missing(self, path: str, kind: inspect.Type) -> None:
        expected, fields, _ = _leaf_words(kind)
        expected = self._words.get(_pattern(path), expected)
        self.problems.append(Problem(path, "missing", "", {"expected": expected, **fields}))

    def _problem(self, path: str, key: str, value: object, **fields: str) -> None:
        self.problems.append(Problem(path, key, show(value, path), fields))


@cache
def _fields(cls: type[msgspec.Struct]) -> tuple[inspect.Field, ...]:
    info = inspect.type_info(cls)
    assert isinstance(info, inspect.StructType)
    return info.fields


Words = tuple[str, dict[str, str], type | tuple[type, ...]]


def _leaf_words(kind: inspect.Type) -> Words:
    """What would be right, as a message key with fields, and the Python types that TOML gives."""
    if isinstance(kind, inspect.Metadata):
        return _leaf_words(kind.type)
    if isinstance(kind, inspect.UnionType):
        return _leaf_words(next(t for t in kind.types if not isinstance(t, inspect.NoneType)))
    return _WORDS[type(kind)](kind)


def _number_words(kind: Any) -> Words:
    whole = isinstance(kind, inspect.IntType)
    types: type | tuple[type, ...] = int if whole else (int, float)
    name = "whole" if whole else "number"
    if kind.ge is None or kind.le is None:
        return name, {}, types
    return f"{name}-between", {"low": str(kind.ge), "high": str(kind.le)}, types


def _text_words(kind: Any) -> Words:
    if kind.pattern is not None:
        return "pattern", {"pattern": kind.pattern.removeprefix("^").removesuffix(r"\Z")}, str
    return "text", {"longest": str(kind.max_length or 65_535)}, str


def _literal_words(kind: Any) -> Words:
    return "one-of", {"choices": ", ".join(str(one) for one in kind.values)}, str


def _unit_words(kind: Any) -> Words:
    return ("duration" if kind.cls is Duration else "size"), {}, str


_WORDS: Final[dict[type, Callable[[Any], Words]]] = {
    inspect.LiteralType: _literal_words,
    inspect.BoolType: lambda _: ("boolean", {}, bool),
    inspect.IntType: _number_words,
    inspect.FloatType: _number_words,
    inspect.StrType: _text_words,
    inspect.DictType: lambda _: ("texts", {}, dict),
    inspect.CustomType: _unit_words,
    inspect.StructType: lambda _: ("table", {}, dict),
    inspect.VarTupleType: lambda _: ("list", {}, list),
}


def _rebuilt(kind: inspect.Type) -> Any:
    """The annotation that `kind` came from: `convert` wants a type, not its description."""
    match kind:
        case inspect.LiteralType(values=values):
            return Literal[values]
        case inspect.BoolType():
            return bool
        case inspect.IntType() | inspect.FloatType():
            base = int if isinstance(kind, inspect.IntType) else float
            return Annotated[base, msgspec.Meta(ge=kind.ge, le=kind.le)]
        case inspect.StrType():
            meta = msgspec.Meta(
                min_length=kind.min_length, max_length=kind.max_length, pattern=kind.pattern
            )
            return Annotated[str, meta]
        case inspect.DictType():
            return dict[str, str]
        case _:
            raise TypeError(kind)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _pattern(path: str) -> str:
    """`resource[3].segment_age` → `resource[].segment_age`."""
    parts = path.split("[")
    return parts[0] + "".join("[]" + part.partition("]")[2] for part in parts[1:])
