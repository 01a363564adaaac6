"""From the file to memory at a start: resources, live streams, rows that wait. O(1) in the spool.

Only what is unsealed is listed row by row; totals stand beside the streams.
"""

import sqlite3
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Final

import msgspec

from agent.intake.register import Register, open_schema_row
from agent.store.database import Database
from agent.store.ports import ResourceSettings
from agent.store.resources import Bound, Counters, JournalRow, Stream
from agent.store.schema import StreamState
from protocol.envelope import decode_payload, parse
from protocol.errors import ShanmenError
from protocol.grades import Grade, more_open, rules
from protocol.ids import ObjectId, ResourceId, RunId, StreamId
from protocol.packs import Pack
from protocol.registration import Registration, pack_of
from protocol.segment import layout_of

_STREAM: Final = (
    "SELECT id, next_row, next_seq, head, state, continues FROM stream"
    " WHERE resource = ? AND state != ?"
)
_TOTALS: Final = (
    "SELECT coalesce(sum(records), 0), coalesce(sum(duplicates), 0),"
    " coalesce(sum(maybe_repeat), 0), coalesce(sum(quarantined), 0),"
    " coalesce(sum(sealed), 0), coalesce(sum(accepted), 0), coalesce(sum(lost), 0)"
    " FROM stream WHERE resource = ?"
)
_ROWS: Final = (
    "SELECT j.id, j.stream, j.run, j.first_row, j.n, j.boot_ns / 1000, j.wall_us, j.clock,"
    " coalesce(r.boot = ?, 0) FROM journal j LEFT JOIN run r ON r.id = j.run"
    " WHERE j.stream IN (SELECT id FROM stream WHERE resource = ?)"
    " ORDER BY j.first_row, j.id"
)
#: Whatever may still travel, or be asked for again: bodies in any state, and header-only items.
#: CROSS JOIN: from the few streams to their bodies, or a start would grow with the spool.
_HOLDS: Final = (
    "SELECT EXISTS(SELECT 1 FROM stream s CROSS JOIN body b ON b.stream = s.id"
    " WHERE s.resource = ?1)"
    " OR EXISTS(SELECT 1 FROM outbox o JOIN stream s ON s.id = o.stream"
    " WHERE o.state = 0 AND o.body IS NOT NULL AND s.resource = ?1)"
)


@dataclass(frozen=True, slots=True)
class Stored:
    """A resource as the file knows it."""

    id: ResourceId
    local: str
    version: int
    entry: ObjectId
    hash: bytes
    grade: int
    epoch: int
    decision: int
    data: bytes
    stream: Stream | None
    counters: Counters
    is_held: bool  # rows, bodies or headers of it are in this file


def read_stored(connection: sqlite3.Connection, boot: bytes) -> list[Stored]:
    """All resources of the file with their live streams."""
    found = []
    rows = connection.execute(
        "SELECT id, local, version, entry, hash, grade, epoch, decision, data FROM resource"
    ).fetchall()
    for row in rows:
        stream = _stream(connection, row[0], boot)
        totals = connection.execute(_TOTALS, (row[0],)).fetchone()
        counters = Counters(*totals)
        (holds,) = connection.execute(_HOLDS, (row[0],)).fetchone()
        is_held = bool(holds) or (stream is not None and bool(stream.rows))
        found.append(
            Stored(
                row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7], row[8],
                stream, counters, is_held,
            )
        )  # fmt: skip
    return found


def _stream(connection: sqlite3.Connection, resource: bytes, boot: bytes) -> Stream | None:
    row = connection.execute(_STREAM, (resource, int(StreamState.ENDED))).fetchone()
    if row is None:
        return None
    stream = Stream(
        id=StreamId(row[0]),
        next_row=row[1],
        next_seq=row[2],
        head=row[3],
        state=StreamState(row[4]),
        continues=row[5] if row[2] == 0 else None,
    )
    for item in connection.execute(_ROWS, (boot, resource)):
        stream.rows.append(
            JournalRow(
                item[0], StreamId(item[1]), RunId(item[2]), item[3], item[4],
                item[5], item[6], item[7], bool(item[8]),
            )
        )  # fmt: skip
        stream.waiting += item[4]
    return stream


async def load_bounds(
    database: Database, bounds: MutableMapping[str, Bound], register: Register, *, boot: bytes
) -> list[tuple[Bound, Bound]]:
    """Give every configured resource what the file knows of it.

    What is in the file and no longer in the configuration stays bound as it was registered while
    anything of it is held: the spool outlives the configuration, and what the hub answers to its
    segments must be followed like any other's. Returns (as registered, as
    configured) of resources that are described otherwise now and still have rows of before.
    """
    changed: list[tuple[Bound, Bound]] = []
    stored = await database.read(lambda connection: read_stored(connection, boot))
    by_id = {bound.id: bound for bound in bounds.values()}
    for found in stored:
        bound = by_id.get(found.id)
        if bound is None:
            if found.stream is not None and found.is_held:
                orphan = _as_registered(found)
                if orphan is not None:
                    bounds[f"{found.local} (removed)"] = orphan
            continue
        _restore(bound, found)
        bound.must_register = register.content_hash(bound) != found.hash
        if bound.must_register and found.stream is not None and found.stream.rows:
            before = _as_registered(found)
            if before is not None:
                changed.append((before, bound))
    return changed


async def keep_inside(database: Database, bounds: Mapping[str, Bound]) -> None:
    """Hold what is in the vault key-protected (重点保护级), whatever the configuration says now.

    The main file knows nothing of these resources, so it cannot be the one that keeps them.
    """
    stored = await database.read(lambda c: c.execute("SELECT id FROM resource").fetchall())
    ids = {row[0] for row in stored}
    for bound in bounds.values():
        if bound.leaves and bound.id in ids:
            bound.grade, bound.is_grade_kept = Grade.KEY_PROTECTED, True


def _restore(bound: Bound, found: Stored) -> None:
    if more_open(bound.grade, Grade(found.grade)):
        # Towards openness it needs the owner, not an editor of agent.toml.
        bound.grade, bound.is_grade_kept = Grade(found.grade), True
    bound.is_regraded = bound.grade is not Grade(found.grade)
    bound.entry, bound.entry_version = ObjectId(found.entry), found.version
    bound.entry_hash = found.hash
    bound.epoch, bound.decision = found.epoch, found.decision
    bound.stream, bound.counters = found.stream, found.counters


def _as_registered(found: Stored) -> Bound | None:
    """A resource as its entry or schema says it; None where that cannot be read any more."""
    try:
        pack = _pack_of(found)
    except (ShanmenError, msgspec.DecodeError):
        return None
    bound = Bound(
        settings=ResourceSettings(local=found.local, pack=pack),
        id=found.id,
        grade=Grade(found.grade),
        names=pack.names,
        layout=layout_of(pack),
        must_register=False,
    )
    _restore(bound, found)
    return bound


def _pack_of(found: Stored) -> Pack:
    """The pack that the rows of before were written by. Raises ShanmenError, DecodeError."""
    if rules(Grade(found.grade)).leaves:
        return pack_of(decode_payload(parse(found.data), Registration))
    return open_schema_row(found.data)
