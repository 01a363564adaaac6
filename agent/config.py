"""Decode `agent.toml`: text in, typed structs or every problem at once out; no side effects."""

import ipaddress
import tomllib
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from agent.settings import AS_HUB_SAYS, BOUNDS, WORDS, AgentConfig, HubTable, ResourceTable
from agent.walk import Problem, Walk, show
from devices.loader import TABLES

CONFIG_BYTES_MAX: Final = 4 << 20


class ConfigProblems(Exception):  # noqa: N818 - it is a list of findings, and is shown as one
    """Everything that is wrong with one configuration file, in the order of the file's walk."""

    def __init__(self, file: str, problems: Sequence[Problem]) -> None:
        super().__init__(f"{file}: {len(problems)} problems")
        self.file = file
        self.problems = tuple(problems)


def load(text: bytes | str, *, file: str) -> AgentConfig:
    """Decode and check the agent's own options; the tables of drivers are for `plan.read`.

    Raises ConfigProblems with all problems; nothing else, whatever the text is.
    """
    raw = {name: value for name, value in parse(text, file).items() if name not in TABLES}
    walk = Walk(BOUNDS, WORDS)
    config = walk.struct(raw, AgentConfig)
    problems = list(walk.problems)
    if config is not None:
        problems += check_together(config)
    if problems or config is None:
        raise ConfigProblems(file, problems)
    return config


def parse(text: bytes | str, file: str) -> dict[str, Any]:
    """Read TOML text. Raises ConfigProblems for anything that is not."""
    if len(text) > CONFIG_BYTES_MAX:
        raise ConfigProblems(file, [Problem("", "too-large", "", {"size": str(len(text))})])
    try:
        decoded = text if isinstance(text, str) else text.decode("utf-8-sig")
        return tomllib.loads(decoded)
    except UnicodeDecodeError as error:
        problem = Problem("", "not-utf8", "", {"position": str(error.start)})
    except tomllib.TOMLDecodeError as error:
        # The library's sentence names line and column; it repeats no more than one character.
        problem = Problem("", "not-toml", "", {"where": show(str(error)).strip('"')})
    except RecursionError:
        problem = Problem("", "too-deep", "", {})
    raise ConfigProblems(file, [problem])


def check_together(config: AgentConfig) -> list[Problem]:
    """What no single option can know: options against each other, and plain HTTP."""
    problems = list(_check_url(config.hub))
    if config.hub.retry_min > config.hub.retry_max:
        problems.append(
            Problem(
                "hub.retry_min",
                "above",
                str(config.hub.retry_min),
                {"other": "hub.retry_max", "limit": str(config.hub.retry_max)},
            )
        )
    problems += _check_owner(config.owner)
    problems += _check_resources(config.resource)
    return problems


def _check_url(hub: HubTable) -> list[Problem]:
    try:
        parts = urlsplit(hub.url)
        port_is_valid = parts.port is None or parts.port > 0
        host = parts.hostname
    except ValueError:
        port_is_valid, host = False, None
    if not port_is_valid or not host:
        return [Problem("hub.url", "impossible", show(hub.url), {"expected": "url"})]
    if hub.url.startswith("http://") and not is_loopback(host):
        return [Problem("hub.url", "plain-http", show(hub.url), {"host": host})]
    return []


def is_loopback(host: str) -> bool:
    """Whether a host can only be this machine: the name `localhost` or a loopback address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_owner(owner: str | None) -> list[Problem]:
    from protocol import ids
    from protocol.errors import DecodeError

    if owner is None or owner == AS_HUB_SAYS:
        return []
    try:
        ids.parse(owner)
    except DecodeError:
        return [Problem("owner", "impossible", show(owner), {"expected": "fingerprint"})]
    return []


def _check_resources(resources: Sequence[ResourceTable]) -> list[Problem]:
    problems = []
    first: dict[str, int] = {}
    for index, resource in enumerate(resources):
        where = f"resource[{index}]"
        if resource.id in first:
            fields = {"other": f"resource[{first[resource.id]}]"}
            problems.append(Problem(f"{where}.id", "twice", show(resource.id), fields))
        first.setdefault(resource.id, index)
        if len(resource.classification) > 12:
            fields = {"expected": "dimensions"}
            value = show(resource.classification)
            problems.append(Problem(f"{where}.classification", "impossible", value, fields))
    return problems
