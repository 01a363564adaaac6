"""Payload codecs as data: `devices/profiles/*.toml`, checked and compiled.

Two shapes. `[[message]]`: fixed frames, told apart by port, length and fixed bytes; the kind of
message comes first, then its fields (R43). `[[channel]]`: items of channel, type and value, one
after the other (Milesight). No expressions: a closed list of types, bits, scale, codes, ranges.
"""

import tomllib
from functools import cache
from importlib import resources
from typing import Annotated, Any, Final, Literal

import msgspec

from protocol.errors import Code, ConfigError
from protocol.program.walk import Text

ItemType = Literal[
    "u8", "i8", "u16be", "u16le", "i16be", "i16le", "u32be", "u32le", "version", "version_hex"
]
#: Bytes of an item's type; versions are as long as their item says.
WIDTHS: Final[dict[str, int]] = {
    "u8": 1,
    "i8": 1,
    "u16be": 2,
    "u16le": 2,
    "i16be": 2,
    "i16le": 2,
    "u32be": 4,
    "u32le": 4,
}
Kind = Literal["state", "heartbeat", "parameters", "startup", "count"]
#: Where a value goes: the bay's record, the counter's line, the sensor's health or link; `note`
#: is decoded, checked and not recorded.
Target = Literal["bay", "count", "health", "link", "note"]
Byte = Annotated[int, msgspec.Meta(ge=0, le=255)]


class Item(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One value in a message or channel."""

    name: Text  # field of the target's pack, or a name of its own for notes
    to: Target = "note"
    line: str = ""  # of a counter with several lines
    at: Annotated[int, msgspec.Meta(ge=0, le=255)] = 0  # offset in bytes
    type: ItemType = "u8"
    size: Annotated[int, msgspec.Meta(ge=1, le=16)] = 1  # of versions
    bits: Annotated[list[int], msgspec.Meta(min_length=2, max_length=2)] | None = None  # low, count
    scale: str | None = None  # decimal text
    codes: dict[str, str | bool] | None = None  # raw number -> value; others are out of range
    missing: list[int] = []  # raw sentinels: no value
    range: Annotated[list[float], msgspec.Meta(min_length=2, max_length=2)] | None = None


class MessageTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of fixed frame."""

    kind: Kind
    ports: list[Byte]
    length: Annotated[int, msgspec.Meta(ge=0, le=255)]
    match: dict[str, list[Byte]] = {}  # offset -> bytes that may stand there
    items: list[Item] = []


class ChannelTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kind of item in a channel payload."""

    id: Byte
    type: Byte
    length: Annotated[int, msgspec.Meta(ge=0, le=64)] = 0
    length_at: Annotated[int, msgspec.Meta(ge=0, le=63)] | None = None  # a byte that decides it
    length_by: dict[str, int] = {}  # value of that byte -> length
    history: bool = False  # an old measurement: u32le seconds at 0, a record of its own (R44)
    kind: Kind | None = None  # what kind of message its presence makes of the uplink
    items: list[Item] = []


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model of sensor."""

    id: Text
    zh: Text
    en: Text
    source: Text  # where the payload table comes from
    pack: Literal["parking.bay", "visitor.passage"] | None = None
    ports: list[Byte] = []  # of channel payloads
    include: list[Text] = []  # channels of these profiles as well
    wrap: Annotated[int, msgspec.Meta(ge=2, le=1 << 32)] = 1 << 32  # of its counters
    max_step: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 1000
    distance: str | None = None  # the item that tells a bay's state with `occupied_below`
    message: list[MessageTable] = []
    channel: list[ChannelTable] = []


def profile(name: str) -> Profile | None:
    """The profile of a codec name, `bosch-tps110`, or None if there is none."""
    return _all().get(name)


def names() -> list[str]:
    """Codec names that can be configured."""
    return sorted(name for name, one in _all().items() if one.pack is not None)


@cache
def _all() -> dict[str, Profile]:
    folder = resources.files("devices").joinpath("profiles")
    found: dict[str, Profile] = {}
    for entry in folder.iterdir():
        if entry.name.endswith(".toml"):
            one = read_profile(entry.read_text("utf-8"), entry.name)
            found[one.id] = one
    return {name: _including(one, found) for name, one in found.items()}


def read_profile(text: str, name: str) -> Profile:
    """Read one profile. Raises ConfigError that names the file and what is wrong."""
    try:
        raw: dict[str, Any] = tomllib.loads(text)
        one = msgspec.convert(raw, Profile)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise ConfigError(Code.CONFIG_INVALID, field=name, value="", expected=str(error)) from error
    for path, expected in _contradictions(one):
        raise ConfigError(Code.CONFIG_INVALID, field=f"{name}: {path}", expected=expected)
    return one


def _contradictions(one: Profile) -> list[tuple[str, str]]:
    wrong: list[tuple[str, str]] = []
    for message in one.message:
        wrong += [
            (f"message {message.kind}.{item.name}", f"≤ {message.length} bytes")
            for item in message.items
            if item.at + width(item) > message.length
        ]
        if any(not key.isdigit() or int(key) >= message.length for key in message.match):
            wrong.append((f"message {message.kind}.match", "offsets inside the message"))
    for channel in one.channel:
        shortest = min(channel.length_by.values()) if channel.length_by else channel.length
        needed = 4 if channel.history else 0
        if channel.length_at is not None and channel.length_at >= shortest:
            wrong.append((f"channel {channel.id:02x}{channel.type:02x}.length_at", "inside it"))
        if shortest < needed:
            wrong.append((f"channel {channel.id:02x}{channel.type:02x}.length", "≥ 4 for history"))
        if not channel.length_by:
            wrong += [
                (f"channel {channel.id:02x}{channel.type:02x}.{item.name}", "inside it")
                for item in channel.items
                if item.at + width(item) > channel.length
            ]
    return wrong


def width(item: Item) -> int:
    """Bytes of an item."""
    return WIDTHS.get(item.type, item.size)


def _including(one: Profile, found: dict[str, Profile]) -> Profile:
    own = {(channel.id, channel.type) for channel in one.channel}
    more = [
        channel
        for name in one.include
        for channel in found[name].channel
        if (channel.id, channel.type) not in own
    ]
    return msgspec.structs.replace(one, channel=[*one.channel, *more])
