"""Decode `agent.toml`: text in, typed structs or every problem at once out; no side effects."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from agent.host.settings import AS_HUB_SAYS, AgentConfig
from devices.loader import TABLES
from protocol.program.hosts import is_loopback
from protocol.program.settings import ConfigProblems, parse
from protocol.program.walk import Problem, Walk, show


def load(text: bytes | str, *, file: str) -> AgentConfig:
    """Decode and check the agent's own options; the tables of drivers are for `plan.read`.

    Raises ConfigProblems with all problems; nothing else, whatever the text is.
    """
    raw = {name: value for name, value in parse(text, file).items() if name not in TABLES}
    walk = Walk()
    config = walk.struct(raw, AgentConfig)
    problems = [*walk.problems, *check_together(walk.found)]
    if problems or config is None:
        raise ConfigProblems(file, problems)
    return config


def check_together(found: Mapping[str, Any]) -> list[Problem]:
    """What no single option can know: options against each other, and plain HTTP.

    found: what decoded, by key path (`Walk.found`); an option that did not is checked no further.
    """
    problems = _check_url(found["hub.url"]) if "hub.url" in found else []
    shortest, longest = found.get("hub.retry_min"), found.get("hub.retry_max")
    if shortest is not None and longest is not None and shortest > longest:
        about = {"other": "hub.retry_max", "limit": str(longest)}
        problems.append(Problem("hub.retry_min", "above", str(shortest), about))
    problems += _check_owner(found.get("owner"))
    problems += _check_resources(found)
    return problems


def resource_paths(found: Mapping[str, Any]) -> list[str]:
    """The key path of every `[[resource]]` table, decoded or not."""
    return [f"resource[{at}]" for at in range(len(found.get("resource", ())))]


def _check_url(url: str) -> list[Problem]:
    try:
        parts = urlsplit(url)
        port_is_valid = parts.port is None or parts.port > 0
        host = parts.hostname
    except ValueError:
        port_is_valid, host = False, None
    if not port_is_valid or not host:
        return [Problem("hub.url", "impossible", show(url), {"expected": "url"})]
    if url.startswith("http://") and not is_loopback(host):
        return [Problem("hub.url", "plain-http", show(url), {"host": host})]
    return []


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


def _check_resources(found: Mapping[str, Any]) -> list[Problem]:
    problems = []
    first: dict[str, str] = {}
    for where in resource_paths(found):
        name = found.get(f"{where}.id")
        if name is not None and first.setdefault(name, where) != where:
            fields = {"other": first[name]}
            problems.append(Problem(f"{where}.id", "twice", show(name), fields))
        classification = found.get(f"{where}.classification", {})
        if len(classification) > 12:
            fields = {"expected": "dimensions"}
            value = show(classification)
            problems.append(Problem(f"{where}.classification", "impossible", value, fields))
    return problems
