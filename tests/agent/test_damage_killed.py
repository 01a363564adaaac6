"""Killed between the repair of a file and the declaration of its loss: still declared, and once."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.store import recovery
from protocol.notes import Gap
from tests.agent.kit import Dice, Site
from tests.agent.test_damage import PAGE, accounted, closed, copy_of, filled

_WATCH: Callable[[str], None] | None = None


def _hook(event: str, args: tuple) -> None:
    if _WATCH is not None and event == "shanmen.point":
        _WATCH(str(args[0]))


sys.addaudithook(_hook)  # cannot be taken away again


async def killed_at(site: Site, point: str) -> Site | None:
    """A site with the files as a kill at `point` leaves them; None if the point is not passed."""
    global _WATCH
    target = site.folder.with_name(f"{site.folder.name}-{point}")
    hub = copy_of(site.hub)

    def watch(name: str) -> None:
        if name == point and not target.exists():
            shutil.copytree(site.folder, target)
            (target / "spool.db-shm").unlink(missing_ok=True)

    _WATCH = watch
    try:
        async with site.running():
            pass
    finally:
        _WATCH = None
    return Site(target, hub=hub, dice=Dice(77)) if target.exists() else None


async def declares(site: Site, numbers: set[int], *, loses: bool = True) -> list[Gap]:
    for turn in range(2):
        async with site.running():
            assert bool(site.core.damage) == (turn == 0)
            await site.give(100_000 + turn)
            await site.drain()
    accounted(site, numbers | {100_000, 100_001})
    gaps = [note for note in site.hub.notes() if isinstance(note, Gap)]
    assert gaps or not loses
    assert not recovery.note_of(site.folder / "spool.db").exists()
    return gaps


POINTS = ["damage.copied", "damage.rebuilt", "spool.opened", "recover.before", "recover.after"]


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("harm", ["emptied", "gone", "head", "pages"])
async def test_a_killed_repair_is_declared_at_the_next_start(tmp_path, point, harm):
    (tmp_path / "a").mkdir()
    site, numbers = await closed(tmp_path / "a")
    path = site.folder / "spool.db"
    if harm == "emptied":
        path.write_bytes(b"")
        path.with_name("spool.db-wal").write_bytes(b"")
    elif harm == "gone":
        path.unlink()
    else:
        data = bytearray(path.read_bytes())
        for at in range(0, PAGE if harm == "head" else len(data), 8 * PAGE):
            data[at : at + PAGE] = b"\xa5" * PAGE
        path.write_bytes(data)
    again = await killed_at(site, point)
    if again is None:
        assert harm in {"emptied", "gone"}
        assert point.startswith("damage.")
        return
    gaps = await declares(again, numbers)
    spans = {(gap.resource, gap.unit, gap.first) for gap in gaps}
    assert len(spans) == len(gaps)  # a second start declares nothing twice


@pytest.mark.parametrize("point", [p for p in POINTS if p != "damage.rebuilt"])
@pytest.mark.parametrize("back", [15, 30])
async def test_a_killed_repair_of_a_log_is_declared_at_the_next_start(tmp_path, point, back):
    _, image, numbers = await filled(tmp_path)
    log = image.folder / "spool.db-wal"
    data = bytearray(log.read_bytes())
    frames = (len(data) - 32) // (PAGE + 24)
    at = 32 + (frames - back) * (PAGE + 24) + 24
    data[at + 64 : at + PAGE - 64] = bytes(PAGE - 128)  # more than can be mended
    log.write_bytes(data)
    again = await killed_at(image, point)
    assert again is not None
    await declares(again, numbers, loses=False)


async def test_a_note_that_cannot_be_read_is_damage(tmp_path):
    site, numbers = await closed(tmp_path)
    recovery.note_of(tmp_path / "spool.db").write_bytes(b"\xff{")
    assert await declares(site, numbers)


async def test_nothing_is_changed_before_the_note_is_written(tmp_path, monkeypatch):
    """The disk refuses the note: no repair, so that the next start finds the same damage."""
    site, _ = await closed(tmp_path)
    path = tmp_path / "spool.db"
    with path.open("r+b") as file:
        file.write(bytes(PAGE))
    before = path.read_bytes()

    def refuse(_path: Path, _data: bytes) -> None:
        raise OSError(5, "input/output error")

    monkeypatch.setattr(recovery, "save", refuse)
    with pytest.raises(OSError):
        async with site.running():
            raise AssertionError("it started")
    assert path.read_bytes() == before


async def test_the_note_takes_the_room_of_the_reserve(tmp_path, monkeypatch):
    site, numbers = await closed(tmp_path)
    path, real, full = tmp_path / "spool.db", recovery.save, []
    path.write_bytes(b"")

    def once(target: Path, data: bytes) -> None:
        if not full:
            full.append(target)
            raise OSError(28, "no space left on device")
        real(target, data)

    monkeypatch.setattr(recovery, "save", once)
    assert await declares(site, numbers)
