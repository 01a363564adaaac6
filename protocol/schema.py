"""What a domain pack declares (领域数据字典): fields with types, units, codes, groups, grades.

The fields travel in the registration entry as `schema`, so a reader needs no dictionary.
"""

from collections.abc import Iterable, Sequence
from math import isfinite
from typing import Literal, TypeAlias

from msgspec import Struct

from protocol import limits, tags, wire
from protocol.errors import Code, DecodeError
from protocol.grades import Grade
from protocol.suites import suite as suite_of

FieldType: TypeAlias = Literal["int", "float", "bool", "string", "code", "time", "token"]
Personal: TypeAlias = Literal["none", "personal", "sensitive"]
Semantics: TypeAlias = Literal["", "event", "cumulative", "window"]
DataKind: TypeAlias = Literal["structured", "unstructured", "spatial", "realtime"]

GROUP_DATA = "data"  # the first column group of every pack


class Field(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One declared field (信息项). Values may be absent; present ones must fit all of this."""

    name: str  # [a-z][a-z0-9_]*, the column's name
    zh: str
    en: str
    type: FieldType  # "time" is int µs UTC, "token" 1..32 bytes, "code" a text of `codes`
    unit: str = ""  # as printed: "V", "人", "分"
    minimum: int | float | None = None  # of numbers, inclusive
    maximum: int | float | None = None
    length_max: int | None = None  # characters of a string, bytes of a token
    codes: tuple[str, ...] = ()
    personal: Personal = "none"  # PIPL: sensitive is art. 28
    group: str = GROUP_DATA  # column group: has its own key, is granted by name
    grade: Grade  # the most open grade at which the field may stand
    semantics: Semantics = ""  # of numbers: a total that only grows, an increment of a window
    index: bool = False  # may be searched by (记录项索引)


class Pack(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One domain pack, "parking.bay" version 1 (领域数据字典)."""

    id: str
    version: int
    zh: str
    en: str
    grade: Grade  # default of a resource; more open needs the owner's signature
    fields: tuple[Field, ...]
    kind: DataKind = "structured"
    record_index: tuple[str, ...] = ()  # key fields of a record (记录项索引, §6.2)
    rhythm: str = ""  # update rhythm (更新周期), in words: "event", "PT60S"

    @property
    def groups(self) -> tuple[str, ...]:
        """Column groups in order: "data" first; a group's number is its position."""
        seen = dict.fromkeys((GROUP_DATA, *(field.group for field in self.fields)))
        return tuple(seen)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the fields in declared order."""
        return tuple(field.name for field in self.fields)

    def group_fields(self, group: int) -> tuple[Field, ...]:
        """Give the fields of a group by its number."""
        name = self.groups[group]
        return tuple(field for field in self.fields if field.group == name)

    @property
    def schema_bytes(self) -> bytes:
        """The fields as msgpack: they travel in the entry, so that a reader needs no dictionary."""
        return wire.encode(self.fields)

    @property
    def schema_hash(self) -> bytes:
        """The content schema hash of the entry, 32 bytes."""
        return schema_hash(self.schema_bytes)


def schema_hash(schema: bytes, *, suite: int = 1) -> bytes:
    """Give the hash of a schema as it stands in an entry."""
    return suite_of(suite).hash(tags.SCHEMA, schema)


def open_schema(schema: bytes) -> tuple[Field, ...]:
    """Read the fields of an entry's schema. Raises DecodeError, TooLargeError."""
    fields = wire.decode(schema, tuple[Field, ...], limit=limits.SCHEMA_BYTES_MAX)
    problems = list(field_problems(fields))
    if problems:
        path, value, expected = problems[0]
        raise DecodeError(Code.PACK_INVALID, field=path, value=value, expected=expected)
    return fields


# --- contradictions among fields ------------------------------------------------------------------

Found: TypeAlias = Iterable[tuple[str, object, str]]


def field_problems(fields: Sequence[Field]) -> Found:
    """Give (path, value, what would be right) of each contradiction among a pack's fields."""
    names = [field.name for field in fields]
    if not 1 <= len(fields) <= limits.FIELDS_MAX:
        yield "fields", len(fields), f"1..{limits.FIELDS_MAX} fields"
    if len({GROUP_DATA, *(field.group for field in fields)}) > limits.GROUPS_MAX:
        yield "fields", "groups", f"≤ {limits.GROUPS_MAX} groups"
    for at, field in enumerate(fields):
        path = f"fields[{at}]"
        if not is_name(field.name) or names.count(field.name) > 1:
            yield f"{path}.name", field.name, "a name of its own: a-z, then a-z 0-9 _"
        if not is_name(field.group):
            yield f"{path}.group", field.group, "a-z, then a-z 0-9 _"
        if field.personal == "sensitive" and field.grade > Grade.GENERAL_PROTECTED:
            yield f"{path}.grade", int(field.grade), "1 or 2 for sensitive personal data"
        yield from _bound_problems(field, path)


def _bound_problems(field: Field, path: str) -> Found:
    if (field.type == "code") != bool(field.codes) or len(field.codes) > limits.CODES_MAX:
        yield f"{path}.codes", len(field.codes), f"1..{limits.CODES_MAX} for a code, else none"
    if len(set(field.codes)) != len(field.codes):
        yield f"{path}.codes", len(field.codes), "each code once"
    numeric = field.type in ("int", "float", "time")
    low, high = field.minimum, field.maximum
    if not numeric and (low is not None or high is not None):
        yield f"{path}.minimum", low, "bounds on numbers only"
    if any(bound is not None and not isfinite(bound) for bound in (low, high)):
        yield f"{path}.minimum", low, "finite bounds"
    elif low is not None and high is not None and low > high:
        yield f"{path}.minimum", low, f"≤ maximum {high}"
    most = {"string": limits.STRING_CHARS_MAX, "token": limits.TOKEN_VALUE_BYTES_MAX}
    if field.length_max is not None and not 1 <= field.length_max <= most.get(field.type, 0):
        yield f"{path}.length_max", field.length_max, f"1..{most.get(field.type, 0)}"


def is_name(text: str) -> bool:
    """Say whether this may name a field or group: a-z, then a-z 0-9 _, ≤ 64."""
    return (
        0 < len(text) <= 64
        and text.isascii()
        and text[0].isalpha()
        and text.islower()
        and text.replace("_", "a").isalnum()
    )
