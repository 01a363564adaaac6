"""Records for people and programs: JSON lines or CSV."""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, TextIO

from protocol.records import Record
from protocol.times import quality_names, show_time

#: Columns of every record, before those of its pack.
FIXED: Final = ("event_time", "device", "quality")

#: A spreadsheet takes a text that starts so for a formula.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


def plain(record: Record) -> dict[str, Any]:
    """A record as JSON holds it: times as RFC 3339, tokens as hex, nulls left out."""
    row: dict[str, Any] = {
        "event_time": show_time(record.event_time_us),
        "device": record.device,
        "quality": quality_names(record.quality),
    }
    if record.device_time_us is not None:
        row["device_time"] = show_time(record.device_time_us)
    for name, value in record.values.items():
        if value is not None:
            row[name] = value.hex() if isinstance(value, bytes) else value
    return row


def json_lines(records: Iterable[Record]) -> Iterator[str]:
    """One JSON object a record."""
    for record in records:
        yield json.dumps(plain(record), ensure_ascii=False, separators=(",", ":"))


class CsvTable:
    """Records as CSV with one header row; columns are those of the pack."""

    def __init__(self, out: TextIO, fields: Sequence[str]) -> None:
        self._names = [*FIXED, "device_time", *fields]
        self._writer = csv.writer(out, lineterminator="\n")
        self._writer.writerow(self._names)

    def write(self, records: Iterable[Record]) -> None:
        """Append records; a text that a spreadsheet would run gets an apostrophe before it."""
        for record in records:
            row = plain(record)
            row["quality"] = " ".join(row["quality"])
            self._writer.writerow([_safe(row.get(name, "")) for name in self._names])


def _safe(value: object) -> object:
    if isinstance(value, str) and value.startswith(_FORMULA):
        return "'" + value
    return value
