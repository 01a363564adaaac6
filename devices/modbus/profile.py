"""Register maps of real models: `devices/profiles/modbus/*.toml`.

A profile names *points*; the technician says which of them is which field, because a counter with
14 inputs does not know which of its sensors looks inwards. Points of a series have the series' name
and a number: `count-0`, `count-1`, …
"""

import tomllib
from functools import cache
from importlib import resources
from typing import Annotated, Final

import msgspec

from devices.modbus.config import PollTable, RegisterTable
from devices.modbus.registers import NumberType, Words, parse_address, size_of
from protocol.errors import Code, ConfigError
from protocol.program.walk import Text

#: The profile without points: every field names its register.
GENERIC: Final = "generic"


class PointTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One point, or a series of equal ones."""

    name: Text
    register: Text
    type: NumberType
    words: Words = "high_first"
    bytes: Words = "high_first"
    count: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1
    step: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1  # registers from one to the next


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model."""

    id: Text
    zh: Text
    en: Text
    source: Text  # where the map comes from
    note: str = ""  # what a technician should know
    poll: PollTable = PollTable()
    point: list[PointTable] = []

    def points(self) -> dict[str, RegisterTable]:
        """Every point by name, each with a register of its own."""
        found: dict[str, RegisterTable] = {}
        for one in self.point:
            start = parse_address(one.register)
            assert start is not None, "looked at when the profile was read"
            for at in range(one.count):
                name = one.name if one.count == 1 else f"{one.name}-{at}"
                register = f"{start.area.word}:{start.at + at * one.step}"
                found[name] = RegisterTable(
                    register=register, type=one.type, words=one.words, bytes=one.bytes
                )
        return found


def profile(name: str) -> Profile | None:
    """The profile of a name, `advantech-adam-6051`, or None."""
    return _all().get(name)


def names() -> list[str]:
    """Names that can be configured."""
    return sorted(_all())


@cache
def _all() -> dict[str, Profile]:
    folder = resources.files("devices").joinpath("profiles/modbus")
    found = [
        read_profile(entry.read_text("utf-8"), entry.name)
        for entry in folder.iterdir()
        if entry.name.endswith(".toml")
    ]
    return {one.id: one for one in found}


def read_profile(text: str, name: str) -> Profile:
    """Read one profile. Raises ConfigError that names the file and what is wrong."""
    try:
        one = msgspec.convert(tomllib.loads(text), Profile)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, RecursionError) as error:
        raise ConfigError(Code.CONFIG_INVALID, field=name, expected=str(error)) from error
    for point in one.point:
        start = parse_address(point.register)
        last = 0 if start is None else start.at + (point.count - 1) * point.step
        if start is None or last + size_of(point.type) > 0x1_0000:
            raise ConfigError(
                Code.CONFIG_INVALID, field=name, value=point.register, expected="a register"
            )
    return one
