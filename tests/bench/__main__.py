"""`make bench`: run the parts (all, or those named), print figures, write build/bench.json.

With PEER=thingsboard the same for the product that users run today: tests/bench/peer.
"""

import asyncio
import os
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
from tests.bench.peer.run import main as beside_the_peer
from tests.bench.shown import Shown, line_of


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
    if peer := os.environ.get("PEER"):
        return beside_the_peer(peer, sys.argv[1:])
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
