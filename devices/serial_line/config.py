"""What a `[[device]]` table of a serial line may say, and the profiles that fill it in."""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Annotated, Any, Final, Literal

import msgspec

from devices.checksums import Kind
from devices.document import TimeTable
from devices.mapping import FieldMap
from protocol.program.units import Duration
from protocol.program.walk import Name, Text

PREFIX: Final = "serial_line/"

#: Bytes as a technician writes them: text (one character a byte, TOML's escapes: "\r\n",
#: "\u0002") or "hex:02 0d"; see `bytes_of`.
Bytes = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
_Offset = Annotated[int, msgspec.Meta(ge=0, le=8192)]


class SerialConnection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`connection`: the port and how it talks."""

    #: A path that stays when things are plugged anew: /dev/serial/by-id/…, by-path/…, /dev/ttyS0.
    port: Annotated[str, msgspec.Meta(pattern=r"^/[^\x00-\x1f]{1,200}$", description="serial-port")]
    baud: Annotated[int, msgspec.Meta(ge=300, le=4_000_000)] = 9600  # bit/s
    #: Data bits, parity (None Even Odd Mark Space), stop bits.
    format: Annotated[
        str, msgspec.Meta(pattern=r"^[5-8][NEOMS][12]$", description="serial-format")
    ] = "8N1"
    flow: Literal["none", "rtscts", "xonxoff", "dsrdtr"] = "none"


class LengthTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`framing.length`: a number in the frame tells how long it is."""

    offset: _Offset  # of the number, from the frame's first byte
    size: Annotated[int, msgspec.Meta(ge=1, le=4)] = 1  # bytes
    order: Literal["big", "little"] = "big"
    adjust: Annotated[int, msgspec.Meta(ge=-8192, le=8192)] = 0  # whole frame = number + adjust


class CheckTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`framing.check`: see `devices.checksums` for the kinds."""

    kind: Kind
    form: Literal["binary", "hex"] = "binary"
    order: Literal["big", "little"] = "big"  # of the two bytes of a CRC-16
    over: Literal["bytes", "hex"] = "bytes"  # hex: the data are digits, their bytes are meant
    place: Literal["before_end", "after_end"] = "before_end"
    first: _Offset | None = None  # covered from this byte of the frame; else behind the start
    with_end: bool = False  # after_end: the end is covered, too


class FramingTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`framing`: how the line is cut into frames."""

    start: Bytes | None = None
    end: list[Bytes] = []  # any of these; none, and no fixed or length: a quiet line
    fixed: Annotated[int, msgspec.Meta(ge=1, le=8192)] | None = None  # bytes of the body
    length: LengthTable | None = None
    check: CheckTable | None = None
    strip: list[Bytes] = []  # "hex:02 ?? 31": replies glued to data, ?? is any byte
    max: Annotated[int, msgspec.Meta(ge=2, le=8192)] = 512  # bytes of a whole frame
    idle: Duration = Duration.parse("200ms")  # quiet for so long: the unfinished stays so


class MessageTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`message`: what stands in a frame. Its fields are the paths of `map`; `text` is the whole."""

    encoding: Literal["ascii", "utf-8", "gbk", "gb18030", "utf-16le", "hex"] = "ascii"
    part: Annotated[list[_Offset], msgspec.Meta(min_length=2, max_length=2)] | None = None
    pattern: Annotated[str, msgspec.Meta(min_length=1, max_length=500)] | None = None  # (?P<name>…)
    separator: Annotated[str, msgspec.Meta(min_length=1, max_length=8)] | None = None
    fields: list[Text] = []  # names between the separators, "-" for what nobody wants
    slices: dict[str, list[int]] = {}  # name = [first character, number of characters]
    identity_number: Text | None = None  # a field that may hold one: adds region, age_band, sex


class ReplyTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`reply`: what a reader waits for; sent after the commit, never before."""

    accepted: Bytes  # may name fields of the message: "\u0006{id}\r"
    refused: Bytes | None = None  # what was not understood; without it, silence
    #: The same frame again within this may be the same event (class B).
    resend: Duration = Duration.parse("60s")


class PollStep(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One question and the beginning of the answer that leads on."""

    send: Bytes
    expect: Bytes


class PollTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`poll`: for readers that speak only when asked; the last step's answer is the message."""

    every: Duration = Duration.parse("500ms")
    timeout: Duration = Duration.parse("2s")
    steps: Annotated[list[PollStep], msgspec.Meta(min_length=1, max_length=8)]


class SerialPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`policy`: what to do when the reader repeats itself or falls silent."""

    dedup_key: list[Text] = []  # fields that are the event's id: class A, if the reader waits
    repeat_window: Duration | None = None  # the same code again within this is one scan
    repeat_by: list[Text] = []  # fields that are the code; else the whole text
    #: What becomes of it; it is counted in any case. Else: dropped, unless its number is another.
    repeat_as: Literal["drop", "flag"] | None = None
    silence_alarm: Duration | None = None
    urgent: bool = False  # seal each message at once


class SerialDevice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[device]]` with a profile `serial_line/…`."""

    id: Name
    profile: Text
    resource: Name
    pack: Text | None = None  # else the pack of [[resource]]
    connection: SerialConnection
    framing: FramingTable = FramingTable()
    message: MessageTable = MessageTable()
    reply: ReplyTable | None = None
    poll: PollTable | None = None
    time: TimeTable = TimeTable()
    map: dict[str, FieldMap]
    policy: SerialPolicy = SerialPolicy()


def bytes_of(text: str) -> bytes:
    """The bytes that a technician wrote; raises ValueError for what is none."""
    if text.startswith("hex:"):
        return bytes.fromhex(text.removeprefix("hex:"))
    return text.encode("latin-1")


def pattern_of(text: str) -> tuple[int | None, ...]:
    """Bytes with `??` for any byte; raises ValueError."""
    if not text.startswith("hex:"):
        return tuple(bytes_of(text))
    digits = "".join(text.removeprefix("hex:").split())
    pairs = [digits[at : at + 2] for at in range(0, len(digits), 2)]
    return tuple(None if one == "??" else bytes.fromhex(one)[0] for one in pairs)


def names() -> list[str]:
    """The profiles that ship with us."""
    folder = resources.files("devices.serial_line") / "profiles"
    return sorted(
        one.name.removesuffix(".toml") for one in folder.iterdir() if one.name.endswith(".toml")
    )


@cache
def profile(name: str) -> Mapping[str, Any]:
    """What a profile says; raises FileNotFoundError if there is none of that name."""
    file = resources.files("devices.serial_line") / "profiles" / f"{name}.toml"
    return tomllib.loads(file.read_text("utf-8"))


def filled_in(table: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """A device's table over its profile: keys of the inner tables one by one, fields whole."""
    found = dict(base)
    for key, value in table.items():
        under = base.get(key)
        both = isinstance(value, Mapping) and isinstance(under, Mapping)
        found[key] = {**under, **value} if both and under is not None else value
    return found
