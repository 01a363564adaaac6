"""A memory cgroup of our own, v1 or v2, below the one that we are in: where one can be made.

What a cgroup counts is more than a process's own memory: pages of files that it read or wrote
count too. Those the kernel takes back before it kills, so a peak of the group says nothing (it
reaches the limit in every case). What tells is whether the process lived.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
#: By version: file of the limit, file with the count of kills.
V1 = ("memory.limit_in_bytes", "memory.oom_control")
V2 = ("memory.max", "memory.events")


@dataclass(frozen=True, slots=True)
class Cgroup:
    """One group; `close` removes it, when nothing is left in it."""

    path: Path
    files: tuple[str, str]

    @classmethod
    def make(cls, name: str, limit_bytes: int) -> "Cgroup":
        """Make one and set its limit. Raises OSError that says why it cannot be made."""
        parent, files = _own()
        group = cls(parent / f"{name}-{os.getpid()}", files)
        group.path.mkdir()
        try:
            (group.path / files[0]).write_text(str(limit_bytes))
        except OSError:
            group.close()
            raise
        return group

    def words(self, words: list[str]) -> list[str]:
        """The command that enters the group and then becomes `words`, under the same pid."""
        enter = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
        return ["sh", "-c", enter, str(self.path), *words]

    @property
    def kills(self) -> int:
        """How many processes of the group the kernel has killed for want of memory."""
        text = (self.path / self.files[1]).read_text()
        return int(dict(line.split() for line in text.splitlines()).get("oom_kill", 0))

    def close(self) -> None:
        """Remove the group."""
        with contextlib.suppress(OSError):
            self.path.rmdir()


def _own() -> tuple[Path, tuple[str, str]]:
    """The group that we are in. Raises OSError where there is none of memory."""
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    for _number, controllers, path in lines:
        if "memory" in controllers.split(","):
            return ROOT / "memory" / path.lstrip("/"), V1
    for _number, controllers, path in lines:
        own = ROOT / path.lstrip("/")
        offered = own / "cgroup.subtree_control"
        if not controllers and offered.exists() and "memory" in offered.read_text().split():
            return own, V2
    raise OSError(f"no memory controller below {ROOT} that is given to groups of ours")


def reason(limit_bytes: int) -> str:
    """Why none can be made here; empty where one can."""
    try:
        Cgroup.make("shanmen-probe", limit_bytes).close()
    except OSError as error:
        return str(error)
    return ""
