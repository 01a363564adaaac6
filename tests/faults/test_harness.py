"""The harness is tested first: a shim that sees nothing would prove nothing."""

import os
import random
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import trace
from tests.faults.build import shim
from tests.faults.disk import Disk
from tests.faults.trace import Effect, Op
from tests.shared import ROOT

pytestmark = pytest.mark.needs_compiler

WRITER = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1] + "/a.db", isolation_level=None)
db.execute("pragma journal_mode=wal"); db.execute("pragma synchronous=" + sys.argv[2])
db.execute("create table t(n integer primary key)")
for i in range(40):
    db.execute("insert into t values(?)", (i,))
    print(i, flush=True)
"""


def run_writer(folder: Path, log: Path, synchronous: str, **extra: str) -> None:
    env = {
        **os.environ,
        "LD_PRELOAD": str(shim()),
        "SHIM_ROOT": str(folder),
        "SHIM_TRACE": str(log),
    }
    marker = trace.Marker(log)
    command = [sys.executable, "-c", WRITER, str(folder), synchronous]
    with subprocess.Popen(
        command, env={**env, **extra}, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        for line in child.stdout:
            marker.event("committed", line.strip().encode())
    marker.close()
    assert child.returncode == 0


def rows(disk: Path) -> int:
    if not (disk / "a.db").exists():
        return 0
    db = sqlite3.connect(disk / "a.db")
    try:
        return int(db.execute("select count(*) from t").fetchone()[0])
    except sqlite3.DatabaseError:
        return 0
    finally:
        db.close()


def lost_at_cuts(log: Path, folder: Path, points: int) -> int:
    """How many of the cuts lose a row that was reported as committed before."""
    effects = list(trace.read(log))
    rng = random.Random(7)
    cuts = set(rng.sample(range(len(effects)), points))
    disk, committed, losses = Disk(), 0, 0
    for at, effect in enumerate(effects):
        if effect.op == Op.EVENT:
            committed = int(effect.data) + 1
        else:
            disk.feed(effect)
        if at in cuts:
            target = folder / f"cut-{at}"
            disk.after_cut(target, rng)
            losses += rows(target) < committed
    return losses


def test_power_cuts_spare_a_synced_database_and_catch_an_unsynced_one(tmp_path: Path) -> None:
    for synchronous, expect_loss in (("full", False), ("off", True)):
        folder = tmp_path / synchronous
        folder.mkdir()
        run_writer(folder, tmp_path / f"{synchronous}.trace", synchronous)
        losses = lost_at_cuts(
            tmp_path / f"{synchronous}.trace", tmp_path / f"{synchronous}-cuts", 60
        )
        assert (losses > 0) == expect_loss, (synchronous, losses)


def test_what_the_process_sees_is_rebuilt_exactly(tmp_path: Path) -> None:
    folder = tmp_path / "live"
    folder.mkdir()
    run_writer(folder, tmp_path / "t", "full")
    disk = Disk()
    for effect in trace.read(tmp_path / "t"):
        if effect.op != Op.EVENT:
            disk.feed(effect)
    disk.whole(tmp_path / "copy")
    for path in folder.iterdir():
        assert (tmp_path / "copy" / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_rename_without_folder_sync_may_be_lost() -> None:
    disk = Disk()
    for op, path, data in (
        (Op.CREATE, "/p.tmp", b""),
        (Op.WRITE, "/p.tmp", b"body"),
        (Op.SYNC, "/p.tmp", b""),
        (Op.RENAME, "/p.tmp", b"/p"),
    ):
        disk.feed(Effect(op, path, 1, 0, data))
    assert "/p" not in disk.safe_names
    disk.feed(Effect(Op.DIRSYNC, "", 1, 0, b""))
    assert bytes(disk.safe_names["/p"].safe) == b"body"


def test_syncs_can_be_counted_slowed_and_failed(tmp_path: Path) -> None:
    count, flag = tmp_path / "count", tmp_path / "eio"
    folder = tmp_path / "db"
    folder.mkdir()
    run_writer(folder, tmp_path / "t", "full", SHIM_COUNT=str(count), SHIM_SYNC_MS="1")
    synced = sum(e.op in (Op.SYNC, Op.DIRSYNC) for e in trace.read(tmp_path / "t"))
    assert int.from_bytes(count.read_bytes(), "little") == synced >= 40
    flag.touch()
    env = {
        **os.environ,
        "LD_PRELOAD": str(shim()),
        "SHIM_ROOT": str(folder),
        "SHIM_SYNC_EIO": str(flag),
    }
    code = "import os, sys; fd = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY); os.fsync(fd)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder / "x")],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert "Errno 5" in done.stderr
