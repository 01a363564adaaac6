"""A decoded message of one device -> the values of a record, the same way for all drivers. Pure.

Drivers bring a document (tables, lists, texts, numbers); here its map, its time and its personal
numbers are seen to.
"""

from dataclasses import dataclass
from datetime import tzinfo
from hashlib import blake2b
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from devices.crosscheck import cross_check
from devices.driver import RAW_BYTES_MAX, Rejected
from devices.mapping import Fault, Mapping_, dig, steps_of
from devices.times import Judged, Trust, judge, parse, zone_of
from devices.transforms import local_day, pseudonym, pseudonym_plate
from protocol.program.units import Duration
from protocol.program.walk import Text, Walk
from protocol.records import Value
from protocol.times import Quality

Steps = tuple[str | int, ...]


class TimeTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`time`: where the device's time stands and how far it is believed."""

    device: Text | None = None  # path of the device's time; absent: the gateway's is taken
    format: Literal["iso", "epoch_s", "epoch_ms", "epoch_us"] = "iso"
    zone: Text | None = None  # of times without an offset; else the site's
    trust: Annotated[
        str,
        msgspec.Meta(
            pattern=r"^(never|always|if_within \d{1,9}(ms|s|m|h|d))$",
            description="trust",
        ),
    ] = "if_within 5m"
    future_limit: Duration = Duration.parse("10s")
    bulk_old_ok: bool = True  # older messages were kept back by the broker, or by the device


@dataclass(frozen=True, slots=True)
class TimeRule:
    """A `time` table, ready to use."""

    steps: Steps  # empty: the device tells no time
    style: str
    trust: Trust
    zone: tzinfo  # the device's; days of pseudonyms and counters are the site's, and the same


class Interpreted(NamedTuple):
    """What a document says: values by field, still clear; and what is to be said about them."""

    values: dict[str, Value]
    time: Judged
    quality: int  # marks; int: `|` of two flags runs functions of `enum`
    faults: list[Fault]


def compile_time(table: TimeTable, *, site_zone: str, walk: Walk, path: str) -> TimeRule | None:
    """Check a `time` table; None if its zone is unknown, which `walk` is told."""
    name = table.zone or site_zone
    zone = zone_of(name)
    if zone is None:
        walk.add(f"{path}.zone", "unknown-zone", name)
        return None
    mode, _, within = table.trust.partition(" ")
    trust = Trust(
        mode=mode,
        within_us=int(Duration.parse(within)) if within else 0,
        future_us=int(table.future_limit),
        bulk_old_ok=table.bulk_old_ok,
    )
    return TimeRule(steps_of(table.device) if table.device else (), table.format, trust, zone)


def interpret(
    document: Any, mapping: Mapping_, pack: str, rule: TimeRule, gateway_us: int
) -> Interpreted:
    """Apply map, time and cross-checks. Pseudonyms are `hide`'s, totals are the caller's."""
    values, faults = mapping.values(document)
    time, fault = _time(document, rule, gateway_us)
    if fault is not None:
        faults.append(fault)
    marks, crossed = cross_check(pack, values)
    faults += crossed
    quality = int(time.quality) | int(marks)
    if faults:
        quality |= int(Quality.OUT_OF_RANGE)
    return Interpreted(values, time, quality, faults)


def _time(document: Any, rule: TimeRule, gateway_us: int) -> tuple[Judged, Fault | None]:
    if not rule.steps:
        return judge(None, gateway_us, rule.trust), None
    raw = dig(document, rule.steps)
    device_us = parse(raw, rule.style, rule.zone)
    fault = None
    if device_us is None and raw is not None:
        fault = Fault("time-unreadable", "time", ".".join(map(str, rule.steps)))
    return judge(device_us, gateway_us, rule.trust), fault


def hide(
    mapping: Mapping_, values: dict[str, Value], *, key: bytes, event_us: int, zone: tzinfo
) -> None:
    """Replace what identifies persons by pseudonyms: nothing clear goes on from here."""
    for one in mapping:
        text = values.get(one.name)
        if one.transform is not None and isinstance(text, str):
            if one.transform == "pseudonym_plate":
                values[one.name] = pseudonym_plate(key, text, local_day(event_us, zone))
            else:
                values[one.name] = pseudonym(key, text)


def reject(
    device: str, reason: str, raw: bytes, detail: str, *, personal_key: bytes | None
) -> Rejected:
    """A rejection with the message's bytes; with a keyed trace of them where they are personal.

    personal_key: set where a body may hold the very numbers that the map hides.
    """
    if personal_key is None:
        return Rejected(device=device, reason=reason, raw=raw[:RAW_BYTES_MAX], detail=detail)
    tag = blake2b(raw, digest_size=8, key=personal_key).hexdigest()
    trace = f"{len(raw)} bytes, {tag}"
    return Rejected(device=device, reason=reason, detail=f"{detail}; {trace}" if detail else trace)
