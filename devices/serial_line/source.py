"""A `[[device]]` table of a serial line, checked and compiled: what decoder and shell need."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Final

from devices.document import Steps, TimeRule, compile_time
from devices.driver import Promise
from devices.framing import Check, Framing, LengthField
from devices.mapping import Mapping_, compile_map, steps_of
from devices.serial_line.config import (
    FramingTable,
    ReplyTable,
    SerialDevice,
    bytes_of,
    pattern_of,
)
from devices.serial_line.message import MessageRule
from devices.serial_line.poll import PollRule, Step
from protocol.packs import Pack
from protocol.program.walk import Walk

#: Names that the kernel gives in order of plugging: the next restart may swap two gates (R50).
_UNSTABLE: Final = re.compile(r"/dev/tty(USB|ACM)\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to open the port."""

    port: str
    baud: int
    bits: int
    parity: str  # N E O M S
    stop_bits: int
    flow: str  # none rtscts xonxoff dsrdtr


@dataclass(frozen=True, slots=True)
class Reply:
    """What a reader waits for."""

    accepted: bytes
    refused: bytes | None
    fields: tuple[str, ...]  # of the message, named by `accepted`
    encoding: str
    resend_us: int

    def accept(self, document: Mapping[str, object] | None) -> bytes | None:
        """The bytes that accept a message; None if it lacks what they must name."""
        if not self.fields:
            return self.accepted
        if document is None or any(document.get(name) is None for name in self.fields):
            return None
        filled = self.accepted
        for name in self.fields:
            value = str(document[name]).encode(self.encoding)
            filled = filled.replace(b"{%s}" % name.encode(), value)
        return filled


@dataclass(frozen=True, slots=True)
class SerialSource:
    """One reader, ready to run."""

    id: str
    resource: str
    pack: str
    settings: Settings
    framing: Framing
    idle_us: int
    message: MessageRule
    mapping: Mapping_
    time: TimeRule
    reply: Reply | None
    poll: PollRule | None
    dedup_steps: tuple[Steps, ...]
    repeat_steps: tuple[Steps, ...]
    repeat_us: int | None
    keeps_repeats: bool | None  # as records with REPEAT; None: those with a number of their own
    silence_us: int | None
    urgent: bool

    @property
    def promise(self) -> Promise:
        """C: cannot be asked again. A reader that waits: A with an id in the message, else B."""
        if self.reply is None:
            return Promise.C
        return Promise.A if self.dedup_steps else Promise.B

    @property
    def is_personal(self) -> bool:
        """Whether messages hold what the map replaces by pseudonyms, or drops."""
        hides = any(one.transform is not None for one in self.mapping)
        return hides or self.message.identity_number is not None


def compile_serial(
    table: SerialDevice, pack: Pack, *, site_zone: str, walk: Walk, path: str
) -> SerialSource | None:
    """Check one table against its pack and compile it; None if `walk` has new problems."""
    before = len(walk.problems)
    if _UNSTABLE.fullmatch(table.connection.port):
        walk.add(f"{path}.connection.port", "port-not-stable", table.connection.port)
    mapping = compile_map(table.map, pack, walk, f"{path}.map")
    for one in mapping:
        if one.counter is not None:
            walk.add(f"{path}.map.{one.name}.counter", "no-counters-here", None)
    time = compile_time(table.time, site_zone=site_zone, walk=walk, path=f"{path}.time")
    framing = _framing(table.framing, walk, f"{path}.framing")
    message = _message(table, pack, walk, f"{path}.message")
    reply = _reply(table.reply, table.message.encoding, walk, f"{path}.reply")
    poll = _poll(table, walk, f"{path}.poll")
    if framing is None or message is None or time is None or len(walk.problems) > before:
        return None
    _check_names(table, message, reply, walk, path)
    if len(walk.problems) > before:
        return None
    policy = table.policy
    return SerialSource(
        id=table.id,
        resource=table.resource,
        pack=pack.id,
        settings=_settings(table),
        framing=framing,
        idle_us=int(table.framing.idle),
        message=message,
        mapping=mapping,
        time=time,
        reply=reply,
        poll=poll,
        dedup_steps=tuple(steps_of(one) for one in policy.dedup_key),
        repeat_steps=tuple(steps_of(one) for one in policy.repeat_by or ["text"]),
        repeat_us=int(policy.repeat_window) if policy.repeat_window else None,
        keeps_repeats=None if policy.repeat_as is None else policy.repeat_as == "flag",
        silence_us=int(policy.silence_alarm) if policy.silence_alarm else None,
        urgent=policy.urgent,
    )


def _settings(table: SerialDevice) -> Settings:
    connection = table.connection
    bits, parity, stop = tuple(connection.format)
    return Settings(
        port=connection.port,
        baud=connection.baud,
        bits=int(bits),
        parity=parity,
        stop_bits=int(stop),
        flow=connection.flow,
    )


def _bytes(text: str, walk: Walk, path: str) -> bytes:
    try:
        return bytes_of(text)
    except ValueError:
        walk.add(path, "impossible", text, expected="bytes")
        return b""


