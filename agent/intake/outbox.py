"""Objects of the gateway's own on their way to the hub; every loss is declared by one of them."""

import sqlite3

from agent.store.ports import Randomness
from agent.store.schema import OutboxState
from protocol.envelope import Envelope, SigningKey
from protocol.ids import ResourceId, StreamId
from protocol.limits import NONCE_BYTES
from protocol.notes import Gap, GapUnit, make_gap


def queue_object(
    connection: sqlite3.Connection, envelope: Envelope, *, is_held: bool = False
) -> None:
    """Put a signed object of the agent's own into the outbox; order is kept."""
    state = OutboxState.HELD if is_held else OutboxState.DUE
    connection.execute(
        "INSERT INTO outbox(kind, state, object, data) VALUES(?, ?, ?, ?)",
        (envelope.kind, int(state), envelope.object_id, envelope.raw),
    )


def queue_gap(
    connection: sqlite3.Connection,
    place: tuple[ResourceId, StreamId],
    span: tuple[GapUnit, int, int],
    *,
    count: int | None,
    reason: str,
    signer: SigningKey,
    random: Randomness,
) -> None:
    """Queue the note that records of a stream do not come.

    span: unit, first and last, inclusive. count: how many records, where that is known.
    """
    unit, first, last = span
    note = Gap(
        resource=place[0],
        stream=place[1],
        unit=unit,
        first=first,
        last=last,
        count=count,
        reason=reason,
        nonce=random(NONCE_BYTES),
    )
    queue_object(connection, make_gap(note, signer))
