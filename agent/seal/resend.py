"""What the hub had once and lacks now is due again: statements of the caller's transaction.

A hub that was restored from a backup says so with a new generation. Bodies in grace then name
leaves of a ledger that is gone: they must be due again in the same transaction that believes the
new generation, or `backed_up_to` of the new ledger would be compared with leaves of the old one.
"""

import sqlite3
from dataclasses import dataclass
from typing import Final

from agent.seal.batch import Ref
from agent.store.schema import BodyState, OutboxState
from agent.store.segments import head_bytes, is_head, is_object
from protocol.errors import ShanmenError
from protocol.segment import parse

MISSING_MAX: Final = 1_000  # segments looked at for one `missing`


@dataclass(frozen=True, slots=True)
class Returned:
    """Bodies of one resource that are due again: their receipts count no more."""

    resource: bytes
    bodies: int
    records: int


def resend_all(connection: sqlite3.Connection) -> list[Returned]:
    """After a restore of the hub: everything that is still held is sent again."""
    connection.execute(
        "UPDATE outbox SET state = ?, leaf = NULL WHERE state = ? AND kind != 'schema'",
        (int(OutboxState.DUE), int(OutboxState.SENT)),
    )
    rows = connection.execute(
        "SELECT s.resource, count(*), sum(b.n) FROM body b JOIN stream s ON s.id = b.stream"
        " WHERE b.state = ? GROUP BY s.resource",
        (int(BodyState.GRACE),),
    ).fetchall()
    connection.execute(
        "UPDATE stream SET due_n = due_n + grace_n, due_bytes = due_bytes + grace_bytes,"
        " grace_n = 0, grace_bytes = 0, accepted = accepted - coalesce((SELECT sum(b.n)"
        " FROM body b WHERE b.stream = stream.id AND b.state = ?), 0)",
        (int(BodyState.GRACE),),
    )
    connection.execute(
        "UPDATE body SET state = ? WHERE state = ?", (int(BodyState.DUE), int(BodyState.GRACE))
    )
    return [Returned(resource, bodies, records) for resource, bodies, records in rows]


def resend_registration(
    connection: sqlite3.Connection, resource: bytes, *, is_insisting: bool
) -> bool:
    """Queue the registration in force once more, unless it is queued already.

    False: the hub refused it for good. Then it is queued again only if `is_insisting`, and its
    row is used again: one that is refused each time must not fill the disk.
    """
    row = connection.execute(
        "SELECT entry, data FROM resource WHERE id = ?", (resource,)
    ).fetchone()
    if row is None:
        return True
    if _queue_again(connection, row[0]):
        return True
    (refused,) = connection.execute(
        "SELECT max(id) FROM outbox WHERE object = ? AND state = ?",
        (row[0], int(OutboxState.REFUSED)),
    ).fetchone()
    if refused is None:
        connection.execute(
            "INSERT INTO outbox(kind, state, object, data) VALUES('registration', ?, ?, ?)",
            (int(OutboxState.DUE), row[0], row[1]),
        )
    elif is_insisting:
        connection.execute(
            "UPDATE outbox SET state = ? WHERE id = ?", (int(OutboxState.DUE), refused)
        )
    return refused is None


def resend_entry(
    connection: sqlite3.Connection, ref: Ref, public: bytes, *, current: bytes
) -> bool:
    """Queue once more the entry that a segment names, if it is not the one in force.

    public: our own signing key. False: the entry stands nowhere any more, so the segment cannot
    go as it is.
    """
    head = head_bytes(connection, ref.stream, ref.seq)
    try:
        entry = parse(head or b"", body=False).verify(public).header.entry
    except ShanmenError:
        return True  # damaged: told when it is sent
    return entry == current or _queue_again(connection, entry)


def _queue_again(connection: sqlite3.Connection, entry: bytes) -> bool:
    """Make an entry due that stands in the outbox; one that is held stays so. False: none does."""
    queued = connection.execute(
        "UPDATE outbox SET state = CASE state WHEN ?2 THEN ?2 ELSE ?1 END"
        " WHERE object = ?3 AND state IN (?1, ?2, ?4)",
        (int(OutboxState.DUE), int(OutboxState.HELD), entry, int(OutboxState.SENT)),
    ).rowcount
    return queued > 0


