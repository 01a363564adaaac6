"""Journal rows as they lie in the file: open one, write one again."""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby

from agent.intake.groups import body_of, place_of
from agent.intake.resume import Tail
from agent.store.ports import Randomness
from agent.store.resources import JournalRow
from agent.store.rest import lock, unlock
from agent.store.runs import Runs
from protocol.chain import RowRange
from protocol.errors import DecodeError
from protocol.ids import RunId, StreamId
from protocol.records import Columns, dump_columns


def open_row(connection: sqlite3.Connection, runs: Runs, row: JournalRow) -> bytes | None:
    """The plain body of a journal row; None if it, or its run's key, is damaged or gone."""
    found = connection.execute("SELECT body FROM journal WHERE id = ?", (row.id,)).fetchone()
    key = runs.key(connection, row.run)
    if found is None or key is None or not isinstance(found[0], bytes):
        return None
    try:
        return unlock(key, place_of(row.stream, row.run, row.first_row, row.count), found[0])
    except DecodeError:
        return None


def put_row(
    connection: sqlite3.Connection,
    runs: Runs,
    random: Randomness,
    *,
    like: JournalRow,
    stream: StreamId,
    run: RunId,
    first_row: int,
    columns: Columns,
    tail: Tail,
) -> JournalRow:
    """Write records into the journal under row numbers that they had before."""
    key = runs.key_or_new(connection, run)
    plain = body_of(dump_columns(columns), tail)
    body = lock(key, place_of(stream, run, first_row, columns.count), plain, random)
    row = JournalRow(
        0, stream, run, first_row, columns.count,
        like.boot_us, like.wall_us, like.source, like.is_this_boot,
    )  # fmt: skip
    return insert_row(connection, row, body)


def insert_row(connection: sqlite3.Connection, row: JournalRow, body: bytes) -> JournalRow:
    """Write a row with its locked body; returns it with its id."""
    cursor = connection.execute(
        "INSERT INTO journal(stream, run, first_row, n, boot_ns, wall_us, clock, body)"
        " VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
        (
            row.stream, row.run, row.first_row, row.count,
            row.boot_us * 1000, row.wall_us, row.source, body,
        ),
    )  # fmt: skip
    return replace(row, id=cursor.lastrowid or 0)


def uncovered(ranges: Sequence[RowRange], covered: Iterable[RowRange]) -> list[int]:
    """Positions in the rows that `ranges` name, in their order, which no covered range names."""
    by_run: dict[bytes, list[tuple[int, int]]] = {}
    for run, first, last in covered:
        by_run.setdefault(run, []).append((first, last))
    left: list[int] = []
    position = 0
    for run, first, last in ranges:
        gone = by_run.get(run, [])
        for row in range(first, last + 1):
            if not any(low <= row <= high for low, high in gone):
                left.append(position)
            position += 1
    return left


def numbers_of(ranges: Sequence[RowRange]) -> list[tuple[RunId, int]]:
    """(run, row) of each record that ranges name, in order."""
    return [(run, row) for run, first, last in ranges for row in range(first, last + 1)]


def consecutive(numbers: Sequence[tuple[RunId, int]]) -> list[tuple[RunId, int, int, int]]:
    """Runs of consecutive numbers: (run, first row, position of the first, how many)."""
    found = []
    for _, members in groupby(enumerate(numbers), key=lambda p: (p[1][0], p[1][1] - p[0])):
        run = list(members)
        position, (run_id, first) = run[0]
        found.append((run_id, first, position, len(run)))
    return found
