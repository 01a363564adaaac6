"""Decode a parsed TOML table into typed structs and find every problem on the way.

msgspec stops at the first problem and does not show the value, so structs, lists and tables are
walked here and only leaves are converted by it. Knows no file and no option: agent.toml, the
tables of devices and hub.toml are all read by this.

What would be right is said by a key under `expect.` of the catalogues, made from the annotation. A
pattern says nothing to a person, so its `Meta.description` is such a key.
"""

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeVar

import msgspec

from protocol.program.units import Between, Unit

T = TypeVar("T", bound=msgspec.Struct)

#: A value is shown shortened: a whole pasted certificate helps nobody.
SHOWN_CHARS_MAX: Final = 60
_SECRET_WORDS: Final = ("password", "secret", "token", "private", "login")
#: What stands for a value that is not one.
_WRONG: Final = object()

Name = Annotated[
    str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}\Z", description="name")
]

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to repair in a configuration, with the words to say it in two languages.

    path: key path such as `hub.retry_min` or `resource[1].pack`; empty for the whole file.
    key: message key under `config.`; value: as typed, shortened, never a secret; fields: what the
    message names.
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
    return printable(text, SHOWN_CHARS_MAX)


def printable(text: str, chars_max: int) -> str:
    """One line: no control characters, shortened."""
    clean = "".join(c if c.isprintable() else "\ufffd" for c in text[: chars_max + 1])
    return clean if len(clean) <= chars_max else clean[: chars_max - 1] + "…"


def nearest(typed: str, known: Sequence[str]) -> str:
    """What was probably meant; empty if nothing is near."""
    from difflib import get_close_matches  # of all starts, only one with a mistake needs it

    return next(iter(get_close_matches(typed, known, n=1)), "")


class Walk:
    """Collects problems while tables become structs; one use, one file."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        #: What decoded, by key path, defaults as well: one bad option does not hide the others.
        self.found: dict[str, Any] = {}

    def add(self, path: str, key: str, value: object = None, **fields: str) -> None:
        """Note one problem."""
        text = "" if value is None else show(value, path)
        self.problems.append(Problem(path, key, text, fields))

    def struct(self, raw: object, cls: type[T], path: str = "") -> T | None:
        """Decode one table; None if a value of it is wrong or missing, with the problems collected.

        A key that is unknown is a problem too, but does not keep what the others say from being
        checked further.
        """
        made = self._struct(raw, cls, path)
        return made if isinstance(made, cls) else None

    def _struct(self, raw: object, cls: type[msgspec.Struct], path: str) -> Any:
        if not isinstance(raw, Mapping):
            self.add(path, "wrong-type", raw, expected="table")
            return _WRONG
        known = fields_of(cls)
        for key in raw:
            if key not in known:
                self._unknown(_join(path, str(key)), str(key), list(known))
        values: dict[str, Any] = {}
        for name, entry in known.items():
            where = _join(path, name)
            if name in raw:
                values[entry.name] = self._value(raw[name], entry.annotation, where)
            elif entry.required:
                self.add(where, "missing", None, **_expected(entry.annotation))
                values[entry.name] = _WRONG
            else:
                self.found[where] = entry.default
        wrong = any(value is _WRONG for value in values.values())
        return _WRONG if wrong else cls(**values)

    def _value(self, raw: object, annotation: Any, path: str) -> Any:
        value = self._decoded(raw, annotation, path)
        if value is not _WRONG:
            self.found[path] = value
        return value

    def _decoded(self, raw: object, annotation: Any, path: str) -> Any:
        kind, metas = bare(annotation)
        origin, inner = typing.get_origin(kind), typing.get_args(kind)
        if _is_a(kind, msgspec.Struct):
            return self._struct(raw, kind, path)
        if _is_a(kind, Unit):
            return self._unit(raw, kind, metas, path)
        if origin in {list, tuple}:
            return self._sequence(raw, annotation, inner[0], path)
        if origin is dict:
            return self._table(raw, annotation, inner[1], path)
        return self._leaf(raw, annotation, path)

    def _sequence(self, raw: object, annotation: Any, item: Any, path: str) -> Any:
        if not isinstance(raw, list):
            self.add(path, "wrong-type", raw, **_expected(annotation))
            return _WRONG
        values = [self._value(one, item, f"{path}[{at}]") for at, one in enumerate(raw)]
        #: How many there are is known even if one is wrong.
        self.found[path] = values
        if any(one is _WRONG for one in values):
            return _WRONG
        kind, metas = bare(annotation)
        if any(not _fits(meta, len(values)) for meta in metas):
            self.add(path, "impossible", raw, **_expected(annotation))
            return _WRONG
        return tuple(values) if typing.get_origin(kind) is tuple else values

    def _table(self, raw: object, annotation: Any, item: Any, path: str) -> Any:
        if not isinstance(raw, Mapping):
            self.add(path, "wrong-type", raw, **_expected(annotation))
            return _WRONG
        values = {str(k): self._value(one, item, _join(path, str(k))) for k, one in raw.items()}
        return _WRONG if any(one is _WRONG for one in values.values()) else values

    def _unit(self, raw: object, cls: type[Unit], metas: tuple[Any, ...], path: str) -> Any:
        if not isinstance(raw, str):
            self.add(path, "wrong-type", raw, expected=cls.expectation)
            return _WRONG
        try:
            value = cls.parse(raw)
        except ValueError:
            self.add(path, "impossible", raw, expected=cls.expectation)
            return _WRONG
        for one in metas:
            if isinstance(one, Between) and not cls.parse(one.low) <= value <= cls.parse(one.high):
                self.add(path, "impossible", raw, expected="between", low=one.low, high=one.high)
                return _WRONG
        return value

    def _leaf(self, raw: object, annotation: Any, path: str) -> Any:
        kind, _ = bare(annotation)
        if not _is_of(raw, kind):
            self.add(path, "wrong-type", raw, **_expected(annotation))
            return _WRONG
        try:
            return msgspec.convert(raw, annotation)
        except (msgspec.ValidationError, UnicodeEncodeError):
            self.add(path, "impossible", raw, **_expected(annotation))
            return _WRONG

    def _unknown(self, path: str, key: str, known: list[str]) -> None:
        # The value is not shown: that of a misspelt `password` does not look like a secret.
        near = nearest(key, known)
        if near:
            self.add(path, "unknown-key-near", None, near=near)
        else:
            self.add(path, "unknown-key", None, known=", ".join(known))


class Entry(NamedTuple):
    """One option of a table."""

    name: str
    annotation: Any
    required: bool
    default: Any


@cache
def fields_of(cls: type[msgspec.Struct]) -> dict[str, Entry]:
    """The options of a table by the name that stands in the file."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {
        one.encode_name: Entry(one.name, hints[one.name], one.required, _default(one))
        for one in msgspec.structs.fields(cls)
    }