def _framing(table: FramingTable, walk: Walk, path: str) -> Framing | None:
    before = len(walk.problems)
    start = _bytes(table.start, walk, f"{path}.start") if table.start else b""
    ends = tuple(_bytes(one, walk, f"{path}.end") for one in table.end)
    strip: list[tuple[int | None, ...]] = []
    for one in table.strip:
        try:
            strip.append(pattern_of(one))
        except ValueError:
            walk.add(f"{path}.strip", "impossible", one, expected="bytes")
    if len(walk.problems) > before:
        return None
    length = _length(table)
    try:
        framing = Framing(
            start=start,
            ends=ends,
            fixed=table.fixed,
            length=length,
            check=_check(table),
            strip=tuple(strip),
            max_bytes=table.max,
        )
    except ValueError as error:
        walk.add(path, "framing-contradicts", None, expected=str(error))
        return None
    least = len(start) + (table.fixed or 1) + (framing.check.size if framing.check else 0)
    if table.max < least:
        walk.add(f"{path}.max", "too-small", table.max, least=str(least))
    return framing


def _length(table: FramingTable) -> LengthField | None:
    one = table.length
    return None if one is None else LengthField(one.offset, one.size, one.order, one.adjust)


def _check(table: FramingTable) -> Check | None:
    one = table.check
    if one is None:
        return None
    return Check(
        kind=one.kind,
        form=one.form,
        order=one.order,
        over=one.over,
        place=one.place,
        first=one.first,
        with_end=one.with_end,
    )


def _message(table: SerialDevice, pack: Pack, walk: Walk, path: str) -> MessageRule | None:
    message, before = table.message, len(walk.problems)
    ways = (message.pattern is not None, message.separator is not None, bool(message.slices))
    if sum(ways) > 1:
        walk.add(path, "one-way-to-fields", None)
    if (message.separator is None) != (not message.fields):
        walk.add(f"{path}.fields", "separator-and-fields", None)
    for name, cut in message.slices.items():
        if len(cut) != 2 or min(cut) < 0:
            walk.add(f"{path}.slices.{name}", "impossible", cut, expected="slice")
    pattern = None
    if message.pattern is not None:
        try:
            pattern = re.compile(message.pattern)
        except re.error as error:
            walk.add(f"{path}.pattern", "bad-pattern", message.pattern, reason=str(error))
    if len(walk.problems) > before:
        return None
    return MessageRule(
        encoding=message.encoding,
        part=(message.part[0], message.part[1]) if message.part else None,
        pattern=pattern,
        separator=message.separator,
        fields=tuple(message.fields),
        slices={name: (cut[0], cut[1]) for name, cut in message.slices.items()},
        numbers=_numbers(table, pack),
        identity_number=message.identity_number,
    )


def _numbers(table: SerialDevice, pack: Pack) -> frozenset[str]:
    """Fields of the message that the map, or the time, reads as numbers."""
    types = {one.name: one.type for one in pack.fields}
    found = {
        one.path
        for name, one in table.map.items()
        if one.path and one.codes is None and types.get(name) in {"int", "float", "time"}
    }
    if table.time.device is not None and table.time.format != "iso":
        found.add(table.time.device)
    return frozenset(found)


def _reply(table: ReplyTable | None, encoding: str, walk: Walk, path: str) -> Reply | None:
    if table is None:
        return None
    accepted = _bytes(table.accepted, walk, f"{path}.accepted")
    refused = _bytes(table.refused, walk, f"{path}.refused") if table.refused else None
    fields: list[str] = []
    if not table.accepted.startswith("hex:"):
        try:
            fields = [name for _, name, spec, how in Formatter().parse(table.accepted)
                      if name is not None and not spec and not how]  # fmt: skip
        except ValueError:
            walk.add(f"{path}.accepted", "impossible", table.accepted, expected="bytes")
    into = "ascii" if encoding == "hex" else encoding
    return Reply(accepted, refused, tuple(fields), into, int(table.resend))


def _poll(table: SerialDevice, walk: Walk, path: str) -> PollRule | None:
    if table.poll is None:
        return None
    if table.reply is not None:
        walk.add(path, "poll-and-reply", None)
    steps = tuple(
        Step(
            _bytes(one.send, walk, f"{path}.steps[{at}].send"),
            _bytes(one.expect, walk, f"{path}.steps[{at}].expect"),
        )
        for at, one in enumerate(table.poll.steps)
    )
    return PollRule(steps, int(table.poll.every), int(table.poll.timeout))


def _check_names(
    table: SerialDevice, message: MessageRule, reply: Reply | None, walk: Walk, path: str
) -> None:
    """Every field that is asked for is one that the message has."""
    known = message.names
    wanted = [(f"map.{name}.path", one.path) for name, one in table.map.items() if one.path]
    wanted += [("policy.dedup_key", one) for one in table.policy.dedup_key]
    wanted += [("policy.repeat_by", one) for one in table.policy.repeat_by]
    wanted += [("reply.accepted", one) for one in reply.fields] if reply else []
    for where, one in (
        ("time.device", table.time.device),
        ("message.identity_number", message.identity_number),
    ):
        wanted += [(where, one)] if one else []
    for where, name in wanted:
        if name not in known:
            walk.add(f"{path}.{where}", "not-in-message", name, known=", ".join(sorted(known)))
