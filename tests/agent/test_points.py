"""The list of crash points is what the code has."""

import ast
import sys

from agent.store.points import STEPS, TRANSACTIONS, all_points
from tests.agent.kit import Site
from tests.shared import ROOT

CORE = (
    "acknowledge adoption answers building core database disk epochs forks groups journal keeping lane losses"
    " memory mending pipeline quarantine recovery register resources rest rows runs salvage schema sealer"
    " seen segments spool vault wal effects service"
).split()


def literals() -> tuple[set[str], set[str]]:
    """Names of transactions and of single points, read from the code of the core."""
    writes: set[str] = set()
    steps: set[str] = set()
    for name in CORE:
        path = next((ROOT / "agent").rglob(f"{name}.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            first = node.args[0] if node.args else None
            if not isinstance(first, ast.Constant):
                continue
            if node.func.attr == "write" and isinstance(first.value, str):
                writes.add(first.value)
            if node.func.attr == "audit" and isinstance(node.args[1], ast.Constant):
                steps.add(str(node.args[1].value))
    return writes, steps


def test_points_are_those_of_the_code():
    writes, steps = literals()
    assert writes | {"open"} == set(TRANSACTIONS)
    assert steps - {"open.before", "open.after"} == set(STEPS)


_HITS: set[str] = set()
_ARMED = False


def _hook(event: str, args: tuple) -> None:
    if _ARMED and event == "shanmen.point":
        _HITS.add(str(args[0]))


sys.addaudithook(_hook)


async def test_an_ordinary_day_passes_the_ordinary_points(tmp_path):
    global _ARMED  # an audit hook cannot be taken away again
    _ARMED = True
    try:
        site = Site(tmp_path)
        async with site.running():
            await site.give(1)
            await site.drain()
            site.clock.advance(2 * 86_400)
            site.core.spool.backed_up_to = 10**6
            await site.core.keep_house()
            await site.give(2)
    finally:
        _ARMED = False
    around = {
        f"{name}.{side}"
        for name in ("open", "run", "commit", "epoch", "seal", "receipt", "evict", "forget")
        for side in ("before", "after")
    }
    assert around | {"spool.opened", "journal.acknowledged", "checkpoint.after"} <= _HITS
    assert _HITS <= all_points()
