"""All named crash points of the code, read from the code: `agent:commit.before`, `hub:pack.synced`.

A point is `sys.audit("shanmen.point", name)`, in the hub through `point(name)`. Names that are built
at run time (`f"{name}.before"`) are expanded with the names of the transactions that the same
package writes.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.shared import ROOT

PACKAGES = ("agent", "hub")

#: Methods whose first argument names a transaction.
WRITERS = frozenset({"write", "write_now", "commit"})


def all_points(code: Path = ROOT) -> dict[str, list[str]]:
    """Point → where it stands."""
    found: dict[str, list[str]] = {}
    for package in PACKAGES:
        names = transactions(package, code)
        for name, where in raw_points(package, code):
            full = [name.replace("*", one) for one in names] if "*" in name else [name]
            for one in full:
                found.setdefault(f"{package}:{one}", []).append(where)
    return found


def transactions(package: str, code: Path = ROOT) -> set[str]:
    """The names of the transactions that a package writes."""
    return {
        str(node.args[0].value)
        for _, node in calls(package, code)
        if isinstance(node.func, ast.Attribute)
        and node.func.attr in WRITERS
        and len(node.args) > 1
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    }


def raw_points(package: str, code: Path) -> Iterator[tuple[str, str]]:
    """Names as they stand in the code, built ones with `*`; the helper `point` itself is no point."""
    for path, node in calls(package, code):
        where = f"{path.relative_to(code)}:{node.lineno}"
        if isinstance(node.func, ast.Name) and node.func.id == "point" and len(node.args) == 1:
            yield text_of(node.args[0]), where
        elif is_audit(node) and not isinstance(node.args[1], ast.Name):
            yield text_of(node.args[1]), where


def calls(package: str, code: Path) -> Iterator[tuple[Path, ast.Call]]:
    for path in sorted((code / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                yield path, node


def is_audit(node: ast.Call) -> bool:
    return (
        isinstance(node.func, ast.Attribute)
        and node.func.attr == "audit"
        and bool(node.args)
        and isinstance(node.args[0], ast.Constant)
        and node.args[0].value == "shanmen.point"
    )


def text_of(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(p.value) if isinstance(p, ast.Constant) else "*" for p in node.values)
    return "*"
