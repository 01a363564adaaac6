"""A `[[device]]` entry of JSON topics, checked and compiled: what its decoder needs to know."""

from dataclasses import dataclass

from devices.document import Steps, TimeRule, compile_time
from devices.driver import DEVICE_CHARS_MAX, Promise
from devices.mapping import Compiled, Mapping_, compile_map, steps_of
from devices.mqtt.config import JsonDevice, OnlyTable
from devices.mqtt.topics import problem_of
from protocol.packs import Pack
from protocol.program.walk import Walk

#: In paths: the message itself, where they begin at an item of it.
WHOLE = "$"


@dataclass(frozen=True, slots=True)
class Only:
    """Which messages of a shared topic are this entry's."""

    steps: Steps
    equals: frozenset[str | int | float | bool]


@dataclass(frozen=True, slots=True)
class JsonSource:
    """One entry, ready to decode."""

    id: str
    resource: str
    pack: str
    broker: str
    topic: str
    qos: int
    mapping: Mapping_
    counters: tuple[Compiled, ...]  # the fields that are totals
    promise: Promise
    dedup_steps: tuple[Steps, ...]
    time: TimeRule
    each: Steps | None  # where the array stands whose items are records
    only: Only | None
    device_level: int | None
    devices: frozenset[str] | None
    known_keys: frozenset[str]  # top-level keys that the map knows
    quarantine_unknown: bool
    personal: bool  # the messages hold what the map replaces by pseudonyms
    has_window: bool
    urgent: bool
    repeat_memory: int
    silence_us: int | None

    def device_of(self, topic: str) -> str | None:
        """The device that a topic speaks of; None if it is not one that we know."""
        if self.device_level is None:
            return self.id
        levels = topic.split("/")
        name = levels[self.device_level] if self.device_level < len(levels) else ""
        if not name or len(name) > DEVICE_CHARS_MAX or not name.isprintable():
            return None
        return name if self.devices is None or name in self.devices else None


def compile_source(
    table: JsonDevice, pack: Pack, *, site_zone: str, walk: Walk, path: str
) -> JsonSource | None:
    """Check one entry against its pack and compile it; None if `walk` has new problems."""
    before = len(walk.problems)
    mapping = compile_map(table.map, pack, walk, f"{path}.map")
    time = compile_time(table.time, site_zone=site_zone, walk=walk, path=f"{path}.time")
    wrong = problem_of(table.connection.topic)
    if wrong is not None:
        walk.add(f"{path}.connection.topic", wrong, table.connection.topic)
    _check_level(table, walk, path)
    counters = tuple(one for one in mapping if one.counter is not None)
    if table.each is not None and counters:
        # Of one device the newest total counts; nobody knows whose an item of an array is.
        walk.add(f"{path}.each", "each-with-counter", table.each)
    if len(walk.problems) > before or time is None:
        return None
    return JsonSource(
        id=table.id,
        resource=table.resource,
        pack=pack.id,
        broker=table.connection.mqtt,
        topic=table.connection.topic,
        qos=table.connection.qos,
        mapping=mapping,
        counters=counters,
        promise=_promise(table, counters),
        dedup_steps=tuple(steps_of(one) for one in table.policy.dedup_key),
        time=time,
        each=_each(table.each),
        only=_only(table.only),
        device_level=table.connection.device_level,
        devices=None if table.connection.devices is None else frozenset(table.connection.devices),
        known_keys=_known_keys(table),
        quarantine_unknown=table.policy.unknown_field == "quarantine",
        personal=any(one.transform is not None for one in mapping),
        has_window="window_start" in {one.name for one in pack.fields},
        urgent=table.policy.urgent,
        repeat_memory=table.policy.repeat_memory,
        silence_us=int(table.policy.silence_alarm) if table.policy.silence_alarm else None,
    )


def _promise(table: JsonDevice, counters: tuple[Compiled, ...]) -> Promise:
    if counters:
        return Promise.D
    if table.connection.qos == 0:
        return Promise.C
    return Promise.A if table.policy.dedup_key else Promise.B


def _check_level(table: JsonDevice, walk: Walk, path: str) -> None:
    levels = table.connection.topic.split("/")
    at = table.connection.device_level
    if at is not None and "#" not in levels and (at >= len(levels) or levels[at] != "+"):
        walk.add(f"{path}.connection.device_level", "device-level", at, topic="/".join(levels))
    if table.connection.devices is not None and at is None:
        walk.add(f"{path}.connection.devices", "devices-without-level", None)


def _only(table: OnlyTable | None) -> Only | None:
    return None if table is None else Only(steps_of(table.path), frozenset(table.equals))


def _each(path: str | None) -> Steps | None:
    return None if path is None else () if path == WHOLE else steps_of(path)


def _known_keys(table: JsonDevice) -> frozenset[str]:
    paths = [one.path for one in table.map.values() if one.path]
    paths += [*table.policy.dedup_key, table.time.device or ""]
    paths += [table.only.path] if table.only else []
    return frozenset(path.partition(".")[0] for path in paths)
