"""`make bench`: run the parts (all, or those named), print figures, write build/bench.json."""

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path

from devices.demo.figures import Figures
from tests.bench.parts import PARTS


async def run(chosen: list[str], figures: Figures, base: Path) -> None:
    for name in chosen:
        folder = base / name
        folder.mkdir()
        print(f"— {name}", flush=True)
        try:
            await PARTS[name](figures, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    chosen = sys.argv[1:] or list(PARTS)
    unknown = [name for name in chosen if name not in PARTS]
    if unknown:
        print(f"no part {unknown}; there are: {' '.join(PARTS)}")
        return 2
    figures = Figures("bench", *(f"bench {name}" for name in chosen))
    # Not below /tmp: where that is a tmpfs a sync costs nothing and every figure is a lie.
    base = Path(tempfile.mkdtemp(prefix="shanmen-bench-", dir="/var/tmp"))
    try:
        asyncio.run(run(chosen, figures, base))
    finally:
        shutil.rmtree(base, ignore_errors=True)
        for row in figures.rows():
            value = "missing" if row["value"] is None else f"{row['value']:,.4g}"
            mark = "ok " if row["ok"] else "RED"
            print(f"{mark} {row['name']:34} {value:>12} {row['bar']:>12}  {row['unit']}")
        print(figures.write())
    return 0 if figures.ok else 1


if __name__ == "__main__":
    raise SystemExit(main())
