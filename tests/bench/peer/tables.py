"""The two tables as text and as figures; pure."""

from collections.abc import Mapping, Sequence

from devices.demo.figures import Figures
from tests.bench.peer.reconcile import Outcome
from tests.bench.peer.side import Row

#: Sizes of a message or of a hand-over, in records.
SIZES = (1, 100)
OURS, PEER = "shanmen", "peer"
COLUMNS = (
    "records/s", "gateway CPU s/M", "receiver CPU s/M", "memory MB", "B a record",
)  # fmt: skip
_WIDTHS = (44, 12, 17, 18, 11, 11)

Rows = Mapping[tuple[str, int], Row]  # (side, size)


def line(*cells: str) -> str:
    """One line: a name to the left, numbers to the right."""
    first, *rest = cells
    shown = [f"{one:>{width}}" for one, width in zip(rest, _WIDTHS[1:], strict=False)]
    return f"{first:<{_WIDTHS[0]}}{''.join(shown)}"


def table(rows: Rows, sides: Mapping[str, str], what: str) -> list[str]:
    """The lines of one table, `what` is that of which a size counts records."""
    found = [line("", *COLUMNS)]
    for size in SIZES:
        for side, name in sides.items():
            row = rows.get((side, size))
            if row is None:
                found.append(f"{name}, {size} a {what}: not measured")
                continue
            cells = (
                f"{row.records_per_s:,.0f}", f"{row.gateway_cpu:,.1f}", f"{row.receiver_cpu:,.1f}",
                f"{row.memory_mb:,.0f}", f"{row.wire:,.1f}",
            )  # fmt: skip
            found.append(line(f"{name}, {size} a {what}", *cells))
    return found


def outcome_lines(outcomes: Mapping[str, Sequence[Outcome]], sides: Mapping[str, str]) -> list[str]:
    """Lost and doubled of each run."""
    found = []
    for side, name in sides.items():
        for what in ("lost", "doubled"):
            counts = [f"{getattr(one, what):,}" for one in outcomes.get(side, ())]
            found.append(
                f"{name + ', ' + what:<{_WIDTHS[0]}}  {'  '.join(counts) or 'not measured'}"
            )
    return found


def add_rows(figures: Figures, name: str, rows: Rows) -> None:
    """Every cell as a figure, and the ratios that have bars."""
    units = ("records/s", "CPU s per million", "CPU s per million", "MB", "B a record")
    for (side, size), row in rows.items():
        for field, unit in zip(Row._fields, units, strict=True):
            figures.add(f"{name}_{side}_{size}_{field}", getattr(row, field), unit)
    for size in SIZES:
        ours, peer = rows.get((OURS, size)), rows.get((PEER, size))
        if ours is None or peer is None:
            continue  # a bar without a figure is red
        figures.add(f"{name}_{size}_of_peer", ours.records_per_s / peer.records_per_s)
        if name == "broker":
            figures.add(f"{name}_{size}_bytes_of_peer", ours.wire / peer.wire, "of the peer's")
            cpu = ours.gateway_cpu / peer.gateway_cpu
            figures.add(f"{name}_{size}_cpu_of_peer", cpu, "of the peer's, gateway")


def add_outcomes(
    figures: Figures, name: str, outcomes: Mapping[str, Sequence[Outcome]], each: Sequence[object]
) -> None:
    """Lost and doubled of each side: in all, and in each run by itself."""
    for side, found in outcomes.items():
        offered = sum(one.offered for one in found)
        for what in ("lost", "doubled"):
            counts = [getattr(one, what) for one in found]
            figures.add(f"{name}_{side}_{what}", sum(counts), f"of {offered:,} records")
            for one, count in zip(each, counts, strict=False):
                figures.add(f"{name}_{side}_{what}_{one}", count, "records")
