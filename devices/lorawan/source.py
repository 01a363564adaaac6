"""A `[[device]]` entry of LoRaWAN sensors, checked and compiled."""

import csv
import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import tzinfo
from typing import Final

from devices.counting import CounterRule, minutes_of_day
from devices.lorawan.config import LorawanDevice
from devices.lorawan.profile import Profile, names, profile
from devices.mqtt.topics import problem_of
from devices.times import zone_of
from protocol.packs import Pack
from protocol.program.walk import Walk, nearest

_EUI: Final = re.compile(r"[0-9a-f]{16}")
#: Largest list of sensors: 10,000 bays.
FILE_BYTES_MAX: Final = 1 << 20
_LABEL_CHARS_MAX: Final = 32
#: The field that a sensor's label fills.
LABEL_FIELDS: Final = {"parking.bay": "bay_no", "visitor.passage": "line_id"}
_EXTRA: Final = {"parking.bay": ("floor", "bay_kind")}


@dataclass(frozen=True, slots=True)
class LorawanSource:
    """One entry, ready to decode."""

    id: str
    resource: str
    pack: str
    broker: str
    topic: str
    codec: Profile
    sensors: Mapping[str, Mapping[str, str]]  # EUI -> fields known of it: label, floor, kind
    constants: Mapping[str, str]
    health: str
    link: str
    heartbeat_recorded: bool
    occupied_below: int | None
    stale_us: int
    counter: CounterRule
    invert: bool
    zone: tzinfo

    @property
    def resources(self) -> dict[str, str]:
        """Local names of the resources that the sensors feed, with their packs."""
        fed = {self.resource: self.pack}
        if self.health:
            fed[self.health] = "device.health"
        if self.link:
            fed[self.link] = "device.link"
        return fed


def codec_of(name: str, *, walk: Walk, path: str) -> Profile | None:
    """The codec that a `profile` names; None and a problem if there is none."""
    codec = profile(name.removeprefix("lorawan/"))
    if codec is not None and codec.pack is not None:
        return codec
    known = [f"lorawan/{one}" for one in names()]
    near = nearest(name, known)
    if near:
        walk.add(f"{path}.profile", "unknown-codec-near", name, near=near)
    else:
        walk.add(f"{path}.profile", "unknown-codec", name, known=", ".join(known))
    return None


def compile_lorawan(
    table: LorawanDevice,
    codec: Profile,
    pack: Pack,
    *,
    site_zone: str,
    read_text: Callable[[str], str],
    walk: Walk,
    path: str,
) -> LorawanSource | None:
    """Check one entry and compile it; None if `walk` has new problems."""
    before = len(walk.problems)
    if codec.pack != pack.id:
        walk.add(f"{path}.pack", "codec-pack", pack.id, codec=codec.id, pack=codec.pack or "")
    wrong = problem_of(table.connection.topic)
    if wrong is not None:
        walk.add(f"{path}.connection.topic", wrong, table.connection.topic)
    sensors = _sensors(table, pack, read_text, walk, f"{path}.connection.dev_eui")
    constants = _constants(table, pack, walk, f"{path}.map")
    if codec.distance is not None and table.policy.occupied_below is None:
        walk.add(f"{path}.policy.occupied_below", "missing", None, expected="mm")
    reset = _reset(table, walk, path)
    zone = zone_of(site_zone)
    if zone is None or len(walk.problems) > before:
        return None
    return LorawanSource(
        id=table.id,
        resource=table.resource,
        pack=pack.id,
        broker=table.connection.mqtt,
        topic=table.connection.topic,
        codec=codec,
        sensors=sensors,
        constants=constants,
        health=table.health,
        link=table.link,
        heartbeat_recorded=table.policy.heartbeat == "record",
        occupied_below=table.policy.occupied_below,
        stale_us=int(table.policy.stale_after),
        counter=CounterRule(wrap=codec.wrap, max_step=codec.max_step, reset_minutes=reset),
        invert=table.policy.invert_direction,
        zone=zone,
    )


def _reset(table: LorawanDevice, walk: Walk, path: str) -> int | None:
    if table.policy.reset == "never":
        return None
    try:
        return minutes_of_day(table.policy.reset)
    except ValueError:
        walk.add(
            f"{path}.policy.reset", "impossible", table.policy.reset, expected="clock-or-never"
        )
        return None


def _constants(table: LorawanDevice, pack: Pack, walk: Walk, path: str) -> dict[str, str]:
    fields = {one.name: one for one in pack.fields}
    found: dict[str, str] = {}
    for name, entry in table.map.items():
        if name not in fields:
            walk.add(f"{path}.{name}", "not-a-field", name, pack=pack.id, known=", ".join(fields))
        elif set(entry) != {"const"} or fields[name].type not in {"string", "code"}:
            walk.add(f"{path}.{name}", "const-only", None)
        elif fields[name].codes and entry["const"] not in fields[name].codes:
            choices = ", ".join(fields[name].codes)
            walk.add(
                f"{path}.{name}", "impossible", entry["const"], expected="one-of", choices=choices
            )
        else:
            found[name] = entry["const"]
    return found


def _sensors(
    table: LorawanDevice, pack: Pack, read_text: Callable[[str], str], walk: Walk, path: str
) -> dict[str, dict[str, str]]:
    given = table.connection.dev_eui
    if isinstance(given, dict):
        rows = [(f"{path}.{eui}", [eui, label]) for eui, label in given.items()]
    elif given.startswith("file:"):
        rows = _file_rows(given, read_text, walk, path)
    else:
        rows = [(path, [given, table.id])]
    label_field = LABEL_FIELDS.get(pack.id, "")
    extra = _EXTRA.get(pack.id, ())
    codes = {one.name: one.codes for one in pack.fields}
    sensors: dict[str, dict[str, str]] = {}
    for where, row in rows:
        eui = row[0].strip().lower().replace(":", "").replace("-", "")
        label = row[1].strip() if len(row) > 1 else ""
        if not _EUI.fullmatch(eui):
            walk.add(where, "impossible", row[0], expected="eui")
        elif eui in sensors:
            walk.add(where, "eui-twice", eui)
        elif not label or len(label) > _LABEL_CHARS_MAX or not label.isprintable():
            walk.add(where, "impossible", label, expected="text", longest=str(_LABEL_CHARS_MAX))
        else:
            more = {k: v.strip() for k, v in zip(extra, row[2:], strict=False) if v.strip()}
            for name, value in more.items():
                if codes[name] and value not in codes[name]:
                    choices = ", ".join(codes[name])
                    walk.add(where, "impossible", value, expected="one-of", choices=choices)
            sensors[eui] = {label_field: label, **more}
    if not rows:
        walk.add(path, "missing", None, expected="one-sensor")
    return sensors


def _file_rows(
    given: str, read_text: Callable[[str], str], walk: Walk, path: str
) -> list[tuple[str, list[str]]]:
    name = given.removeprefix("file:")
    try:
        text = read_text(name)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        walk.add(path, "file-unreadable", given, reason=type(error).__name__)
        return []
    if len(text) > FILE_BYTES_MAX:
        walk.add(path, "file-too-long", given, longest=str(FILE_BYTES_MAX))
        return []
    try:
        lines = list(csv.reader(io.StringIO(text.removeprefix("\ufeff")), strict=True))
    except csv.Error as error:
        walk.add(path, "file-unreadable", given, reason=str(error))
        return []
    return [
        (f"{path}({name}:{at})", line)
        for at, line in enumerate(lines, 1)
        if line and line[0].strip() and not line[0].startswith("#") and line[0].strip() != "dev_eui"
    ]
