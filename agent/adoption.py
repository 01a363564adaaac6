"""Journal rows whose stream's row is lost: whose are they?

The chain says which resource a stream belonged to; where it has nothing, the columns do, if only
one resource has exactly these fields. What fits nobody goes to the quarantine, counted.
"""

import sqlite3
from collections.abc import Mapping

from agent.intake.groups import open_body
from agent.intake.quarantine import Refused
from agent.intake.rows import open_row
from agent.lane import Lane
from agent.store.resources import Bound, JournalRow, Stream
from agent.store.schema import StreamState
from protocol.errors import DecodeError
from protocol.ids import RunId, StreamId
from protocol.records import load_columns


def adopt(
    connection: sqlite3.Connection, lane: Lane, resource_of: Mapping[bytes, bytes], now_us: int
) -> None:
    """Give every orphaned row a stream in memory, and that stream a row in the file."""
    orphans = connection.execute(
        "SELECT id, stream, run, first_row, n, boot_ns / 1000, wall_us, clock FROM journal"
        " WHERE stream NOT IN (SELECT id FROM stream) ORDER BY first_row, id"
    ).fetchall()
    found: dict[bytes, Bound | None] = {}
    for item in orphans:
        row = JournalRow(
            item[0], StreamId(item[1]), RunId(item[2]), item[3], item[4], item[5], item[6], item[7],
            is_this_boot=False,
        )  # fmt: skip
        if found.get(row.stream) is None:
            found[row.stream] = _owner(connection, lane, row, resource_of)
        bound = found[row.stream]
        if bound is None:
            _give_up(connection, lane, row, now_us)
        else:
            _take(connection, lane, bound, row)


def _owner(
    connection: sqlite3.Connection, lane: Lane, row: JournalRow, resource_of: Mapping[bytes, bytes]
) -> Bound | None:
    resource = resource_of.get(row.stream)
    bounds = list(lane.bounds.values())
    for bound in bounds:
        if bound.id == resource:
            return bound
    plain = open_row(connection, lane.runs, row)
    if plain is None:
        return None
    try:
        names = set(load_columns(open_body(plain)[0]).fields)
    except DecodeError:
        return None
    fitting = [bound for bound in bounds if set(bound.names) == names]
    return fitting[0] if len(fitting) == 1 else None


def _take(connection: sqlite3.Connection, lane: Lane, bound: Bound, row: JournalRow) -> None:
    stream = bound.stream
    if stream is None:
        stream = bound.stream = Stream(id=row.stream)
    if not connection.execute("SELECT 1 FROM stream WHERE id = ?", (row.stream,)).fetchone():
        lost = Stream(id=row.stream)
        lane.register.insert_stream(connection, bound, lost)
        connection.execute(
            "UPDATE stream SET state = ? WHERE id = ?", (int(StreamState.ENDED), row.stream)
        )
    stream.rows.append(row)


def _give_up(connection: sqlite3.Connection, lane: Lane, row: JournalRow, now_us: int) -> None:
    plain = open_row(connection, lane.runs, row) or b""
    item = Refused("journal", "orphan", row.count, plain)
    lane.quarantine.put(connection, [item], now_us)
    connection.execute("DELETE FROM journal WHERE id = ?", (row.id,))
