"""What a configuration comes to: settings, resources with their packs, and drivers to be made.

`read` finds the problems of all of it at once: the agent's options, the driver tables (decoded by
`devices.loader`), and what resources and domain packs have to do with each other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agent.host.config import check_together, resource_paths
from agent.host.faults import Exit, Fault
from agent.host.settings import AgentConfig, ResourceTable, SiteTable
from agent.host.version import SOFTWARE
from agent.store.ports import CoreSettings, ResourceSettings
from devices.driver import Promise
from devices.loader import TABLES, DriverPlan, Loaded, load_devices
from devices.packs import load_packs
from protocol.grades import effective, more_open, parse_grade, parse_secrecy, rules
from protocol.packs import Pack
from protocol.program.settings import FILE_BYTES_MAX, ConfigProblems, parse
from protocol.program.walk import Problem, Walk

DEFAULT_FILE: Final = Path("/etc/shanmen/agent.toml")


@dataclass(frozen=True, slots=True)
class Plan:
    """A configuration without problems, ready to be put together by `service.py`."""

    file: Path
    config: AgentConfig
    resources: tuple[ResourceSettings, ...]
    drivers: tuple[DriverPlan, ...]
    promises: Mapping[str, Promise]  # of each resource that devices feed

    @property
    def folder(self) -> Path:
        """The data folder."""
        return Path(self.config.data)

    @property
    def devices(self) -> int:
        """How many devices the drivers speak for."""
        return sum(len(driver.devices) for driver in self.drivers)


def read_file(path: Path) -> Plan:
    """Read a configuration file. Raises Fault if it cannot be read, ConfigProblems."""
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError as error:
        raise Fault(Exit.CONFIG, "config-missing", file=path) from error
    except OSError as error:
        raise Fault(Exit.CONFIG, "config-unreadable", file=path, reason=error) from error
    return read(raw, path)


def read(text: bytes | str, path: Path) -> Plan:
    """Decode and check a configuration. Raises ConfigProblems with all problems."""
    document = parse(text, str(path))
    packs = load_packs()
    walk = Walk()
    own = {name: value for name, value in document.items() if name not in TABLES}
    config = walk.struct(own, AgentConfig)
    # Drivers are looked at even if the agent's own options are wrong: one visit, not two.
    found = load_devices(
        document,
        packs,
        declared=_declared(document),
        site_zone=walk.found.get("site.timezone", SiteTable().timezone),
        folder=path.parent,
    )
    problems = [*walk.problems, *check_together(walk.found)]
    for where in resource_paths(walk.found):
        problems += _check_resource(where, walk.found, packs)
    problems += found.problems
    if problems or config is None:
        raise ConfigProblems(str(path), problems)
    return Plan(
        file=path,
        config=config,
        resources=_resources(config, found, packs),
        drivers=tuple(found.drivers),
        promises={name: use.promise for name, use in found.resources.items()},
    )


def core_settings(plan: Plan) -> CoreSettings:
    """The budgets and rhythms as the core wants them."""
    config = plan.config
    return CoreSettings(
        resources=plan.resources,
        feeds={driver.name: tuple(driver.resources) for driver in plan.drivers},
        budget_bytes=int(config.storage.budget),
        vault_budget_bytes=int(config.storage.vault_budget),
        commit_delay_s=config.storage.commit_delay.seconds,
        seal_records=config.seal.records,
        seal_age_s=config.seal.age.seconds,
        live_age_s=config.seal.live_age.seconds,
        epoch_us=int(config.seal.epoch),
        lateness_us=int(config.seal.lateness),
        grace_s=config.storage.keep_after_receipt.seconds,
        software=SOFTWARE,
    )


def _declared(document: Mapping[str, Any]) -> dict[str, str]:
    """Packs of `[[resource]]` tables as far as they can be read; their problems are told apart."""
    tables = document.get("resource")
    if not isinstance(tables, list):
        return {}
    pairs = [(one.get("id"), one.get("pack")) for one in tables if isinstance(one, dict)]
    return {name: pack for name, pack in pairs if isinstance(name, str) and isinstance(pack, str)}


def _check_resource(
    where: str, found: Mapping[str, Any], packs: Mapping[str, Pack]
) -> list[Problem]:
    """A resource against its pack: 就高从严, the configuration can only protect more."""
    problems: list[Problem] = []
    name, wanted = found.get(f"{where}.pack"), found.get(f"{where}.grade")
    secrecy = found.get(f"{where}.secrecy")
    pack = packs.get(name) if name is not None else None
    if name is not None and pack is None:
        known = {"known": ", ".join(packs), "value": f'"{name}"'}
        problems.append(Problem(f"{where}.pack", "unknown-pack", f'"{name}"', known))
    if wanted is None:
        return problems
    grade = parse_grade(wanted)
    if pack is not None and more_open(grade, pack.grade):
        fields = {"pack": pack.id, "default": rules(pack.grade).name_en}
        return [Problem(f"{where}.grade", "grade-opens", f'"{wanted}"', fields)]
    if secrecy is not None and effective(grade, parse_secrecy(secrecy)) is not grade:
        problems.append(Problem(f"{where}.grade", "secrecy-grade", f'"{secrecy}"', {}))
    return problems


def _resources(
    config: AgentConfig, found: Loaded, packs: Mapping[str, Pack]
) -> tuple[ResourceSettings, ...]:
    """Every resource: the declared ones, then those that only a device names."""
    declared = [_settings(table, packs[table.pack]) for table in config.resource]
    names = {one.local for one in declared}
    implied = [use for use in found.resources.values() if use.name not in names]
    declared += [ResourceSettings(local=use.name, pack=packs[use.pack]) for use in implied]
    return tuple(declared)


def _settings(table: ResourceTable, pack: Pack) -> ResourceSettings:
    place = table.coordinates
    return ResourceSettings(
        local=table.id,
        pack=pack,
        grade=None if table.grade is None else parse_grade(table.grade),
        secrecy=parse_secrecy(table.secrecy),
        name_zh=table.name_zh or "",
        name_en=table.name_en or "",
        description=table.description,
        place=table.place,
        coordinates=None if place is None else (place.longitude, place.latitude),
        region=table.region or "",
        producer=table.producer,
        provider=table.provider,
        user_policy=table.user_policy,
        data_type=table.data_type,
        classification=dict(table.classification),
        segment_age_s=None if table.segment_age is None else table.segment_age.seconds,
    )
