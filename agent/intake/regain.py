"""After an image restore: which rows a source will give again, and from which watermark.

The image's watermarks are older than what the hub accepted. What a counter or cursor (class D, E)
gave since the restart begins at the old watermark and overlaps with it: persons counted twice. Such
rows are dropped, and each source goes back to the newest watermark that an accepted header names;
where none does, to where it stood before the rows that go. The total is exact, times are lost.
Rows of the image itself stay: only what was numbered again since then gives way.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from agent.intake.covered import Covered, Key, Told, keep_newest
from agent.intake.groups import Part
from agent.intake.resume import Tail
from agent.store.resources import JournalRow
from agent.store.rest import RootKey
from protocol.errors import DecodeError

#: Keys of `meta`; "0" follows "/".
_BEFORE: Final = "before/"
_BEFORE_END: Final = "before0"


@dataclass(slots=True)
class Regained:
    """What goes, and where the sources stand then (None: at their beginning)."""

    rows: list[JournalRow] = field(default_factory=list)
    watermarks: dict[Key, bytes | None] = field(default_factory=dict)


def regain(
    connection: sqlite3.Connection,
    root: RootKey,
    resource: bytes,
    covered: Covered,
    waiting: Sequence[tuple[JournalRow, Tail]],
    *,
    next_row: int,
) -> Regained:
    """Compare the rows that wait with what was accepted; changes nothing.

    waiting: rows of one resource that no accepted header names, by number. next_row: its next one.
    """
    found = Regained()
    since = _since(covered, [row for row, _ in waiting], next_row)
    if since is None:
        return found  # what was accepted ends within this file: its watermarks are the newest
    first, runs = since
    told: dict[Key, Told] = {}
    kept: set[Key] = set()
    goes = False
    for row, tail in reversed(waiting):
        if not tail.is_regained:
            kept |= tail.marks.keys()
            continue
        # One of several that were sealed together says nothing itself: the last speaks for them.
        goes = row.first_row >= first or row.run in runs or (goes and not tail.marks)
        if goes:
            found.rows.append(row)
        else:
            place = (0, row.first_row + row.count - 1)
            for key, value in tail.marks.items():
                keep_newest(told, key, (place, value))
    # What class A gave since then stays, and so does what its driver knows of it.
    newest = {key: said for key, said in covered.newest.items() if key not in kept}
    for key, said in (covered.newest_regained | newest).items():
        keep_newest(told, key, said)
    found.watermarks |= {key: value for key, (_, value) in told.items()}
    for key, before in _befores(connection, root, resource, found.rows).items():
        found.watermarks.setdefault(key, before)
    return found


def _since(
    covered: Covered, rows: Sequence[JournalRow], next_row: int
) -> tuple[int, set[bytes]] | None:
    """The first row number that was given twice, and the runs of this file that did so."""
    if covered.headers and not covered.knows(covered.origin):
        return 0, set()  # the file is older than the stream that the hub has: all of it came again
    first: int | None = None
    runs: set[bytes] = set()
    for run, low, high in covered.named:
        if high >= next_row:
            beyond = max(low, next_row)
            first = beyond if first is None else min(first, beyond)
        for row in rows:
            both = max(low, row.first_row)
            if row.run != run and both <= min(high, row.first_row + row.count - 1):
                first = both if first is None else min(first, both)
                runs.add(row.run)
    return None if first is None else (first, runs)


# --- where a source stood before a run first moved it -------------------------------------------


def note_befores(
    connection: sqlite3.Connection,
    root: RootKey,
    run: bytes,
    parts: Sequence[Part],
    *,
    noted: set[tuple[bytes, bytes, Key]],
    watermarks: Mapping[Key, bytes],
) -> set[tuple[bytes, bytes, Key]]:
    """Write, once a run, where each source of class D and E stood before; returns what is new.

    Inside a commit, before its rows. noted: what this process has written.
    """
    fresh = {(run, bytes(part.bound.id), key) for part in parts for key in part.regained} - noted
    if fresh and not noted:
        # Nothing waits: no row of an earlier run can come back.
        connection.execute(
            "DELETE FROM meta WHERE k >= ? AND k < ? AND NOT EXISTS (SELECT 1 FROM journal)"
            " AND NOT EXISTS (SELECT 1 FROM body WHERE state IN (2, 3))",
            (_BEFORE, _BEFORE_END),
        )
    for _, resource, key in fresh:
        name = f"{_BEFORE}{resource.hex()}/{run.hex()}/{key[0]}/{key[1]}"
        plain = msgspec.msgpack.encode([*key, watermarks.get(key)])
        connection.execute(
            "INSERT OR IGNORE INTO meta(k, v) VALUES(?, ?)", (name, root.wrap(name.encode(), plain))
        )
    return fresh


def forget_befores(connection: sqlite3.Connection, resource: bytes) -> None:
    """Let the next commit of each source note anew: its watermark was set back."""
    place = f"{_BEFORE}{resource.hex()}"
    connection.execute("DELETE FROM meta WHERE k >= ? AND k < ?", (place + "/", place + "0"))


def _befores(
    connection: sqlite3.Connection, root: RootKey, resource: bytes, rows: Sequence[JournalRow]
) -> dict[Key, bytes | None]:
    """Of the sources that the runs of `rows` moved; the earliest run speaks first."""
    found: dict[Key, bytes | None] = {}
    runs = dict.fromkeys(row.run for row in sorted(rows, key=lambda row: row.first_row))
    for run in runs:
        place = f"{_BEFORE}{resource.hex()}/{run.hex()}"
        for name, sealed in connection.execute(
            "SELECT k, v FROM meta WHERE k >= ? AND k < ?", (place + "/", place + "0")
        ).fetchall():
            try:
                plain = root.unwrap(name.encode(), sealed)
                driver, source, value = msgspec.msgpack.decode(
                    plain, type=tuple[str, str, bytes | None]
                )
            except (DecodeError, msgspec.MsgspecError):
                continue
            found.setdefault((driver, source), value)
    return found
