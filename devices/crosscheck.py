"""Fields of one record against each other: impossible together, well each alone (R42, R47)."""

from collections.abc import Callable
from typing import Final

from devices.mapping import Fault
from protocol.records import Value
from protocol.times import NO_MARKS, Quality

Check = Callable[[dict[str, Value]], tuple[Quality, list[Fault]]]

_PARTS: Final = ("free", "occupied", "reserved", "faulty")


def cross_check(pack: str, values: dict[str, Value]) -> tuple[Quality, list[Fault]]:
    """Repair `values` in place where one value is surely wrong; say what was found."""
    check = _CHECKS.get(pack)
    return (NO_MARKS, []) if check is None else check(values)


def _lot(values: dict[str, Value]) -> tuple[Quality, list[Fault]]:
    """A part above the total is null; parts that do not add up are kept and marked."""
    total = values.get("total")
    if not isinstance(total, int):
        return NO_MARKS, []
    faults: list[Fault] = []
    for name in _PARTS:
        part = values.get(name)
        if isinstance(part, int) and part > total:
            values[name] = None
            faults.append(Fault("more-than-total", name, "total"))
    parts = [part for name in _PARTS if isinstance(part := values.get(name), int)]
    adds_up = sum(parts) == total if len(parts) == len(_PARTS) else sum(parts) <= total
    return (NO_MARKS if adds_up and not faults else Quality.OUT_OF_RANGE), faults


def _passage(values: dict[str, Value]) -> tuple[Quality, list[Fault]]:
    """Nobody is in the zone less than nobody: a drifted count is clamped and marked."""
    occupancy = values.get("occupancy")
    if isinstance(occupancy, int) and occupancy < 0:
        values["occupancy"] = 0
        return Quality.REBASED, []
    return NO_MARKS, []


_CHECKS: Final[dict[str, Check]] = {"parking.lot": _lot, "visitor.passage": _passage}
