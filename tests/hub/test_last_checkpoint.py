"""The file outside the database: torn writes, restarts, damage."""

import os
from pathlib import Path

import pytest

from hub import last_checkpoint
from hub.last_checkpoint import ANCHOR, SLOT_BYTES, LastCheckpoint
from protocol.checkpoint import make_note, parse_note
from protocol.errors import UnavailableError
from protocol.limits import NOTE_BYTES_MAX
from tests.hub.kit import LOG_KEY


def note(size: int) -> str:
    return make_note("shanmen-hub/x/1", size, bytes([size % 256]) * 32, LOG_KEY)


def sizes(path: Path) -> set[int]:
    return {parse_note(one).size for one in LastCheckpoint(path).read()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "last-checkpoint"


def test_the_newest_is_always_there(path: Path) -> None:
    last = LastCheckpoint(path)
    assert last.read() == []
    for size in range(1, 8):
        last.write(note(size))
        assert max(sizes(path)) == size
    last.close()
    last = LastCheckpoint(path)  # a restart begins the file anew
    last.write(note(8))
    assert sizes(path) == {8}
    last.close()


def test_a_torn_slot_leaves_the_one_before(path: Path) -> None:
    last = LastCheckpoint(path)
    for size in range(1, 6):
        last.write(note(size))
    for slot in range(ANCHOR + 1):
        data = path.read_bytes()
        at = slot * SLOT_BYTES
        for cut in (0, 1, 64, 65, 200):
            torn = data[: at + cut] + b"\x00" * (SLOT_BYTES - cut) + data[at + SLOT_BYTES :]
            path.write_bytes(torn)
            assert max(sizes(path)) >= 4
        path.write_bytes(data)
    last.close()


def test_both_torn_slots_leave_the_anchor(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_checkpoint, "ANCHOR_EVERY", 4)
    synced: list[int] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: (synced.append(handle), real(handle))[0])
    last = LastCheckpoint(path)
    last.write(note(1))
    synced.clear()
    for size in range(2, 12):
        last.write(note(size))
    assert len(synced) == 4, "two syncs each fourth write"
    data = path.read_bytes()
    path.write_bytes(b"\xff" * (ANCHOR * SLOT_BYTES) + data[ANCHOR * SLOT_BYTES :])
    assert sizes(path) == {9}
    last.close()


def test_rubbish_is_no_checkpoint(path: Path) -> None:
    for rubbish in (b"", b"\n" * SLOT_BYTES, os.urandom(3 * SLOT_BYTES), b"x"):
        path.write_bytes(rubbish)
        assert LastCheckpoint(path).read() == []


def test_the_longest_note_fits_a_slot() -> None:
    assert NOTE_BYTES_MAX + 65 < SLOT_BYTES


def test_a_file_that_cannot_be_written_stops_the_answer(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError):
        LastCheckpoint(tmp_path / "absent" / "last-checkpoint").write(note(1))
