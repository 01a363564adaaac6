"""The verdict: the table of the reconciliation, the findings, the figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from devices.demo.beside import p99
from devices.demo.chaos import Harm
from devices.demo.figures import Figures
from devices.demo.reconcile import PROMISES, Account
from devices.demo.texts import padded, text

_COLUMNS: Final = (
    ("resource", 17), ("class", 5), ("produced", 9), ("acknowledged", 10), ("journalled", 10),
    ("sealed", 8), ("accepted", 8), ("read", 9), ("lost", 6), ("duplicated", 6),
)  # fmt: skip


#: What `others_p99_ms` is.
OTHERS: Final = "ms from passing to hand-over to the journal, at most, beside the silent counter"


@dataclass(frozen=True, slots=True)
class Station:
    """What the stations in between say of one resource; -1 where they could not be asked."""

    journalled: int  # records, by the agent
    sealed: int  # records, by the agent
    accepted: int  # records, by the hub


def station_of(status: dict[str, Any], resource: str, accepted: int) -> Station:
    """Out of the agent's status and the hub's catalog."""
    for one in status.get("resources", []):
        if one["name"] == resource:
            return Station(one["records"], one["sealed"], accepted)
    return Station(-1, -1, accepted)


def agree(account: Account, station: Station) -> bool:
    """Whether every station counts what the owner read back."""
    return {station.journalled, station.sealed, station.accepted} == {account.read}


def tell(accounts: Sequence[Account], stations: dict[str, Station]) -> None:
    """Print the table, and the first findings of what did not hold."""
    print()
    print("  ".join(padded(text(f"column.{name}"), width) for name, width in _COLUMNS))
    for one in accounts:
        station = stations[one.resource]
        cells = (
            one.resource, one.promise, one.produced, one.acknowledged, station.journalled,
            station.sealed, station.accepted, one.read, one.lost, one.duplicated,
        )  # fmt: skip
        pairs = zip(cells, _COLUMNS, strict=True)
        print("  ".join(padded(cell, width) for cell, (_, width) in pairs))
    print()
    for one in accounts:
        print(_sentence(one, stations[one.resource]))
        for example in one.examples:
            print(f"    {example}")


def _sentence(one: Account, station: Station) -> str:
    held = one.kept and agree(one, station)
    known = f"promise.{one.promise if one.promise in PROMISES else 'none'}"
    said = text(f"verdict.{'kept' if held else 'broken'}", resource=one.resource,
                promise=text(known))  # fmt: skip
    if one.promise == "B":
        said += text("verdict.repeats", count=one.repeats_marked)
    if one.promise == "D":
        said += text("verdict.persons", units=one.units, read=one.read)
    if one.altered:
        said += text("verdict.altered", count=one.altered)
    if one.unknown:
        said += text("verdict.unknown", count=one.unknown)
    if not agree(one, station):
        said += text("verdict.stations", journalled=station.journalled, sealed=station.sealed,
                     accepted=station.accepted)  # fmt: skip
    return said


def figures(
    accounts: Sequence[Account],
    stations: dict[str, Station],
    *,
    seconds: float,
    harm: Harm | None,
    failures: int,
) -> Figures:
    """The figures of the run against the bars."""
    found = Figures("demo", "demo", *(["demo --chaos"] if harm else []))
    kept = all(one.kept and agree(one, stations[one.resource]) for one in accounts)
    found.add("kept", float(bool(accounts) and kept))
    for name in ("lost", "duplicated", "altered", "unknown"):
        found.add(name, float(sum(getattr(one, name) for one in accounts)))
    found.add("resources", float(sum(one.read > 0 for one in accounts)))
    found.add("children_failed", float(failures))
    records = sum(one.read for one in accounts)
    found.add("records", float(records), "read back and decrypted by the owner")
    found.add("records_per_minute", records / seconds * 60 if seconds else None, "records")
    waits_ms = [wait for one in accounts for wait in one.others_ms]
    if waits_ms or harm:
        found.add("others_p99_ms", p99(waits_ms), OTHERS)
        found.add("others_records", float(len(waits_ms)), "records that others_p99_ms is of")
    if harm:
        found.add("kills_of_agent", float(harm.agent_kills))
        found.add("kills_of_hub", float(harm.hub_kills))
        found.add("cuts", float(harm.cuts))
        found.add("half_open", float(harm.half_open))
    for one in accounts:
        found.add(f"records of {one.resource}", float(one.read), "records")
        found.add(f"lost of {one.resource}", float(one.lost), "records or persons")
        found.add(f"duplicated of {one.resource}", float(one.duplicated), "records or persons")
    return found
