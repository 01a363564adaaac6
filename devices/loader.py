"""From `[[device]]` and `[[mqtt]]` tables to drivers that can be constructed; pure but for files.

Built-in drivers stand in one explicit list; plug-ins come by entry points of the group
`shanmen.drivers`. Every problem of every table is found at once, with key path, value and what
would be right; nothing connects and no driver's library is imported before a table asks for it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Final, Protocol

from devices.driver import Driver, DriverContext, Promise, weakest
from devices.lorawan.config import LorawanDevice
from devices.lorawan.profile import names
from devices.lorawan.source import LorawanSource, codec_of, compile_lorawan
from devices.mqtt.config import JsonDevice, MqttTable
from devices.mqtt.source import JsonSource, compile_source
from devices.mqtt.topics import overlap
from protocol.packs import Pack
from protocol.program.walk import Problem, Walk, nearest

GROUP: Final = "shanmen.drivers"
#: Top-level tables that belong to drivers; all others are the agent's.
TABLES: Final = ("bus", "device", "mqtt")
_JSON: Final = "mqtt/json"
_LORAWAN: Final = "lorawan/"


@dataclass(frozen=True, slots=True)
class ResourceUse:
    """A resource that devices feed: what the agent must know to register it."""

    name: str  # local name
    pack: str
    devices: tuple[str, ...]  # ids of `[[device]]` entries
    promise: Promise  # of its weakest source


@dataclass(frozen=True, slots=True)
class DriverPlan:
    """One driver to run: `make` constructs it and never connects."""

    name: str  # "mqtt/chirpstack": shown in status and logs
    make: Callable[[DriverContext], Driver]
    config: Any
    devices: tuple[str, ...]  # ids that its health reports speak of
    resources: Mapping[str, ResourceUse]


@dataclass(slots=True)
class Loaded:
    """What the tables say: drivers and resources, or the problems."""

    drivers: list[DriverPlan] = field(default_factory=list)
    resources: dict[str, ResourceUse] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


class Plugin(Protocol):
    """What an entry point of the group `shanmen.drivers` names: a callable.

    An entry point `acme` gets all `[[device]]` tables whose profile begins with `acme/`; what it
    needs besides stands in those tables. Problems go to `request.walk`.
    """

    def __call__(
        self, devices: list[tuple[str, Mapping[str, Any]]], request: "Request"
    ) -> Iterable[DriverPlan]:
        """The plans for these `[[device]]` tables, each with its key path."""


@dataclass(slots=True)
class Request:
    """Everything that loading needs from outside."""

    document: Mapping[str, Any]
    packs: Mapping[str, Pack]
    declared: dict[str, str]  # resource -> pack id, as declared or used first
    site_zone: str
    folder: Path
    walk: Walk
    plugins: Mapping[str, EntryPoint]

    def pack_of(self, resource: str, given: str | None, path: str) -> Pack | None:
        """The domain pack of a resource, as its device or `[[resource]]` names it.

        None if `walk` has a new problem; the first device that names a pack decides.
        """
        declared = self.declared.get(resource)
        if given is not None and declared is not None and given != declared:
            self.walk.add(
                f"{path}.pack", "pack-differs", given, resource=resource, declared=declared
            )
            return None
        name = given or declared
        if name is None:
            self.walk.add(f"{path}.pack", "pack-missing", None, resource=resource)
            return None
        if name not in self.packs:
            self.walk.add(f"{path}.pack", "unknown-pack", name, known=", ".join(self.packs))
            return None
        self.declared[resource] = name
        return self.packs[name]

    def read_text(self, name: str) -> str:
        """A file beside the configuration, e.g. the list of sensors; at most 1 MiB is read."""
        with (self.folder / name).open(encoding="utf-8") as file:
            return file.read((1 << 20) + 1)

    def own_pack(self, path: str) -> Pack | None:
        """The pack of a table's resource, looked for even if other options of it are wrong."""
        found = self.walk.found
        resource = found.get(f"{path}.resource")
        if resource is None:
            return None
        return self.pack_of(resource, found.get(f"{path}.pack"), path)


