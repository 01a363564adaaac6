"""Domain packs (领域数据字典) as technicians write them: TOML tables become a `Pack`.

The declarations are in `schema`, the check of columns against them in `checks`; both are given
out here, so that `protocol.packs` is all that others import.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from protocol import limits
from protocol.checks import Problem, check_columns
from protocol.errors import Code, ConfigError, ConfigProblem, DecodeError
from protocol.grades import Grade, parse_grade
from protocol.schema import (
    GROUP_DATA,
    Field,
    Found,
    Pack,
    field_problems,
    is_name,
    open_schema,
    schema_hash,
)

__all__ = [
    "GROUP_DATA",
    "Field",
    "Pack",
    "Problem",
    "check_columns",
    "open_schema",
    "parse_pack",
    "schema_hash",
]

_S = TypeVar("_S", bound=msgspec.Struct)


def parse_pack(data: Mapping[str, Any]) -> Pack:
    """Read a pack from its TOML tables; grades by number or name ("generally-open", "一般开放级").

    Raises ConfigError PACK_INVALID with every problem at once.
    """
    problems: list[ConfigProblem] = []
    head = {key: value for key, value in data.items() if key != "fields"}
    head["grade"] = _grade(head.get("grade"), "grade", problems)
    fields = [
        found
        for at, item in enumerate(_tables(data.get("fields"), problems))
        if (found := _field(item, f"fields[{at}]", problems)) is not None
    ]
    pack = _converted({**head, "fields": ()}, Pack, "", problems)
    if pack is not None:
        pack = msgspec.structs.replace(pack, fields=tuple(fields))
        problems += [ConfigProblem(p, repr(v), e) for p, v, e in _pack_problems(pack)]
    problems += [ConfigProblem(p, repr(v), e) for p, v, e in field_problems(fields)]
    if problems or pack is None:
        raise ConfigError(Code.PACK_INVALID, field=str(data.get("id", "")), problems=(*problems,))
    return pack


def _tables(value: object, problems: list[ConfigProblem]) -> list[Mapping[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        problems.append(ConfigProblem("fields", type(value).__name__, "a list of tables"))
        return []
    return value


def _field(item: Mapping[str, Any], path: str, problems: list[ConfigProblem]) -> Field | None:
    grade = _grade(item.get("grade"), f"{path}.grade", problems)
    return _converted({**item, "grade": grade}, Field, path, problems)


def _grade(value: object, path: str, problems: list[ConfigProblem]) -> int:
    try:
        return parse_grade(value if isinstance(value, str | int) else "")
    except DecodeError as error:
        problems.append(ConfigProblem(path, error.value, error.expected))
        return Grade.KEY_PROTECTED


def _converted(
    item: Mapping[str, Any], struct: type[_S], path: str, problems: list[ConfigProblem]
) -> _S | None:
    """Convert one table, key by key, so that each wrong one is named."""
    known = {field.name: field for field in msgspec.structs.fields(struct)}
    good: dict[str, Any] = {}
    for key, value in item.items():
        where = f"{path}.{key}" if path else key
        if key not in known:
            problems.append(ConfigProblem(where, repr(value), f"one of {', '.join(known)}"))
            continue
        try:
            good[key] = msgspec.convert(value, known[key].type)
        except msgspec.ValidationError as error:
            problems.append(ConfigProblem(where, repr(value), str(error).removeprefix("Expected ")))
    missing = [f.name for f in known.values() if f.required and f.name not in item]
    problems += [
        ConfigProblem(f"{path}.{key}" if path else key, "", "to be present") for key in missing
    ]
    return struct(**good) if all(f.name in good for f in known.values() if f.required) else None


def _pack_problems(pack: Pack) -> Found:
    if not is_name(pack.id.replace(".", "_")):
        yield "id", pack.id, "lower-case words joined by dots"
    if not 1 <= pack.version < 2**31:
        yield "version", pack.version, "1 or more"
    unknown = set(pack.record_index) - set(pack.names)
    if unknown:
        yield "record_index", sorted(unknown), "names of fields"
    if len(pack.schema_bytes) > limits.SCHEMA_BYTES_MAX:
        yield "fields", len(pack.schema_bytes), f"≤ {limits.SCHEMA_BYTES_MAX} bytes as schema"
