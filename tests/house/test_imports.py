"""Dependencies point one way, and the protocol is pure. The tables say why."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.shared import ROOT

OURS = ("protocol", "devices", "agent", "hub")

MAY = {
    "protocol": {"protocol"},
    "devices": {"devices", "protocol"},
    "agent": {"agent", "devices", "protocol"},
    "hub": {"hub", "protocol"},
}

IMPURE = {
    "asyncio": "IO belongs to the shells",
    "socket": "IO belongs to the shells",
    "ssl": "IO belongs to the shells",
    "aiohttp": "IO belongs to the shells",
    "sqlite3": "storage belongs to agent and hub",
    "os": "no environment, no files",
    "pathlib": "no files",
    "importlib": "no files, not even those of a package",
    "argparse": "commands belong to the programs",
    "time": "take now as an argument",
    "random": "take randomness as an argument",
    "secrets": "take randomness as an argument",
    "logging": "raise or return",
    "threading": "pure code has no threads",
}

#: Inside the hub: who may not import whom, and why.
LAYERS = {
    "hub/domain": {"hub.store": "rules know no SQL", "hub.api": "rules know no HTTP"},
    "hub/store": {
        "hub.api": "SQL knows no HTTP",
        "hub.console": "SQL knows no pages",
        "aiohttp": "SQL knows no HTTP",
    },
    "hub/api": {"hub.console": "the pages stand beside the api, which answers without them"},
}

#: The rooms of the agent, from the ground up: none may import one that comes after it.
AGENT_ROOMS = ("store", "host", "intake", "seal", "link", "commands")

#: All that the owner's tool, which runs where no hub is installed, may use of the hub.
LENT_TO_OWNER = ("hub.owner", "hub.files", "hub.catalogues")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, "." * node.level


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", OURS)
def test_packages_import_only_what_they_may(package: str) -> None:
    found = []
    for path in sources(package):
        for line, name in imports(path):
            top = name.split(".")[0]
            if top in OURS and top not in MAY[package]:
                found.append(f"{path}:{line} imports {name}; {package} may import {MAY[package]}")
    assert not found, "\n".join(found)


def test_protocol_is_pure() -> None:
    found = [
        f"{path}:{line} imports {name}: {IMPURE[name.split('.')[0]]}"
        for path in sources("protocol")
        for line, name in imports(path)
        if name.split(".")[0] in IMPURE
    ]
    assert not found, "\n".join(found)


def test_the_wire_knows_no_program() -> None:
    """Another implementation of the wire need not agree with us on how a setting is told."""
    found = [
        f"{path}:{line} imports {name}"
        for path in (ROOT / "protocol").glob("*.py")
        for line, name in imports(path)
        if name.startswith("protocol.program")
    ]
    assert not found, "\n".join(found)


def test_layers_inside_the_hub() -> None:
    found = []
    for folder, forbidden in LAYERS.items():
        for path in sources(folder):
            for line, name in imports(path):
                for prefix, why in forbidden.items():
                    if name == prefix or name.startswith(prefix + "."):
                        found.append(f"{path}:{line} imports {name}: {why}")
    assert not found, "\n".join(found)


def test_the_rooms_of_the_agent_stand_on_each_other() -> None:
    found = []
    for at, room in enumerate(AGENT_ROOMS):
        may = tuple(f"agent.{one}" for one in AGENT_ROOMS[: at + 1])
        for path in sources(f"agent/{room}"):
            found += [
                f"{path}:{line} imports {name}; agent/{room} may import {', '.join(may)}"
                for line, name in imports(path)
                if name.startswith("agent.") and not name.startswith(may)
            ]
    assert not found, "\n".join(found)


def test_the_owners_tool_needs_no_hub() -> None:
    """What it uses of the hub imports nothing of the hub itself."""
    lent = [ROOT / f"{name.replace('.', '/')}.py" for name in LENT_TO_OWNER[1:]]
    found = [
        f"{path}:{line} imports {name}"
        for path, may in [*((one, LENT_TO_OWNER) for one in sources("hub/owner")),
                          *((one, ()) for one in lent)]
        for line, name in imports(path)
        if name.startswith("hub.") and not name.startswith(may)
    ]  # fmt: skip
    assert not found, "\n".join(found)


def test_the_rules_see_something() -> None:
    """A folder that moved would make the tests above pass on nothing."""
    for package in OURS:
        assert len(sources(package)) > 5, package
    rooms = [f"agent/{room}" for room in AGENT_ROOMS]
    for folder in (*LAYERS, *rooms, "hub/owner", "protocol/program"):
        assert sources(folder), folder
