"""What was refused at the door: a bad record never blocks, and is never dropped without a count.

Rows are sealed under a key derived from the root key. At most 5 % of the budget; above it a row per
driver and reason keeps a count and a running hash, a gap note tells the hub, an alarm the people
at the gateway.
"""

import hashlib
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from agent.store.ports import Randomness
from agent.store.rest import RootKey, lock, unlock
from protocol.records import Record

SHARE_OF_BUDGET: Final = 0.05
RAW_BYTES_MAX: Final = 64 * 1024

_FULL_SUFFIX: Final = "+full"


@dataclass(frozen=True, slots=True)
class Refused:
    """Records or a raw message that were refused for one reason."""

    driver: str
    reason: str  # message key, e.g. "range"
    count: int
    plain: bytes  # msgpack of the records, or the device's bytes
    resource: str = ""  # local name where it is known
    records: Sequence[Record] = ()  # as handed over, where it had become any


@dataclass(frozen=True, slots=True)
class QuarantineRow:
    """One quarantined item as a technician sees it."""

    id: int
    driver: str
    reason: str
    at_us: int
    count: int
    plain: bytes | None  # None where only count and hash were kept


def refused_records(driver: str, resource: str, reason: str, records: Sequence[Record]) -> Refused:
    """Records that did not fit their pack, for the quarantine."""
    plain = msgspec.msgpack.encode([resource, list(records)], enc_hook=repr)
    return Refused(driver, reason, len(records), plain[:RAW_BYTES_MAX], resource, records)


class Quarantine:
    """The table `quarantine` of one file. `put` runs inside the commit of the good records."""

    def __init__(self, root: RootKey, random: Randomness, *, budget_bytes: int) -> None:
        self._key = root.derive(b"quarantine")
        self._random = random
        self._bytes_max = int(budget_bytes * SHARE_OF_BUDGET)
        self.is_full = False  # an item of the largest size would be counted only

    def load(self, connection: sqlite3.Connection) -> None:
        """Learn how full it is."""
        self._judge(used_bytes(connection))

    def _judge(self, used: int) -> None:
        self.is_full = used + RAW_BYTES_MAX > self._bytes_max

    def put(
        self, connection: sqlite3.Connection, rows: Sequence[Refused], at_us: int
    ) -> dict[tuple[str, str], int]:
        """Store refused items. Returns how many went by count and hash only.

        By resource, and by driver where the resource is not known: raw messages.
        """
        used = used_bytes(connection)
        before = used
        held = held_rows(connection)
        added = 0
        uncounted: dict[tuple[str, str], int] = {}
        for row in rows:
            sealed = lock(self._key, row.driver.encode(), row.plain, self._random)
            if used + len(sealed) > self._bytes_max:
                added += self._count(connection, row, at_us)
                where = (row.resource, "" if row.resource else row.driver)
                uncounted[where] = uncounted.get(where, 0) + row.count
                continue
            used += len(sealed)
            added += 1
            connection.execute(
                "INSERT INTO quarantine(driver, reason, at, n, body) VALUES(?, ?, ?, ?, ?)",
                (row.driver, row.reason, at_us, row.count, sealed),
            )
        if used != before:
            set_used_bytes(connection, used)
            self._judge(used)
        if added:
            _set_held_rows(connection, held + added)
        return uncounted

    def _count(self, connection: sqlite3.Connection, row: Refused, at_us: int) -> bool:
        """Keep count and hash of one item; True if that took a new row."""
        reason = row.reason + _FULL_SUFFIX
        found = connection.execute(
            "SELECT id, body FROM quarantine WHERE driver = ? AND reason = ? LIMIT 1",
            (row.driver, reason),
        ).fetchone()
        state = hashlib.blake2b((found[1] if found else b"") + row.plain, digest_size=32).digest()
        if found is None:
            connection.execute(
                "INSERT INTO quarantine(driver, reason, at, n, body) VALUES(?, ?, ?, ?, ?)",
                (row.driver, reason, at_us, row.count, state),
            )
        else:
            connection.execute(
                "UPDATE quarantine SET n = n + ?, at = ?, body = ? WHERE id = ?",
                (row.count, at_us, state, found[0]),
            )
        return found is None

    def rows(
        self, connection: sqlite3.Connection, *, after: int = 0, limit: int = 100
    ) -> list[QuarantineRow]:
        """Quarantined items in order, opened. Raises DecodeError for a damaged one."""
        found = connection.execute(
            "SELECT id, driver, reason, at, n, body FROM quarantine WHERE id > ? ORDER BY id"
            " LIMIT ?",
            (after, limit),
        ).fetchall()
        return [QuarantineRow(r[0], r[1], r[2], r[3], r[4], self._plain(r)) for r in found]

    def _plain(self, row: tuple[int, str, str, int, int, bytes]) -> bytes | None:
        if row[2].endswith(_FULL_SUFFIX):
            return None
        return unlock(self._key, row[1].encode(), row[5])


def used_bytes(connection: sqlite3.Connection) -> int:
    """Bytes that quarantined bodies take; kept beside them, so that nobody has to add them up."""
    row = connection.execute("SELECT v FROM meta WHERE k = 'quarantine_bytes'").fetchone()
    return int(row[0]) if row else 0


def set_used_bytes(connection: sqlite3.Connection, size: int) -> None:
    """Write the total that `used_bytes` reads."""
    connection.execute("INSERT OR REPLACE INTO meta(k, v) VALUES('quarantine_bytes', ?)", (size,))


def held_rows(connection: sqlite3.Connection) -> int:
    """How many items are quarantined; kept beside them like their bytes. No row ever goes."""
    row = connection.execute("SELECT v FROM meta WHERE k = 'quarantine_rows'").fetchone()
    if row is None:  # a file of before; the next item writes it
        row = connection.execute("SELECT count(*) FROM quarantine").fetchone()
    return int(row[0])


def _set_held_rows(connection: sqlite3.Connection, count: int) -> None:
    connection.execute("INSERT OR REPLACE INTO meta(k, v) VALUES('quarantine_rows', ?)", (count,))
