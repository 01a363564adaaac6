"""The parts of `make torture`, their figures against the bars, and the exit code."""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from devices.demo.figures import Figures
from tests.shared import ROOT
from tests.torture import parts


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    folder: Path
    code: Path
    seed: int
    only: str
    hits: int
    cuts: int
    at_once: int


PARTS: dict[str, Callable[[Options, Figures], Awaitable[None]]] = {
    "kills": parts.kills,
    "powercut": parts.powercut,
    "mutants": parts.mutants,
    "fuzz": parts.fuzz,
}
TOGETHER = ("mutants", "fuzz")


async def run(chosen: Sequence[str], options: Options, figures: Figures) -> None:
    """One part after the other; what mostly waits goes side by side with what computes."""

    async def one(part: str) -> None:
        began = time.monotonic()
        print(f"{part}:", flush=True)
        await PARTS[part](options, figures)
        figures.add(f"{part}_s", round(time.monotonic() - began), "s")

    for part in chosen:
        if part not in TOGETHER:
            await one(part)
    await asyncio.gather(*(one(part) for part in chosen if part in TOGETHER))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture")
    parser.add_argument("parts", nargs="*", metavar="PART", help=" ".join(PARTS))
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    parser.add_argument("--only", default="*", help="points like this, mutants like this")
    parser.add_argument("--hits", type=int, default=5, help="kills at each point")
    parser.add_argument("--cuts", type=int, default=520)
    parser.add_argument("--at-once", type=int, default=4, help="worlds side by side")
    parser.add_argument("--folder", type=Path, help="where the worlds live; kept where one failed")
    told = parser.parse_args()
    chosen = told.parts or list(PARTS)
    if wrong := set(chosen) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(wrong))}; there are {', '.join(PARTS)}")
    folder = told.folder or Path(tempfile.mkdtemp(prefix="shanmen-torture-"))
    options = Options(
        folder, frozen(folder), told.seed, told.only, told.hits, told.cuts, told.at_once
    )
    print(f"seed {told.seed}; worlds in {folder}", flush=True)
    figures = Figures("torture", *(f"torture {part}" for part in chosen))
    asyncio.run(run(chosen, options, figures))
    for row in figures.rows():
        mark = "ok " if row["ok"] else "BAD"
        print(f"{mark} {row['name']:<28} {row['value']} {row['unit']} {row['bar']}")
    print(f"{figures.write()}; again with --seed {told.seed}")
    if figures.ok:
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if figures.ok else 1


def frozen(folder: Path) -> Path:
    """A copy of the packages: what is changed in the tree meanwhile does not change the torture."""
    code = folder / "code"
    if not code.exists():
        for package in ("agent", "hub", "protocol", "devices"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / package, code / package, ignore=ignored)
    return code


if __name__ == "__main__":
    sys.exit(main())
