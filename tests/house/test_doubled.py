"""Shells that stand twice (docs/decisions/0009) are the same twice: a change of one is one of both."""

import ast

import pytest

from tests.shared import ROOT

#: Each pair, and the definitions that differ or stand in one only, with the reason.
DOUBLED = {
    ("agent/host/notify.py", "hub/notify.py"): {},
    ("agent/host/logs.py", "hub/logs.py"): {"setup": "each quiets the libraries that it has"},
    ("agent/store/files.py", "hub/files.py"): {
        "create": "the owner's tool makes key files",
        "remove": "the agent takes files back",
        "make_folder": "the agent's keys have a folder of their own",
    },
    ("devices/catalogues.py", "hub/catalogues.py"): {},
}


def definitions(name: str) -> dict[str, str]:
    tree = ast.parse((ROOT / name).read_text("utf-8"))
    return {
        node.name: ast.unparse(node)
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
    }


@pytest.mark.parametrize("pair", DOUBLED, ids=" ".join)
def test_what_stands_twice_is_the_same(pair: tuple[str, str]) -> None:
    one, other = (definitions(name) for name in pair)
    names = one.keys() | other.keys()
    assert {name for name in names if one.get(name) != other.get(name)} == DOUBLED[pair].keys()
    assert names > DOUBLED[pair].keys()
