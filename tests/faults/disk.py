"""What a disk may hold after a power cut: a model of files, folders and their unsynced effects.

A file's bytes are safe once its own sync returned, a folder's entries once the folder's did. Of
what was not synced any subset of the 512-byte sectors may have arrived, in any order; entries of a
folder arrive in order but may stop anywhere. This is stricter than ext4, which is the point.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from tests.faults.trace import Effect, Op

SECTOR = 512


@dataclass
class File:
    """An inode: what is safe, and what was done to it since (writes and truncations, in order)."""

    safe: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)

    def sync(self) -> None:
        apply(self.safe, self.pending)
        self.pending.clear()


def apply(content: bytearray, steps: Iterable[tuple[int, bytes | None]]) -> None:
    """Carry out writes (offset, bytes) and truncations (size, None)."""
    for offset, data in steps:
        if data is None:
            if offset <= len(content):
                del content[offset:]
            else:
                content.extend(bytes(offset - len(content)))
            continue
        if offset > len(content):
            content.extend(bytes(offset - len(content)))
        content[offset : offset + len(data)] = data


class Disk:
    """All files below one root, fed with effects in order."""

    def __init__(self) -> None:
        self.files: dict[str, File] = {}  # as the process sees them
        self.safe_names: dict[str, File] = {}  # what each folder holds for certain
        self.pending_names: dict[str, list[tuple[str, str, File | None]]] = {}
        self.folders: set[str] = {""}
        self.syncs = 0

    def feed(self, effect: Effect) -> None:
        path, op = effect.path, effect.op
        if op == Op.CREATE:
            self.files[path] = File()
            self._entry("add", path, self.files[path])
        elif op == Op.WRITE and path in self.files:
            self.files[path].pending.append((effect.offset, effect.data))
        elif op == Op.TRUNCATE and path in self.files:
            self.files[path].pending.append((effect.offset, None))
        elif op == Op.SYNC and path in self.files:
            self.files[path].sync()
            self.syncs += 1
        elif op == Op.RENAME:
            self._rename(path, effect.data.decode())
        elif op == Op.UNLINK:
            self.files.pop(path, None)
            self._entry("drop", path, None)
        elif op == Op.MKDIR:
            # A folder is made once, at set-up; losing it would only mean that set-up is run again.
            self.folders.add(path)
        elif op == Op.DIRSYNC:
            self._settle(path, None)
            self.syncs += 1

    def _rename(self, old: str, new: str) -> None:
        moved = self.files.pop(old, None)
        if moved is None:
            return
        self.files[new] = moved
        self._entry("drop", old, None)
        self._entry("add", new, moved)

    def _entry(self, what: str, path: str, file: File | None) -> None:
        folder = str(PurePosixPath(path).parent)
        folder = "" if folder in (".", "/") else folder
        self.pending_names.setdefault(folder, []).append((what, path, file))

    def _settle(self, folder: str, count: int | None) -> None:
        steps = self.pending_names.get(folder, [])
        for what, path, file in steps[: len(steps) if count is None else count]:
            if what == "add" and file is not None:
                self.safe_names[path] = file
            else:
                self.safe_names.pop(path, None)
        if count is None:
            steps.clear()

    def whole(self, target: Path) -> None:
        """Write what the process sees: the state after a kill, when the page cache survives."""
        self._write(target, {p: self._full(f) for p, f in self.files.items()})

    def after_cut(self, target: Path, rng: random.Random) -> None:
        """Write one disk that a power cut at this moment may leave.

        Draws how much arrives once for all (nothing, everything but the last, a random part), so
        that the extreme disks are met as often as the mixed ones.
        """
        mode = rng.choice(("none", "none", "half", "most", "torn"))
        names = dict(self.safe_names)
        for steps in self.pending_names.values():
            keep = 0 if mode == "none" else rng.randint(0, len(steps))
            for what, path, file in steps[:keep]:
                if what == "add" and file is not None:
                    names[path] = file
                else:
                    names.pop(path, None)
        self._write(target, {p: self._partial(f, mode, rng) for p, f in names.items()})

    @staticmethod
    def _full(file: File) -> bytes:
        content = bytearray(file.safe)
        apply(content, file.pending)
        return bytes(content)

    @staticmethod
    def _partial(file: File, mode: str, rng: random.Random) -> bytes:
        content = bytearray(file.safe)
        if mode == "none":
            return bytes(content)
        odds = {"half": 0.5, "most": 0.95, "torn": 1.0}[mode]
        last = len(file.pending) - 1
        for i, (offset, data) in enumerate(file.pending):
            if data is None:
                if rng.random() < odds:
                    apply(content, [(offset, None)])
                continue
            chance = 0.5 if mode == "torn" and i == last else odds
            for at in range(0, len(data), SECTOR):
                if rng.random() < chance:
                    apply(content, [(offset + at, data[at : at + SECTOR])])
        return bytes(content)

    def _write(self, target: Path, contents: dict[str, bytes]) -> None:
        for folder in sorted(self.folders):
            (target / folder.lstrip("/")).mkdir(parents=True, exist_ok=True)
        for path, content in contents.items():
            if path.endswith("-shm"):
                continue  # shared memory of SQLite: never synced, always rebuilt
            place = target / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
            place.chmod(0o600)