def load_devices(
    document: Mapping[str, Any],
    packs: Mapping[str, Pack],
    *,
    declared: Mapping[str, str] | None = None,
    site_zone: str = "Asia/Shanghai",
    folder: Path = Path(),
) -> Loaded:
    """Decode the tables of drivers in a configuration document.

    declared: pack of each `[[resource]]`. folder: where files named in the tables stand.
    Never raises for what a technician wrote: see `Loaded.problems`.
    """
    walk = Walk()
    plugins = {one.name: one for one in entry_points(group=GROUP) if one.name != "mqtt"}
    request = Request(document, packs, dict(declared or {}), site_zone, folder, walk, plugins)
    tables = _devices(request)
    plans = _mqtt_plans(tables, request)
    plans += _plugin_plans(tables, request)
    loaded = Loaded(problems=walk.problems)
    if not walk.problems:
        loaded.drivers = plans
        for plan in plans:
            for use in plan.resources.values():
                _merge(loaded.resources, use)
    return loaded


def _devices(request: Request) -> list[tuple[str, Mapping[str, Any]]]:
    """All `[[device]]` tables with their key paths; ids are looked at across kinds."""
    raw = request.document.get("device", [])
    if not isinstance(raw, list):
        request.walk.add("device", "wrong-type", raw, expected="tables")
        return []
    seen: set[str] = set()
    found: list[tuple[str, Mapping[str, Any]]] = []
    for at, table in enumerate(raw):
        path = f"device[{at}]"
        if not isinstance(table, Mapping):
            request.walk.add(path, "wrong-type", table, expected="table")
            continue
        name = table.get("id")
        if isinstance(name, str) and name in seen:
            request.walk.add(f"{path}.id", "id-twice", name)
        elif isinstance(name, str):
            seen.add(name)
        profile = table.get("profile")
        if not isinstance(profile, str):
            request.walk.add(f"{path}.profile", "missing", profile, expected="any-text")
        elif not _is_known(profile, request):
            _unknown_profile(request, path, profile)
        else:
            found.append((path, table))
    return found


def _is_known(profile: str, request: Request) -> bool:
    prefix = profile.partition("/")[0]
    return profile == _JSON or profile.startswith(_LORAWAN) or prefix in request.plugins


def _unknown_profile(request: Request, path: str, profile: str) -> None:
    known = [_JSON, *(f"{_LORAWAN}{one}" for one in names())]
    known += [f"{one}/…" for one in request.plugins]
    near = nearest(profile, known)
    if near:
        request.walk.add(f"{path}.profile", "unknown-profile-near", profile, near=near)
    else:
        request.walk.add(f"{path}.profile", "unknown-profile", profile, known=", ".join(known))


def _mqtt_plans(tables: list[tuple[str, Mapping[str, Any]]], request: Request) -> list[DriverPlan]:
    walk = request.walk
    brokers = _brokers(request)
    json: list[JsonSource] = []
    lorawan: list[LorawanSource] = []
    paths: dict[str, str] = {}
    for path, table in tables:
        paths[str(table.get("id"))] = path
        _check_broker(path, table, brokers, walk)
        if table["profile"] == _JSON:
            source = _json(path, table, request)
            if source is not None:
                json.append(source)
        elif table["profile"].startswith(_LORAWAN):
            other = _lorawan(path, table, request)
            if other is not None:
                lorawan.append(other)
    _check_topics(json, lorawan, paths, walk)
    _check_sensors(lorawan, paths, walk)
    if walk.problems:
        return []
    return [_mqtt_plan(one, json, lorawan, request) for one in brokers.values()]


def _check_broker(
    path: str, table: Mapping[str, Any], brokers: Mapping[str, MqttTable], walk: Walk
) -> None:
    connection = table.get("connection")
    broker = connection.get("mqtt") if isinstance(connection, Mapping) else None
    if isinstance(broker, str) and broker not in brokers:
        known = ", ".join(brokers) or "[[mqtt]]"
        walk.add(f"{path}.connection.mqtt", "unknown-broker", broker, known=known)


def _brokers(request: Request) -> dict[str, MqttTable]:
    raw = request.document.get("mqtt", [])
    if not isinstance(raw, list):
        request.walk.add("mqtt", "wrong-type", raw, expected="tables")
        return {}
    found: dict[str, MqttTable] = {}
    clients: set[tuple[str, str]] = set()
    for at, table in enumerate(raw):
        one = request.walk.struct(table, MqttTable, f"mqtt[{at}]")
        if one is None:
            # Its id still counts, or each of its devices would be reported as well.
            if isinstance(table, Mapping) and isinstance(table.get("id"), str):
                found[table["id"]] = MqttTable(id=table["id"], url="mqtt://-", client_id="-")
            continue
        if one.id in found:
            request.walk.add(f"mqtt[{at}].id", "id-twice", one.id)
        if (one.url, one.client_id) in clients:
            request.walk.add(f"mqtt[{at}].client_id", "client-twice", one.client_id)
        if one.certificate is None and one.key is not None:
            request.walk.add(f"mqtt[{at}].certificate", "missing", None, expected="pem")
        clients.add((one.url, one.client_id))
        found[one.id] = one
    return found


