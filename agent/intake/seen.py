"""Identities of messages that were committed: what makes class A exactly once.

On disk one row a commit holds the keyed hashes of its messages, written in the commit of their
records; in memory 64 bits of each stand in two open-addressing tables. A B-tree over random keys
would dirty a page or two for each message (measured: 250 KB of WAL for a commit of 64 messages,
70 GB a day at 100 messages/s); a row a commit costs 16 bytes a message. Two different messages of
one agent meet in 64 keyed bits once in 10^13 at the million that is remembered at most.

Their number bounds them. Age does so too, because ids of devices start over; but only where it is
known: by monotonic time within a run, between runs by times that a trusted clock gave. A gateway
that wakes up in 1970, or next year, forgets nothing.
"""

import sqlite3
from array import array
from collections.abc import Iterable, Sequence
from typing import Final

KEY_BYTES: Final = 16
_SLOTS_MIN: Final = 1 << 12
_EMPTY: Final = 0
_UNKNOWN: Final = 0  # `at` of a commit under a clock that nobody vouched for
ROWS_DELETED_MAX: Final = 500  # forgotten rows removed at once
ROWS_BETWEEN_DELETES: Final = 100


class Table:
    """A set of 64-bit numbers in 8 to 16 bytes each; grows by doubling, never shrinks."""

    __slots__ = ("_mask", "_slots", "count")

    def __init__(self) -> None:
        self.count = 0
        self._mask = _SLOTS_MIN - 1
        self._slots = array("Q", bytes(8 * _SLOTS_MIN))

    def __contains__(self, number: int) -> bool:
        slots, mask = self._slots, self._mask
        at = number & mask
        while slots[at] != _EMPTY:
            if slots[at] == number:
                return True
            at = (at + 1) & mask
        return False

    def add(self, numbers: Iterable[int]) -> None:
        """Add numbers that are not in it."""
        for number in numbers:
            if 2 * self.count > self._mask:
                self._grow()
            slots, mask = self._slots, self._mask
            at = number & mask
            while slots[at] != _EMPTY:
                at = (at + 1) & mask
            slots[at] = number
            self.count += 1

    def _grow(self) -> None:
        old = self._slots
        self._mask = 2 * len(old) - 1
        self._slots = array("Q", bytes(16 * len(old)))
        self.count = 0
        self.add(number for number in old if number != _EMPTY)


class Seen:
    """Remembered identities, bounded by age and count; moved only after COMMIT.

    The newest `count_max` of the last `age_us` at least, twice as many and as old at most: the
    young table takes over from the old one when it has come to a bound by itself.

    earlier: the memory of another file that took these messages before their resource moved here;
    asked too, never written. For the loop only, which alone moves either.
    """

    def __init__(self, *, age_us: int, count_max: int) -> None:
        self._age_us = age_us
        self._count_max = max(1, count_max)  # of each table: one alone keeps the promise
        self._young, self._old = Table(), Table()
        self._young_from = 0  # first row id of the young table
        self._old_from = 0
        self._young_at = 0  # monotonic time at which the young table began, µs
        self.earlier: Seen | None = None

    def __contains__(self, key: object) -> bool:
        number = int.from_bytes(key[:8], "little") or 1 if isinstance(key, bytes) else 0
        if number in self._young or (self._old.count > 0 and number in self._old):
            return True
        return self.earlier is not None and key in self.earlier

    def load(
        self, connection: sqlite3.Connection, *, trusted_us: int | None, monotonic_us: int
    ) -> None:
        """Read what is remembered, newest first, up to the bounds. On the database's thread.

        trusted_us: the time, µs UTC; None while nobody vouches for the clock: then nothing is old.
        """
        self._young_at = monotonic_us
        old_us = None if trusted_us is None else trusted_us - self._age_us
        rows = connection.execute("SELECT id, at, keys FROM seen ORDER BY id DESC")
        for row_id, at_us, keys in rows:
            if old_us is not None and _UNKNOWN < at_us < old_us:
                continue  # of this row alone: a clock may have been wrong when it was written
            numbers = [n for n in _numbers(keys) if n not in self._young and n not in self._old]
            if self._young.count < self._count_max:
                self._young.add(numbers)
                self._young_from = row_id
            elif self._old.count < self._count_max:
                self._old.add(numbers)
                self._old_from = row_id
            else:
                break
        rows.close()

    def write(
        self, connection: sqlite3.Connection, keys: Sequence[bytes], trusted_us: int | None
    ) -> int:
        """Insert the keys of a commit and remove some forgotten ones; gives the new row's id."""
        row = connection.execute(
            "INSERT INTO seen(at, keys) VALUES(?, ?)", (trusted_us or _UNKNOWN, b"".join(keys))
        ).lastrowid
        oldest = self._old_from or self._young_from
        if oldest and row is not None and row % ROWS_BETWEEN_DELETES == 0:
            connection.execute(
                "DELETE FROM seen WHERE id IN (SELECT id FROM seen WHERE id < ? LIMIT ?)",
                (oldest, ROWS_DELETED_MAX),
            )
        return row or 0

    def move(self, keys: Sequence[bytes], row_id: int, monotonic_us: int) -> None:
        """Remember the keys of a commit; above the bounds the older table is forgotten."""
        is_full = self._young.count + len(keys) > self._count_max
        if is_full or monotonic_us - self._young_at > self._age_us:
            self._old, self._old_from = self._young, self._young_from or row_id
            self._young, self._young_from, self._young_at = Table(), row_id, monotonic_us
        elif not self._young_from:
            self._young_from = row_id
        self._young.add(map(_number, keys))


def _number(key: bytes) -> int:
    return int.from_bytes(key[:8], "little") or 1


def _numbers(keys: bytes) -> Iterable[int]:
    for at in range(0, len(keys), KEY_BYTES):
        yield _number(keys[at : at + KEY_BYTES])
