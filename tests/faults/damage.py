"""What happens to the agent's file while nobody looks, or while its budget is used up."""

import sqlite3
from pathlib import Path

BUDGET_MIB = 64  # of the worlds' agents


def spoil_first_due(path: Path) -> None:
    """Flip a bit in the oldest body that waits."""
    with sqlite3.connect(path) as db:
        row = db.execute(
            "SELECT c.id, c.data FROM content c JOIN body b ON b.id = c.id WHERE b.state = 2"
            " ORDER BY b.id LIMIT 1"
        ).fetchone()
        if row is not None:
            data = bytearray(row[1])
            data[len(data) // 2] ^= 4
            db.execute("UPDATE content SET data = ? WHERE id = ?", (bytes(data), row[0]))
    db.close()


def add_ballast(path: Path) -> None:
    """A table of somebody's that takes the whole budget."""
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE IF NOT EXISTS ballast(b BLOB)")
        for _ in range(BUDGET_MIB):
            db.execute("INSERT INTO ballast VALUES(zeroblob(1048576))")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    db.close()


def drop_ballast(path: Path) -> None:
    """Room again; also while the agent runs."""
    with sqlite3.connect(path, timeout=20) as db:
        db.execute("DROP TABLE IF EXISTS ballast")
    db.close()


def flip_in_log(path: Path, where: float) -> None:
    """Flip one bit of a log of SQLite, in its first half: later commits follow."""
    size = path.stat().st_size if path.exists() else 0
    if size < 3 * 4120:
        return
    at = 32 + int(where * (size // 2 - 32))
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 16]))
