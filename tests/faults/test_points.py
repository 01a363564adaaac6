"""The crash points of the code, the ways that lead to them, and that they are inert in a user's hands."""

import sys
from fnmatch import fnmatch

from agent.store.points import all_points as declared
from tests.faults.points import all_points, transactions
from tests.shared import ROOT
from tests.torture.kills import HITS, RANDOM_KILLS, kills_for, plans
from tests.torture.scenarios import ROUTES, route

POINTS_MIN = 30
KILLS_MIN = 200

#: Hub: what edge-storage.md §5 asks for, in its order.
STEPS_OF_THE_HUB = (
    "pack.open", "pack.written", "pack.synced", "pack.renamed", "pack.folder-synced",
    "accept.before", "accept.after", "checkpoint.signed", "last-checkpoint.before",
    "last-checkpoint.after", "answer.ready",
)  # fmt: skip

#: Agent: the transactions of edge-storage.md §3, in its order.
TRANSACTIONS_OF_THE_AGENT = ("commit", "epoch", "seal", "receipt", "fork", "refuse", "evict")


def test_points_of_the_design_stand_in_the_code() -> None:
    found = set(all_points())
    assert len(found) >= POINTS_MIN
    assert {f"hub:{name}" for name in STEPS_OF_THE_HUB} <= found
    sides = {f"agent:{t}.{s}" for t in TRANSACTIONS_OF_THE_AGENT for s in ("before", "after")}
    assert sides <= found


def test_the_agents_own_list_is_that_of_its_code() -> None:
    found = {name.removeprefix("agent:") for name in all_points() if name.startswith("agent:")}
    assert found == declared()


def test_every_transaction_has_both_its_points() -> None:
    found = set(all_points())
    for package in ("agent", "hub"):
        for name in transactions(package):
            assert {f"{package}:{name}.before", f"{package}:{name}.after"} <= found


def test_every_point_is_planned_for_often_enough() -> None:
    names = sorted(all_points())
    made = plans(kills_for(names, HITS, RANDOM_KILLS), seed=1)
    planned = [kill.name for plan in made for kill in plan.kills]
    assert len(planned) >= KILLS_MIN
    assert all(planned.count(name) >= HITS for name in names)


def test_every_route_leads_somewhere() -> None:
    names = [*all_points(), "agent:random", "hub:random"]
    for pattern, _, scenario in ROUTES:
        assert any(fnmatch(name, pattern) for name in names), pattern
        assert any(route(name)[1] is scenario for name in names), pattern


def test_points_are_inert_without_the_harness() -> None:
    for name in all_points():
        sys.audit("shanmen.point", name.partition(":")[2])
    for package in ("agent", "hub", "protocol", "devices"):
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text("utf-8")
            assert "addaudithook" not in text, path
            assert "SHANMEN_POINT" not in text, path
