"""Decode configuration tables into typed structs and find every problem on the way.

msgspec stops at the first problem and does not show the value, so structs are walked here and only
leaves are converted by it.
"""

import difflib
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated, Any, Final, TypeVar

import msgspec

from devices.driver import printable

T = TypeVar("T", bound=msgspec.Struct)

_SHOWN_CHARS_MAX: Final = 60
_SECRET_WORDS: Final = ("password", "secret", "token", "private", "login")
_SPAN: Final = re.compile(r"(\d{1,9})(ms|s|m|h|d)")
_SPAN_US: Final = {
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
}


Name = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        description="name",
    ),
]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
#: A duration as a technician writes it: `300ms`, `20s`, `5m`, `26h`, `7d`; see `span_us`.
Span = Annotated[
    str,
    msgspec.Meta(pattern=r"^\d{1,9}(ms|s|m|h|d)$", description="duration"),
]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to repair in the tables of devices.

    path: key path such as `device[1].map.in_count.path`; key: message key under `config.`;
    value: as typed, shortened, never a secret; fields: what the message names.
    """

    path: str
    key: str
    value: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)


def span_us(text: str) -> int:
    """`30s` -> 30,000,000; the text has passed the pattern of `Span`."""
    match = _SPAN.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return int(match[1]) * _SPAN_US[match[2]]


def shown(value: object, path: str = "") -> str:
    """The value as typed, one line, shortened; never what may be a secret."""
    leaf = path.rpartition(".")[2].lower()
    if any(word in leaf for word in _SECRET_WORDS):
        return "•••"
    if isinstance(value, Mapping):
        return printable("{" + ", ".join(str(key) for key in value) + "}", _SHOWN_CHARS_MAX)
    if isinstance(value, bool):
        return "true" if value else "false"
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return printable(text, _SHOWN_CHARS_MAX)


class Walk:
    """Collects problems while tables become structs."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def add(self, path: str, key: str, value: object = None, **fields: str) -> None:
        """Note one problem."""
        text = "" if value is None else shown(value, path)
        self.problems.append(Problem(path, key, text, fields))

    def struct(self, raw: object, cls: type[T], path: str) -> T | None:
        """Decode one table; None if a value of it is wrong or missing, with the problems collected.

        A key that is unknown is a problem too, but does not keep what the others say from being
        checked further.
        """
        if not isinstance(raw, Mapping):
            self.add(path, "wrong-type", raw, expected="table")
            return None
        known = _fields(cls)
        for key in raw:
            if key not in known:
                self._unknown(f"{path}.{key}", str(key), list(known))
        before = len(self.problems)
        values: dict[str, Any] = {}
        for name, (annotation, required) in known.items():
            if name in raw:
                values[name] = self._value(raw[name], annotation, f"{path}.{name}")
            elif required:
                self.add(f"{path}.{name}", "missing", None, **_expected(annotation))
        return None if len(self.problems) > before else cls(**values)

    def _value(self, raw: object, annotation: Any, path: str) -> Any:
        inner = _without_none(annotation)
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
            return self.struct(raw, inner, path)
        if typing.get_origin(inner) is dict and _is_struct(typing.get_args(inner)[1]):
            if not isinstance(raw, Mapping):
                self.add(path, "wrong-type", raw, expected="table")
                return {}
            one = typing.get_args(inner)[1]
            return {str(k): self.struct(v, one, f"{path}.{k}") for k, v in raw.items()}
        try:
            return msgspec.convert(raw, inner)
        except (msgspec.ValidationError, UnicodeEncodeError):
            self.add(path, "impossible", raw, **_expected(annotation))
            return None

    def _unknown(self, path: str, key: str, known: list[str]) -> None:
        # The value is not shown: a misspelt `password` does not look like a secret.
        near = difflib.get_close_matches(key, known, n=1)
        if near:
            self.add(path, "unknown-key-near", None, near=near[0])
        else:
            self.add(path, "unknown-key", None, known=", ".join(known))


@cache
def _fields(cls: type[msgspec.Struct]) -> dict[str, tuple[Any, bool]]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return {one.encode_name: (hints[one.name], one.required) for one in msgspec.structs.fields(cls)}


def _without_none(annotation: Any) -> Any:
    """TOML has no null: `X | None` is read as X."""
    rest = [one for one in typing.get_args(annotation) if one is not type(None)]
    if len(rest) == 1 and type(None) in typing.get_args(annotation):
        return rest[0]
    return annotation


def _is_struct(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, msgspec.Struct)


def _expected(annotation: Any) -> dict[str, str]:
    """What would be right: a key under `expect.` of the catalogues, and what its text names.

    A pattern says nothing to a person, so its `Meta.description` is such a key.
    """
    inner = _without_none(annotation)
    metas = [one for one in getattr(inner, "__metadata__", ()) if isinstance(one, msgspec.Meta)]
    if typing.get_origin(inner) is Annotated:
        inner = typing.get_args(inner)[0]
    for meta in metas:
        if meta.description:
            return {"expected": meta.description}
        if inner is int and meta.ge is not None and meta.le is not None:
            return {"expected": "whole-between", "low": str(meta.ge), "high": str(meta.le)}
        if inner is str and meta.max_length is not None:
            return {"expected": "text", "longest": str(meta.max_length)}
    origin = typing.get_origin(inner) or inner
    if origin is typing.Literal:
        return {"expected": "one-of", "choices": ", ".join(map(str, typing.get_args(inner)))}
    if _is_struct(inner):
        return {"expected": "table"}
    return {"expected": _EXPECTED.get(origin, "value")}


_EXPECTED: Final[dict[Any, str]] = {
    str: "any-text",
    int: "whole",
    float: "number",
    bool: "boolean",
    list: "list",
    tuple: "list",
    dict: "table",
}
