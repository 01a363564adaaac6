"""`make bench PEER=thingsboard`: install, measure, print two tables, write build/peer.json."""

import asyncio
import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from subprocess import SubprocessError
from typing import Any

import psutil

from devices.demo.figures import Figures
from tests.bench.peer import in_process, kills, tables
from tests.bench.peer.broker_run import ceiling, one, our_side, their_side
from tests.bench.peer.install import PACKAGE, VERSION, install
from tests.bench.peer.reconcile import Outcome
from tests.bench.peer.side import Row
from tests.bench.peer.tables import OURS, PEER, SIZES
from tests.bench.shown import line_of

PEERS = ("thingsboard",)
PARTS = ("broker", "inside", "kills")
SIDES = {OURS: "shanmen", PEER: f"{PACKAGE} {VERSION}"}
_FAILURES = (
    OSError, LookupError, ValueError, AssertionError, RuntimeError, SubprocessError, psutil.Error,
)  # fmt: skip

#: Folder, what to run in it, where its result is kept and under which key.
Step = tuple[str, Callable[[Path], Awaitable[Any]], dict[Any, Any], Any]


class Run:
    """What one call measures; what fails is printed, missing and red, and does not stop the rest."""

    def __init__(self, base: Path, programs: Path, figures: Figures) -> None:
        self.base, self.programs, self.figures = base, programs, figures
        self.broker: dict[tuple[str, int], tuple[Row, Outcome]] = {}
        self.inside: dict[tuple[str, int], Row] = {}
        self.kills: dict[str, list[Outcome]] = {}
        self.ceilings: dict[int, float] = {}
        self.alone: dict[int, float] = {}

    async def part(self, name: str) -> None:
        """Every step of a part of the bench."""
        for folder, step, keep, key in getattr(self, f"_{name}")():
            began = time.monotonic()
            try:
                keep[key] = await step(self.base / folder)
                print(f"— {folder}: {time.monotonic() - began:.0f} s", flush=True)
            except* _FAILURES as failed:
                traceback.print_exception(failed)
            finally:
                for child in psutil.Process().children(recursive=True):
                    child.kill()  # what a step that failed has left running would disturb the next
                shutil.rmtree(self.base / folder, ignore_errors=True)

    def _broker(self) -> list[Step]:
        makers = {OURS: our_side, PEER: their_side(self.programs)}
        found: list[Step] = []
        for size in SIZES:
            alone = partial(ceiling, size=size)
            found.append((f"publisher-{size}", alone, self.ceilings, size))
            for side, make in makers.items():
                run = partial(one, make, size=size)
                found.append((f"broker-{side}-{size}", run, self.broker, (side, size)))
        return found

    def _inside(self) -> list[Step]:
        found: list[Step] = []
        for size in SIZES:
            ours = partial(in_process.ours, size=size)
            theirs = partial(in_process.theirs, programs=self.programs, size=size)
            alone = partial(in_process.storage_alone, programs=self.programs, size=size)
            found += [
                (f"inside-{OURS}-{size}", ours, self.inside, (OURS, size)),
                (f"inside-{PEER}-{size}", theirs, self.inside, (PEER, size)),
                (f"storage-{PEER}-{size}", alone, self.alone, size),
            ]
        return found

    def _kills(self) -> list[Step]:
        makers = {OURS: our_side, PEER: their_side(self.programs)}
        return [
            (f"kills-{side}", partial(kills.kill_all, make), self.kills, side)
            for side, make in makers.items()
        ]

    @property
    def rows(self) -> dict[tuple[str, int], Row]:
        """Of the broker's table."""
        return {key: row for key, (row, _) in self.broker.items()}

    @property
    def arrived(self) -> dict[str, list[Outcome]]:
        """What arrived of each side's messages, nobody being killed."""
        keys = {side: [k for k in self.broker if k[0] == side] for side in SIDES}
        return {side: [self.broker[k][1] for k in found] for side, found in keys.items() if found}

    def add(self) -> None:
        """Everything as figures."""
        for size, rate in self.ceilings.items():
            self.figures.add(
                f"publisher_{size}_per_s", rate, "records/s, publisher into the broker"
            )
        tables.add_rows(self.figures, "broker", self.rows)
        tables.add_outcomes(self.figures, "broker", self.arrived, SIZES)
        tables.add_rows(self.figures, "inside", self.inside)
        for size, rate in self.alone.items():
            self.figures.add(
                f"storage_alone_peer_{size}_per_s", rate, "records/s into its SQLite file"
            )
        tables.add_outcomes(self.figures, "kills", self.kills, range(1, kills.KILLS + 1))
        for side, outcomes in self.kills.items():
            self.figures.add(f"kills_{side}", len(outcomes), "SIGKILL")

    def lines(self, chosen: Sequence[str]) -> list[str]:
        """The tables for a person, of the parts that were measured."""
        found: list[str] = []
        if "broker" in chosen:
            found += ["", "(a) through one MQTT broker, QoS 1"]
            found += tables.table(self.rows, SIDES, "message")
            found.append(_rates("the publisher alone into the broker", self.ceilings))
            found += ["", "    records of each of these runs, at 1 and at 100 a message"]
            found += tables.outcome_lines(self.arrived, SIDES)
        if "kills" in chosen:
            each = f"{kills.RECORDS:,} records at {kills.RATE:,}/s"
            found += ["", f"    records of each SIGKILL of the gateway, {each}, one a message"]
            found += tables.outcome_lines(self.kills, SIDES)
        if "inside" in chosen:
            found += ["", "(b) in process, handed over by a driver of the bench"]
            found += tables.table(self.inside, SIDES, "hand-over")
            found.append(_rates(f"{PACKAGE}, storage.put alone", self.alone))
        return [*found, ""]


def _rates(name: str, rates: dict[int, float]) -> str:
    shown = ", ".join(f"{rate:,.0f} records/s at {size}" for size, rate in rates.items())
    return f"{name}: {shown or 'not measured'}"


def main(peer: str, parts: Sequence[str]) -> int:
    """Run it; 1 if a bar was not reached, 2 for a peer or a part that there is not."""
    chosen = list(parts) or list(PARTS)
    unknown = [name for name in chosen if name not in PARTS]
    if peer not in PEERS or unknown:
        print(f"PEER is one of {' '.join(PEERS)}; PARTS of {' '.join(PARTS)}")
        return 2
    figures = Figures("peer", *(f"peer {name}" for name in chosen))
    # Not below /tmp: where that is a tmpfs a sync costs nothing and every figure is a lie.
    base = Path(tempfile.mkdtemp(prefix="shanmen-peer-", dir="/var/tmp"))
    try:
        run = Run(base, install(), figures)
        for name in chosen:
            asyncio.run(run.part(name))
        run.add()
        print(*run.lines(chosen), sep="\n")
    finally:
        shutil.rmtree(base, ignore_errors=True)
        print("— all of it", *(line_of(row) for row in figures.rows()), sep="\n")
        print(figures.write())
    load = os.getloadavg()[0]
    print(f"load of the machine at the end: {load:.1f} on {os.cpu_count()} cores")
    return 0 if figures.ok else 1