def options(cls: type[msgspec.Struct], prefix: str = "") -> dict[str, Entry]:
    """Every option of a file by key path, tables opened: what the documents must name."""
    found: dict[str, Entry] = {}
    for name, entry in fields_of(cls).items():
        kind, _ = bare(entry.annotation)
        each = ""
        if typing.get_origin(kind) in {list, tuple}:
            kind, each = typing.get_args(kind)[0], "[]"
        if _is_a(kind, msgspec.Struct):
            found |= options(kind, f"{prefix}{name}{each}.")
        else:
            found[prefix + name] = entry
    return found


def _default(one: msgspec.structs.FieldInfo) -> Any:
    if one.default_factory is not msgspec.NODEFAULT:
        return one.default_factory()
    return one.default


def bare(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """An option's type without `| None` (TOML has no null), and what its annotations say."""
    metas: tuple[Any, ...] = ()
    while True:
        inner = typing.get_args(annotation)
        rest = [one for one in inner if one is not type(None)]
        if typing.get_origin(annotation) is Annotated:
            metas += annotation.__metadata__
            annotation = inner[0]
        elif _is_union(annotation) and len(rest) == 1 < len(inner):
            annotation = rest[0]
        else:
            return annotation, metas


def _is_union(kind: Any) -> bool:
    return typing.get_origin(kind) in {typing.Union, types.UnionType}


def _is_of(raw: object, kind: Any) -> bool:
    """Whether TOML gave the right type; whether the value fits is another question."""
    kind, _ = bare(kind)
    if _is_union(kind):
        return any(_is_of(raw, one) for one in typing.get_args(kind))
    if typing.get_origin(kind) is Literal:
        return any(_is_of(raw, type(one)) for one in typing.get_args(kind))
    kind = typing.get_origin(kind) or kind
    if isinstance(raw, bool):  # which Python takes for a number
        return kind is bool
    return isinstance(raw, (int, float) if kind is float else kind)


def _fits(meta: Any, length: int) -> bool:
    least, most = getattr(meta, "min_length", None), getattr(meta, "max_length", None)
    return (least is None or length >= least) and (most is None or length <= most)


def _expected(annotation: Any) -> dict[str, str]:
    """What would be right: a key under `expect.` of the catalogues, and what its text names."""
    kind, metas = bare(annotation)
    for meta in metas:
        if isinstance(meta, msgspec.Meta):
            said = _bounds(kind, meta)
            if said:
                return said
    inner = typing.get_args(kind)
    origin = typing.get_origin(kind) or kind
    if origin is Literal:
        return {"expected": "one-of", "choices": ", ".join(map(str, inner))}
    if origin in {list, tuple} and _is_a(inner[0], msgspec.Struct):
        return {"expected": "tables"}
    if origin is dict and inner[1] is str:
        return {"expected": "texts"}
    if _is_a(kind, Unit):
        return {"expected": kind.expectation}
    return {"expected": "table" if _is_a(kind, msgspec.Struct) else _PLAIN.get(origin, "value")}


def _bounds(kind: Any, meta: msgspec.Meta) -> dict[str, str]:
    """What an annotation says beyond the type; empty if nothing that a person could use."""
    if meta.description:
        return {"expected": meta.description}
    if kind in {int, float} and meta.le is not None:
        name = "whole" if kind is int else "number"
        if meta.ge is not None:
            return {"expected": f"{name}-between", "low": str(meta.ge), "high": str(meta.le)}
        if meta.gt is not None:
            return {"expected": f"{name}-above", "low": str(meta.gt), "high": str(meta.le)}
    if kind is str and meta.pattern is not None:
        pattern = meta.pattern.removeprefix("^").removesuffix(r"\Z").removesuffix("$")
        return {"expected": "pattern", "pattern": pattern}
    if kind is str and meta.max_length is not None:
        name = "text" if meta.min_length else "text-to"
        return {"expected": name, "longest": str(meta.max_length)}
    return {}


def _is_a(kind: Any, base: type) -> bool:
    return isinstance(kind, type) and issubclass(kind, base)


_PLAIN: Final[dict[Any, str]] = {
    str: "any-text",
    int: "whole",
    float: "number",
    bool: "boolean",
    list: "list",
    tuple: "list",
    dict: "table",
}


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
