"""(b): the same records handed to what each side's drivers hand to, through to the durable receiver.

Ours: the load driver in the real agent (`pipeline.submit`, acknowledged after the commit). The peer's: a
connector of its kind in the real gateway (`send_to_storage`, which queues). One record or 100 a call.
Memory is
what comes on top of the load, which both hold in memory. Beside it the peer's SQLite storage alone: `storage.put` of events, until they are in its file.
"""

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

from protocol.records import Record
from tests.bench.load import hand_overs
from tests.bench.peer.install import LOAD
from tests.bench.peer.ours import Ours
from tests.bench.peer.side import MILLION, Row, growth, watch_memory
from tests.bench.peer.theirs import Theirs
from tests.bench.site import Site

#: Records of a run by records a hand-over, multiples of 3 x 1,000. Of ours more: at its rate the last
#: segments, which wait for their age, would be up to a third of a shorter run.
OURS = {1: 240_000, 100: 1_800_000}
THEIRS = {1: 60_000, 100: 120_000}
_TIMEOUT_S = 300.0


def plain(record: Record) -> list[Any]:
    """A record as [ms, values] of JSON; the device is a value, so that a hand-over is one device's.

    The peer would make an object, an event and a message of each device.
    """
    values = {k: v.hex() if isinstance(v, bytes) else v for k, v in record.values.items()}
    return [record.event_time_us // 1000, {"device": record.device, **values}]


def write_load(path: Path, records: int, size: int) -> None:
    """The hand-overs of the load for the peer's connector: one a line."""
    with path.open("w") as out:
        for kind, handed in hand_overs(records, size, distinct=records):
            line = [kind, [plain(one) for one in handed]]
            out.write(json.dumps(line, separators=(",", ":")) + "\n")


async def ours(folder: Path, size: int) -> Row:
    """Our side: `singles` wait for their commit in 64 producers, `batches` go as fast as taken."""
    records = OURS[size]
    options = {"total": records, **({"size": size} if size > 1 else {})}
    site = Site(folder, profile="batches" if size > 1 else "singles", options=options, age="2s")
    async with Ours(site) as side:
        side.mark()
        settled = asyncio.create_task(side.settled(records))
        memory = await watch_memory(side.gateway, settled)
        await settled
        began, spent = await side.loaded()
        row = await side.row(records, began, growth(memory, began))
        # The load is made in the same process before it begins.
        already = (spent - side.marked_cpu) / records * MILLION
        return row._replace(gateway_cpu=row.gateway_cpu - already)


async def theirs(folder: Path, programs: Path, size: int) -> Row:
    """The peer's side."""
    records = THEIRS[size]
    folder.mkdir(parents=True)
    write_load(folder / "load", records, size)
    connector = {name: str(folder / name) for name in ("load", "ready", "go", "report")}
    async with Theirs(folder, programs, connector, LOAD) as side:
        await side.ready()
        loading = asyncio.create_task(side.loaded())
        settled = asyncio.create_task(side.settled(records, at_least_s=60))
        memory = await watch_memory(side.gateway, settled)
        await settled
        began = await loading
        return await side.row(records, began, growth(memory, began))


async def storage_alone(folder: Path, programs: Path, size: int) -> float:
    """Records/s into the peer's SQLite storage, each put an event that is made of prepared objects."""
    folder.mkdir(parents=True)
    write_load(folder / "load", THEIRS[size], size)
    script = Path(__file__).with_name("storage_alone.py")
    words = [programs / "python", script, folder / "load", folder / "data"]
    done = await asyncio.to_thread(
        subprocess.run, list(map(str, words)), check=True, capture_output=True, text=True,
        timeout=_TIMEOUT_S,
    )  # fmt: skip
    return THEIRS[size] / float(done.stdout.split()[-1])