def _json(path: str, raw: Mapping[str, Any], request: Request) -> JsonSource | None:
    table = request.walk.struct(raw, JsonDevice, path)
    pack = request.own_pack(path)
    if table is None or pack is None:
        return None
    return compile_source(table, pack, site_zone=request.site_zone, walk=request.walk, path=path)


def _lorawan(path: str, raw: Mapping[str, Any], request: Request) -> LorawanSource | None:
    codec = codec_of(raw["profile"], walk=request.walk, path=path)
    table = request.walk.struct(raw, LorawanDevice, path)
    pack = request.own_pack(path)
    if table is None or codec is None:
        return None
    for key, name in (("health", table.health), ("link", table.link)):
        if name and request.pack_of(name, f"device.{key}", f"{path}.{key}") is None:
            return None
    if pack is None:
        return None
    return compile_lorawan(
        table,
        codec,
        pack,
        site_zone=request.site_zone,
        read_text=request.read_text,
        walk=request.walk,
        path=path,
    )


def _check_topics(
    json: list[JsonSource], lorawan: list[LorawanSource], paths: Mapping[str, str], walk: Walk
) -> None:
    """A message has one owner: entries may share topics only where `only` tells them apart."""
    for at, one in enumerate(json):
        where = f"{paths[one.id]}.connection.topic"
        for other in json[at + 1 :]:
            if (
                one.broker == other.broker
                and overlap(one.topic, other.topic)
                and (one.only is None or other.only is None)
            ):
                walk.add(where, "topic-twice", one.topic, other=other.id)
        for sensor in lorawan:
            if one.broker == sensor.broker and overlap(one.topic, sensor.topic):
                walk.add(where, "topic-twice", one.topic, other=sensor.id)


def _check_sensors(lorawan: list[LorawanSource], paths: Mapping[str, str], walk: Walk) -> None:
    owners: dict[tuple[str, str], str] = {}
    for one in lorawan:
        for eui in one.sensors:
            owner = owners.setdefault((one.broker, eui), one.id)
            if owner != one.id:
                where = f"{paths[one.id]}.connection.dev_eui"
                walk.add(where, "eui-in-two-devices", eui, other=owner)


def _mqtt_plan(
    table: MqttTable, json: list[JsonSource], lorawan: list[LorawanSource], request: Request
) -> DriverPlan:
    from devices.mqtt.plan import MqttConfig, make

    config = MqttConfig(
        table=table,
        json=tuple(one for one in json if one.broker == table.id),
        lorawan=tuple(one for one in lorawan if one.broker == table.id),
        folder=str(request.folder),
    )
    uses: dict[str, ResourceUse] = {}
    for source in config.json:
        _merge(uses, ResourceUse(source.resource, source.pack, (source.id,), source.promise))
    for sensor in config.lorawan:
        for name, pack in sensor.resources.items():
            _merge(uses, ResourceUse(name, pack, (sensor.id,), Promise.A))
    devices = [table.id, *(one.id for one in config.json)]
    devices += [eui for one in config.lorawan for eui in one.sensors]
    return DriverPlan(
        name=f"mqtt/{table.id}",
        make=lambda context: make(config, context),
        config=config,
        devices=tuple(devices),
        resources=uses,
    )


def _merge(uses: dict[str, ResourceUse], use: ResourceUse) -> None:
    known = uses.get(use.name)
    if known is None:
        uses[use.name] = use
        return
    weaker = weakest((known.promise, use.promise))
    devices = tuple(dict.fromkeys((*known.devices, *use.devices)))
    uses[use.name] = ResourceUse(use.name, known.pack, devices, weaker)


def _plugin_plans(
    tables: list[tuple[str, Mapping[str, Any]]], request: Request
) -> list[DriverPlan]:
    plans: list[DriverPlan] = []
    for name, entry in request.plugins.items():
        own = [(path, table) for path, table in tables if table["profile"].startswith(f"{name}/")]
        if own:
            plugin: Plugin = entry.load()
            plans += plugin(own, request)
    return plans
