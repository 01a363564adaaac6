"""What `shanmen-agent watch` prints for a person: one line a record, in the words of its pack."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from agent.host.messages import Messages
from agent.intake.tap import Shown
from agent.store.ports import ResourceSettings
from protocol.errors import DecodeError
from protocol.schema import Field
from protocol.times import show_time

_HIDDEN: Final = "•••"
_NEAR_US: Final = 12 * 3_600_000_000  # an event so near to now is told by the hour alone


class Lines:
    """Makes lines; knows the packs of the configured resources."""

    def __init__(self, resources: Sequence[ResourceSettings], say: Messages) -> None:
        self._say = say
        self._fields: Mapping[str, Mapping[str, Field]] = {
            one.local: {field.name: field for field in one.pack.fields} for one in resources
        }

    def of(self, one: Shown, *, now_us: int) -> list[str]:
        """The line of one record, after one that says how many were left out before it."""
        say = self._say
        out = [say("watch.skipped", count=one.skipped)] if one.skipped else []
        parts = [_time(one.at_us, now_us), f"{one.resource or one.driver}/{one.device}"]
        fields = self._fields.get(one.resource, {})
        parts += [self._value(fields.get(name), name, value) for name, value in one.values.items()]
        parts += [self._value(fields.get(name), name, _HIDDEN) for name in one.hidden]
        parts += [f"[{mark}]" for mark in one.quality]
        if one.outcome != "taken":
            reason = f"reject.{one.reason}"
            why = say(reason) if say.fits(reason, {}) else one.reason
            parts.append(say(f"watch.{one.outcome}", reason=why))
        parts += [text for text in (one.detail, one.raw) if text]
        return [*out, "  ".join(_printable(part) for part in parts)]

    def _value(self, field: Field | None, name: str, value: Any) -> str:
        if field is None:
            return f"{name}={value}"
        if isinstance(value, bool):
            value = self._say("watch.yes" if value else "watch.no")
        elif field.type == "time" and isinstance(value, int):
            value = _date(value)
        unit = f" {field.unit}" if field.unit and value != _HIDDEN else ""
        return f"{field.zh if self._say.lang == 'zh' else field.en}={value}{unit}"


def _time(at_us: int, now_us: int) -> str:
    if abs(now_us - at_us) > _NEAR_US:
        return _date(at_us)
    return datetime.fromtimestamp(at_us / 1e6).astimezone().strftime("%H:%M:%S.%f")[:-3]


def _date(us: int) -> str:
    try:
        return show_time(us)
    except DecodeError:  # a record that was refused may say any time
        return str(us)


def _printable(text: str) -> str:
    """A device's text must not move a technician's cursor."""
    return "".join(char if char.isprintable() else "\ufffd" for char in text)
