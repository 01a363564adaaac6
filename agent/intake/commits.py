"""What one commit group is made of on its way into the file, and what made no journal row."""

import sqlite3
from dataclasses import dataclass, field

from agent.intake.covered import Key
from agent.intake.groups import Part, Prepared
from agent.intake.register import Birth
from agent.store.resources import JournalRow, Stream
from agent.store.runs import Run
from devices.driver import Lost
from protocol.times import ClockMark


@dataclass(slots=True)
class Change:
    """What one commit moved, to be moved in memory after it."""

    part: Part
    stream: Stream
    next_row: int
    rows: list[JournalRow] = field(default_factory=list)
    birth: Birth | None = None


@dataclass(frozen=True, slots=True)
class Stamp:
    """When a group was committed, by which run and clock."""

    run: Run
    wall_us: int
    boot_us: int
    mark: ClockMark  # what the wall clock was worth
    turn: int = 0  # of the watermarks that it moves

    @property
    def trusted_us(self) -> int | None:
        """The UTC of the commit; None where nobody vouches for the clock."""
        return self.mark.trusted_us(self.wall_us)


@dataclass(slots=True)
class Committed:
    """What a commit group wrote, to be moved in memory after it."""

    prepared: Prepared
    changes: list[Change]
    seen_row: int
    uncounted: dict[tuple[str, str], int]  # by resource, or by driver
    noted: set[tuple[bytes, bytes, Key]]
    waiting: list[tuple[str, Lost]]  # losses of sources whose resource has no stream yet


def count_without_rows(connection: sqlite3.Connection, prepared: Prepared) -> None:
    """Counters of what made no journal row: duplicates, and parts that were refused whole."""
    totals: dict[bytes, list[int]] = {}
    for bound in prepared.duplicates:
        if bound.stream is not None:
            totals.setdefault(bound.stream.id, [0, 0])[0] += 1
    for part in prepared.parts:
        if not part.bodies and part.quarantined and part.bound.stream is not None:
            totals.setdefault(part.bound.stream.id, [0, 0])[1] += part.quarantined
    connection.executemany(
        "UPDATE stream SET duplicates = duplicates + ?, quarantined = quarantined + ? WHERE id = ?",
        [(duplicates, refused, stream) for stream, (duplicates, refused) in totals.items()],
    )
