"""How full the agent's file is, what is still allowed, and the reserve that receipts need.

The limit is SQLite's `max_page_count`, not the file system: database + WAL limit + reserve fit the
budget. Recording a receipt in a full file needs space too (the WAL is copied first), so the reserve
is 2 x WAL limit + 8 MiB; in the state FULL it is given back to the file system and to SQLite.
"""

import os
import sqlite3
import sys
from enum import IntEnum
from pathlib import Path
from typing import Final

from agent.store.schema import PAGE_BYTES, WAL_LIMIT_BYTES

RESERVE_BYTES: Final = 2 * WAL_LIMIT_BYTES + (8 << 20)
POLLED_STOP: Final = 0.85
ACKS_STOP: Final = 0.95
LEAVE_FULL: Final = 0.80
PAGES_MIN: Final = 64
MARGIN_PAGES: Final = (32 << 20) // PAGE_BYTES


class DiskLevel(IntEnum):
    """What may still be written, from everything to receipts only."""

    NORMAL = 0
    POLLED_STOP = 1  # ≥ 85 %: drivers that poll stop; what their source keeps is not lost
    ACKS_STOP = 2  # ≥ 95 %: nothing is journalled or acknowledged; seals, receipts, notes go on
    FULL = 3  # SQLITE_FULL: receipts only; left below 80 %
    UNKNOWN = 4  # a COMMIT or fsync failed: nothing until the commit number has been read again


class Disk:
    """The level of one file. Used on the database's thread only."""

    def __init__(self, path: Path, *, budget_bytes: int) -> None:
        self.level = DiskLevel.NORMAL
        self.used_pages = 0
        self._reserve_path = reserve_of(path)
        self._reserve_bytes = min(RESERVE_BYTES, budget_bytes // 4)
        data_bytes = budget_bytes - self._reserve_bytes - min(WAL_LIMIT_BYTES, budget_bytes // 8)
        self.pages = max(data_bytes // PAGE_BYTES, PAGES_MIN)

    @property
    def share(self) -> float:
        """Used part of the file's limit, 0..1 (above 1 while the reserve is in use)."""
        return self.used_pages / self.pages

    @property
    def is_close(self) -> bool:
        """Whether a few commits of 1 MiB may reach the next level: then each is measured."""
        return self.used_pages + MARGIN_PAGES > self.pages * POLLED_STOP

    def max_pages(self) -> int:
        """`max_page_count` for the present level."""
        extra = self._reserve_bytes // PAGE_BYTES if self.level is DiskLevel.FULL else 0
        return self.pages + extra

    def measure(self, connection: sqlite3.Connection) -> bool:
        """Count pages and choose the level; True if the level changed."""
        (count,) = connection.execute("PRAGMA page_count").fetchone()
        (free,) = connection.execute("PRAGMA freelist_count").fetchone()
        self.used_pages = count - free
        before = self.level
        if before is DiskLevel.FULL:
            if self.share < LEAVE_FULL:
                self._leave_full(connection, count)
        else:
            self.level = level_of(self.share)
        return self.level is not before

    def enter_full(self, connection: sqlite3.Connection) -> None:
        """Give the reserve back, so that receipts can still be recorded."""
        if self.level is DiskLevel.FULL:
            return
        self.level = DiskLevel.FULL
        self._reserve_path.unlink(missing_ok=True)
        sys.audit("shanmen.point", "reserve.released")
        connection.execute(f"PRAGMA max_page_count = {self.max_pages()}").fetchall()

    def _leave_full(self, connection: sqlite3.Connection, page_count: int) -> None:
        self.level = level_of(self.share)
        connection.execute(f"PRAGMA max_page_count = {self.max_pages()}").fetchall()
        self.keep_reserve(page_count)
        sys.audit("shanmen.point", "reserve.restored")

    def keep_reserve(self, page_count: int) -> None:
        """Hold the reserve's blocks. A file that outgrew its limit counts against the reserve."""
        size = self._reserve_bytes - max(0, page_count - self.pages) * PAGE_BYTES
        if size <= 0:
            return
        descriptor = os.open(self._reserve_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(descriptor).st_size != size:
                os.ftruncate(descriptor, 0)
                os.posix_fallocate(descriptor, 0, size)
        except OSError:
            # The file system is fuller than the budget believes: go on without a reserve.
            os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)


def reserve_of(path: Path) -> Path:
    """Where the reserve of a database stands; there from its first start on, unless it is full."""
    return path.with_name(path.name + ".reserve")


def level_of(share: float) -> DiskLevel:
    """The level for a used part of the limit."""
    if share >= ACKS_STOP:
        return DiskLevel.ACKS_STOP
    return DiskLevel.POLLED_STOP if share >= POLLED_STOP else DiskLevel.NORMAL
