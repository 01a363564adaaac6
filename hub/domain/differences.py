"""What one version of an entry says otherwise than the one before it, field by field (§6.2)."""

from typing import Any, Final

import msgspec

from protocol import ids
from protocol.registration import Registration
from protocol.schema import open_schema

#: Differ in every version, or say nothing by themselves.
_PASSED_OVER: Final = frozenset(
    {"resource", "agent", "local_name", "version", "previous", "registered_at", "nonce",
     "schema", "schema_hash"}
)  # fmt: skip
_PRINCIPALS: Final = frozenset({"owner", "producer", "provider", "owner_key", "agent_key"})


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One field that was changed."""

    field: (
        str  #: name in the entry; "schema.gate_no" is a declared field, "encryption.suite" a part
    )
    before: Any  #: plain, as JSON has it; None where it was not there
    after: Any


def changes(before: Registration, after: Registration) -> list[Change]:
    """Return what differs, in the order of the entry's fields."""
    old, new = _plain(before), _plain(after)
    return [
        Change(field=name, before=old.get(name), after=new.get(name))
        for name in dict.fromkeys((*new, *old))
        if old.get(name) != new.get(name)
    ]


def _plain(entry: Registration) -> dict[str, Any]:
    """Return the entry as flat names and plain values, ids as people read them."""
    said: dict[str, Any] = {}
    for name in entry.__struct_fields__:
        value = getattr(entry, name)
        if name in _PASSED_OVER:
            continue
        if name in _PRINCIPALS:
            said[name] = None if value is None else ids.show(value)
        elif name == "users":
            said[name] = [ids.show(one) for one in value]
        elif isinstance(value, msgspec.Struct) and not value.__struct_config__.array_like:
            parts = msgspec.to_builtins(value)
            said |= {f"{name}.{part}": parts[part] for part in parts}
        else:
            said[name] = msgspec.to_builtins(value)
    said |= {
        f"schema.{field.name}": msgspec.to_builtins(field) for field in open_schema(entry.schema)
    }
    return said
