"""A log that a power cut tore in its last transaction is no damage; a flipped bit there is."""

import sqlite3
from pathlib import Path

import pytest

from agent.store import wal
from agent.store.wal import WalState

FRAME = wal.FRAME_BYTES + 4096


def log_of(folder: Path) -> tuple[bytearray, int]:
    """A log with two transactions of many pages, and where the second begins."""
    path = folder / "a.db"
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA page_size=4096")
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("CREATE TABLE t(b BLOB)")
    db.execute("BEGIN")
    db.execute("INSERT INTO t VALUES(randomblob(40000))")
    db.execute("COMMIT")
    size = (folder / "a.db-wal").stat().st_size
    db.execute("INSERT INTO t VALUES(randomblob(40000))")
    raw = bytearray((folder / "a.db-wal").read_bytes())
    db.close()
    return raw, size


@pytest.mark.parametrize("sectors", [1, 3, 8])
def test_missing_sectors_of_the_last_transaction_are_a_torn_end(
    tmp_path: Path, sectors: int
) -> None:
    raw, second = log_of(tmp_path)
    at = second + 3 * FRAME + 600
    raw[at : at + 512 * sectors] = bytes(512 * sectors)
    torn = tmp_path / "torn-wal"
    torn.write_bytes(raw)
    found = wal.walk(torn)
    assert found.state is WalState.TORN
    assert wal.HEADER_BYTES + found.good * FRAME <= second + 3 * FRAME


def test_missing_sectors_of_an_earlier_transaction_are_damage(tmp_path: Path) -> None:
    raw, second = log_of(tmp_path)
    raw[second - 2 * FRAME : second - 2 * FRAME + 512] = bytes(512)
    torn = tmp_path / "damaged-wal"
    torn.write_bytes(raw)
    assert wal.walk(torn).state is WalState.DAMAGED


def test_a_flipped_bit_in_the_last_transaction_is_damage(tmp_path: Path) -> None:
    raw, second = log_of(tmp_path)
    raw[second + 2 * FRAME + 100] ^= 8
    flipped = tmp_path / "flipped-wal"
    flipped.write_bytes(raw)
    assert wal.walk(flipped).state is WalState.DAMAGED
