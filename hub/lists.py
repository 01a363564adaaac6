"""Lists of the command line for people: a header, times one can read, words of their language."""

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from hub.messages import text
from protocol.program.messages import Language
from protocol.times import show_time


def table(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], language: Language
) -> list[str]:
    """Return header and rows as aligned lines; `columns` are keys of the rows."""
    cells = [[text(f"column.{name}", language) for name in columns]]
    cells += [[_cell(name, row.get(name), language) for name in columns] for row in rows]
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(map(_padded, line, widths)).rstrip() for line in cells]


def _cell(name: str, value: object, language: Language) -> str:
    if name in {"away", "disabled"}:  # nobody knows who is away while no hub serves
        return text({True: "list.yes", False: "list.no"}.get(value, "list.unknown"), language)  # type: ignore[call-overload]
    if name.endswith("_us"):
        seconds = value // 1_000_000 if isinstance(value, int) else 0
        return show_time(seconds * 1_000_000) if seconds else text("list.never", language)
    shown = "" if value is None else str(value)
    # A name comes from a gateway: it must not move the operator's cursor.
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in shown)


def _width(cell: str) -> int:
    return sum(2 if unicodedata.east_asian_width(one) in "WF" else 1 for one in cell)


def _padded(cell: str, width: int) -> str:
    return cell + " " * (width - _width(cell))
