"""All named crash points of the code, read from the code."""

import ast

from tests.shared import ROOT


def named_points() -> dict[str, list[str]]:
    """Point → where it stands. Names built at run time show as a pattern with `*`."""
    found: dict[str, list[str]] = {}
    for package in ("agent", "hub", "devices"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if is_point(node):
                    assert isinstance(node, ast.Call)
                    where = f"{path.relative_to(ROOT)}:{node.lineno}"
                    found.setdefault(text_of(node.args[1]), []).append(where)
    return found


def is_point(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
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
