"""`make bench`: run the parts (all, or those named), print figures, write build/bench.json."""

import asyncio
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path
from subprocess import SubprocessError

import psutil

from devices.demo.figures import Figures
from tests.bench import calm
from tests.bench.parts import PARTS


class Shown(Figures):
    """Figures that are printed as soon as they are known."""

    def add(self, name: str, value: float | None, unit: str = "") -> bool:
        ok = super().add(name, value, unit)
        row = next(row for row in self.rows() if row["name"] == name)
        print(line_of(row), flush=True)
        return ok


def line_of(row: dict[str, object]) -> str:
    """One figure for a person."""
    value = row["value"]
    shown = f"{value:,.5g}" if isinstance(value, int | float) else "missing"
    mark = "ok " if row["ok"] else "RED"
    return f"{mark} {row['name']:36} {shown:>12} {row['bar']:>12}  {row['unit']}"


async def run(chosen: list[str], figures: Figures, base: Path) -> None:
    for name in chosen:
        folder = base / name
        folder.mkdir()
        print(f"— {name}", flush=True)
        began = time.monotonic()
        try:
            await PARTS[name](figures, folder)
        except* (OSError, LookupError, ValueError, AssertionError, SubprocessError) as failed:
            traceback.print_exception(failed)  # its bars have no figure and are red
        finally:
            for child in psutil.Process().children(recursive=True):
                child.kill()  # what a part that failed has left running would disturb the next
            figures.add(f"{name}_took", time.monotonic() - began, "s")
            shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    chosen = sys.argv[1:] or list(PARTS)
    unknown = [name for name in chosen if name not in PARTS]
    if unknown:
        print(f"no part {unknown}; there are: {' '.join(PARTS)}")
        return 2
    tables = [f"bench {name}" for name in chosen]
    if "memory" in chosen and (table := calm.in_cgroup()):
        tables.append(table)
    figures = Shown("bench", *tables)
    # Not below /tmp: where that is a tmpfs a sync costs nothing and every figure is a lie.
    base = Path(tempfile.mkdtemp(prefix="shanmen-bench-", dir="/var/tmp"))
    try:
        asyncio.run(run(chosen, figures, base))
    finally:
        shutil.rmtree(base, ignore_errors=True)
        print("— all of it", *(line_of(row) for row in figures.rows()), sep="\n")
        print(figures.write())
    return 0 if figures.ok else 1


if __name__ == "__main__":
    raise SystemExit(main())
