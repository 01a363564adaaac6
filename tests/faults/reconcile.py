"""The device's books against what the owner reads back: by identity and content, not by count."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.faults.device import Books
from tests.faults.line_driver import CHECKS, PASSAGES, TABLE

Row = Mapping[str, Any]


@dataclass
class Result:
    """What differs; empty lists mean that every promise held."""

    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    altered: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    unverifiable: list[str] = field(default_factory=list)
    records: int = 0

    @property
    def ok(self) -> bool:
        return not (
            self.lost or self.duplicated or self.altered or self.unknown or self.unverifiable
        )

    def __str__(self) -> str:
        names = ("lost", "duplicated", "altered", "unknown", "unverifiable")
        found = {n: getattr(self, n) for n in names if getattr(self, n)}
        return ", ".join(f"{n}: {len(v)} {v[:5]}" for n, v in found.items()) or "all kept"


def reconcile(books: Books, read: Mapping[str, Iterable[Row]]) -> Result:
    """Everything that was produced and acknowledged, against everything that was read."""
    result = Result()
    checks = [(ticket_of(row), facts(row, "gate_no", "nth_check")) for row in read[CHECKS]]
    rows = [(str(values(row)["lane"]).replace("row-", "E"), time_of(row)) for row in read[TABLE]]
    expected_checks = {
        key: (m["at"], m["gate"], m["nth"]) for key, m in books.produced.items() if key[0] == "A"
    }
    expected_rows = {key: m["at"] for key, m in books.produced.items() if key[0] == "E"}
    compare(result, expected_checks, checks, books.acked)
    compare(result, expected_rows, rows, books.acked)
    compare_totals(result, books, list(read[PASSAGES]))
    result.records += len(checks) + len(rows)
    return result


def compare(
    result: Result, expected: Mapping[str, object], found: list[tuple[str, object]], acked: set[str]
) -> None:
    counts = Counter(key for key, _ in found)
    result.lost += [key for key in expected if key in acked and not counts[key]]
    result.duplicated += [key for key, n in counts.items() if n > 1]
    result.unknown += [key for key in counts if key not in expected]
    result.altered += [
        key for key, content in found if key in expected and expected[key] != content
    ]


def compare_totals(result: Result, books: Books, rows: list[Row]) -> None:
    """Class D: the increments must add up to the last total that was acknowledged, or to a later one."""
    totals = {key: int(str(m["total"])) for key, m in books.produced.items() if key[0] == "D"}
    least = max((totals[key] for key in totals if key in books.acked), default=0)
    most = max(totals.values(), default=0)
    counted = sum(int(values(row)["in_count"]) for row in rows)
    result.records += len(rows)
    if counted < least:
        result.lost.append(f"D: {counted} of {least} persons")
    if counted > most:
        result.duplicated.append(f"D: {counted}, produced {most} persons")


def values(row: Row) -> Mapping[str, Any]:
    inner = row.get("values", row)
    assert isinstance(inner, Mapping)
    return inner


def time_of(row: Row) -> int:
    from protocol.times import parse_rfc3339

    at = row["event_time"]
    return at if isinstance(at, int) else parse_rfc3339(str(at))


def facts(row: Row, *names: str) -> tuple[object, ...]:
    return (time_of(row), *(values(row)[name] for name in names))


def ticket_of(row: Row) -> str:
    """The ticket's token as the owner's tool prints it (hex) back to the device's key."""
    return bytes.fromhex(str(values(row)["ticket_ref"])).decode()
