"""Who may catch everything: four places, by name (docs/decisions/0010)."""

import ast
from collections.abc import Iterator

from tests.house.test_imports import OURS, sources
from tests.shared import ROOT

WIDE = {"Exception", "BaseException"}

MAY = {
    "agent/supervisor.py::Supervisor._once": "one driver's bug must not end the others",
    "hub/api/middleware.py::Gate.serve": "one request's bug must not end the hub",
    "agent/store/worker.py::Worker._work": "belongs to whoever awaits the call's future",
    "agent/store/database.py::Database._written": "belongs to whoever awaits the write",
}


def is_wide(kind: ast.expr | None) -> bool:
    """`except:`, `except Exception`, a tuple that has it; the names with or without a module."""
    if kind is None:
        return True
    names = {getattr(node, "id", getattr(node, "attr", "")) for node in ast.walk(kind)}
    return bool(names & WIDE)


def catches_everything(node: ast.AST) -> bool:
    if isinstance(node, ast.ExceptHandler):
        return is_wide(node.type)
    if isinstance(node, ast.Call):
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        return name == "suppress" and any(map(is_wide, node.args))
    return False


def places(tree: ast.AST, name: str = "") -> Iterator[str]:
    """The qualified name of each function that catches everything, once a place."""
    for node in ast.iter_child_nodes(tree):
        if catches_everything(node):
            yield name
        inner = name
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            inner = f"{name}.{node.name}".lstrip(".")
        yield from places(node, inner)


def test_everything_is_caught_in_these_places_only() -> None:
    found = [
        f"{path.relative_to(ROOT)}::{place}"
        for package in OURS
        for path in sources(package)
        for place in places(ast.parse(path.read_text("utf-8")))
    ]
    assert sorted(found) == sorted(MAY)


def test_the_rule_sees_every_spelling() -> None:
    text = """
class A:
    def a(self):
        try: ...
        except: ...
    async def b(self):
        try: ...
        except (ValueError, builtins.Exception): ...
        with contextlib.suppress(BaseException): ...
def c():
    try: ...
    except (ValueError, OSError): ...
    with suppress(ValueError): ...
"""
    assert list(places(ast.parse(text))) == ["A.a", "A.b", "A.b"]