def resend_chain(
    connection: sqlite3.Connection, stream: bytes, start: int, stop: int
) -> tuple[bool, list[Returned]]:
    """Make segments start..stop-1 due again; header-only where the body went. False: a hole."""
    returned: list[Returned] = []
    for seq in range(start, min(stop, start + MISSING_MAX)):
        body = connection.execute(
            "SELECT b.id, b.state, b.size, b.n, s.resource FROM body b"
            " LEFT JOIN stream s ON s.id = b.stream WHERE b.stream = ? AND b.seq = ?",
            (stream, seq),
        ).fetchone()
        if body is not None and body[1] == BodyState.GRACE:
            connection.execute(
                "UPDATE body SET state = ? WHERE id = ?", (int(BodyState.DUE), body[0])
            )
            connection.execute(
                "UPDATE stream SET due_n = due_n + 1, due_bytes = due_bytes + ?,"
                " grace_n = grace_n - 1, grace_bytes = grace_bytes - ?, accepted = accepted - ?"
                " WHERE id = ?",
                (body[2], body[2], body[3], stream),
            )
            returned.append(Returned(body[4] or b"", 1, body[3]))
        elif (body is None or body[1] == BodyState.BAD) and not _header_again(
            connection, stream, seq, body[0] if body else None
        ):
            return False, returned
    return True, returned


def _header_again(
    connection: sqlite3.Connection, stream: bytes, seq: int, body: int | None
) -> bool:
    head = head_bytes(connection, stream, seq)
    if head is None:
        return False
    queued = connection.execute(
        "SELECT 1 FROM outbox WHERE kind = 'header' AND stream = ? AND seq = ? AND state = ?",
        (stream, seq, int(OutboxState.DUE)),
    ).fetchone()
    if queued is None:
        # Row 0 of a body that is gone: before all that are there.
        queue_header(connection, stream, seq, head, body=body or 0, reason="evicted")
    return True


def queue_header(
    connection: sqlite3.Connection, stream: bytes, seq: int, head: bytes, *, body: int, reason: str
) -> None:
    """Put a header-only item into the place of the body in row `body`; 0: before all bodies."""
    connection.execute(
        "INSERT INTO outbox(kind, state, object, body, stream, seq, data)"
        " VALUES('header', ?, ?, ?, ?, ?, ?)",
        (int(OutboxState.DUE), reason.encode(), body, stream, seq, head),
    )


def mend_item(connection: sqlite3.Connection, ref: Ref, public: bytes) -> str:
    """Take a damaged item of the outbox from where it stands a second time.

    public: our own signing key. Returns its kind if it is whole nowhere: it is sent no more.
    """
    if ref.kind == "header":
        second = head_bytes(connection, ref.stream, ref.seq)
        kind, is_whole = "header", is_head(second, _segment_id(connection, ref))
    else:
        found = connection.execute(
            "SELECT kind, object FROM outbox WHERE id = ?", (ref.row,)
        ).fetchone()
        if found is None:
            return ""  # it went meanwhile
        kind, entry = found
        row = connection.execute("SELECT data FROM resource WHERE entry = ?", (entry,)).fetchone()
        second = row[0] if row else None
        is_whole = is_object(second, entry, public)
    if is_whole:
        connection.execute("UPDATE outbox SET data = ? WHERE id = ?", (second, ref.row))
        return ""
    connection.execute(
        "UPDATE outbox SET state = ? WHERE id = ?", (int(OutboxState.REFUSED), ref.row)
    )
    return str(kind)


def _segment_id(connection: sqlite3.Connection, ref: Ref) -> bytes | None:
    row = connection.execute(
        "SELECT id FROM chain WHERE stream = ? AND seq = ?", (ref.stream, ref.seq)
    ).fetchone()
    return row[0] if row else None


def take_headers(
    connection: sqlite3.Connection, stream: bytes, first: int
) -> list[tuple[int, str, bytes]]:
    """Take out the header-only items of a stream from segment `first` on: the hub takes none of it.

    Returns (seq, reason, head) of each, in the order of their seqs.
    """
    return [
        (seq, str(reason, "utf-8", "replace"), head)
        for seq, reason, head in sorted(
            connection.execute(
                "DELETE FROM outbox WHERE body IS NOT NULL AND stream = ? AND seq >= ?"
                " RETURNING seq, object, data",
                (stream, first),
            ).fetchall()
        )
    ]
