"""How fast, how small on the wire, and for how much CPU: reference, throughput, wire, cpu, drain."""

import asyncio
import contextlib
import json
import sqlite3
import subprocess
import sys
from pathlib import Path

from devices.demo.figures import Figures
from tests.bench.reference import BATCH, GROUP, HAND_OVER
from tests.bench.site import CountedLink, Site, make
from tests.faults.build import shim
from tests.faults.trace import Op, read
from tests.shared import ROOT

MILLION = 1_000_000

RECORDS = 600_000  # a multiple of 3 x 1,000, so that no segment waits for its age
CPU_RECORDS = 3_000_000  # enough that what a process does once weighs nothing
SINGLES = 300_000
SLOW_SINGLES = 20_000
SLOW_MS = 20
WIRE_RECORDS = 300_000
WIRE_RATE = 15_000  # records/s at which segments close at 1,000, none grows with a backlog
DRAIN_RECORDS = 5_000_000


async def reference(figures: Figures, folder: Path) -> None:
    """The straight-line program, and the sum of its parts."""
    told = await run_reference(folder, RECORDS // 2)
    figures.add("reference_records_per_s", told["records_per_s"], "records/s")
    for name in ("columns_us", "journal_us", "seal_us", "exchange_us"):
        figures.add(f"reference_{name}", told[name], "us a record, this part alone")
    figures.add("of_its_parts", told["of_its_parts"])


async def run_reference(folder: Path, records: int) -> dict[str, float]:
    """What the reference says of itself."""
    words = ["-m", "tests.bench.reference", str(folder / "reference"), str(records)]
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, *words], cwd=ROOT, check=True, capture_output=True,
        text=True, timeout=600,
    )  # fmt: skip
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


async def throughput(figures: Figures, folder: Path) -> None:
    """Batches against the reference; singles; singles with a slow disk."""
    told = await run_reference(folder, RECORDS // 2)
    figures.add("reference_records_per_s", told["records_per_s"], "records/s")
    figures.add("reference_hand_over", HAND_OVER, "records")
    figures.add("reference_group", GROUP, "records a commit")
    figures.add("reference_batch", BATCH, "segments a request")
    figures.add("reference_syncs_per_million", told["syncs"] / told["records"] * MILLION)
    # Where bodies pile up segments grow and the last is not full: it must not wait for a minute.
    options = {"total": RECORDS, "size": HAND_OVER}
    site = await make(folder / "batches", options=options, age="2s")
    rate = await one_run(site)
    figures.add("batches_per_s", rate, "records/s, first hand-over to last receipt")
    figures.add("batches_of_reference", rate / told["records_per_s"])
    options = {"total": RECORDS // 2, "size": HAND_OVER}
    site = await make(folder / "counted", options=options, age="2s")
    count = folder / "syncs"
    await one_run(site, LD_PRELOAD=str(shim()), SHIM_ROOT=str(site.folder), SHIM_COUNT=str(count))
    syncs = int.from_bytes(count.read_bytes(), "little")
    figures.add("batches_syncs_per_million", syncs / (RECORDS // 2) * MILLION, "agent and hub")
    told = await singles(folder / "singles", SINGLES)
    figures.add("singles_per_s", rate_of(told))
    figures.add("singles_p99_ms", told["p99_s"] * 1000)
    await slow_singles(figures, folder / "slow")


async def one_run(site: Site, **env: str) -> float:
    """Records a second from the first hand-over to the last receipt."""
    await site.start("hub", **env)
    await site.start("agent", **env)
    report = await site.report()
    accepted = await site.accepted_all()
    await site.close()
    return report["records"] / (accepted - report["began"])


async def singles(folder: Path, total: int, **env: str) -> dict[str, float]:
    """The driver's report of one record a hand-over, until committed; the hub is there."""
    site = await make(folder, profile="singles", options={"total": total})
    await site.start("hub")
    await site.start("agent", **env)
    report = await site.report()
    await site.close()
    return report


def rate_of(report: dict[str, float]) -> float:
    """Records a second until committed."""
    return report["records"] / (report["committed"] - report["began"])


async def slow_singles(figures: Figures, folder: Path) -> None:
    """Singles with SLOW_MS more in every sync, and the syncs of each transaction."""
    trace = folder.with_suffix(".trace")
    told = await singles(
        folder, SLOW_SINGLES, LD_PRELOAD=str(shim()), SHIM_ROOT=str(folder / "agent"),
        SHIM_SYNC_MS=str(SLOW_MS), SHIM_TRACE=str(trace),
    )  # fmt: skip
    figures.add("slow_sync_per_s", rate_of(told))
    figures.add("slow_sync_p99_ms", told["p99_s"] * 1000, "ms until the commit")
    before, after = told["counts_before"], told["counts"]
    transactions = after[0] - before[0]  # type: ignore[index]
    figures.add("slow_sync_transactions", transactions, "COMMITs of commit groups, seals, receipts")
    trace.write_bytes(trace.read_bytes()[before[1] : after[1]])  # type: ignore[index]
    syncs = [one.path for one in read(trace) if one.op == Op.SYNC]
    checkpoints = sum(path.endswith("spool.db") for path in syncs)
    log = sum(path.endswith("spool.db-wal") for path in syncs)
    figures.add("slow_sync_checkpoints", checkpoints, "syncs of the file itself")
    # A checkpoint syncs the log before it and the log's new header after it.
    figures.add("slow_sync_syncs_a_commit", (log - 2 * checkpoints) / max(1, transactions))


async def wire(figures: Figures, folder: Path) -> None:
    """Bytes on the wire a record, all of TCP's payload in both directions."""
    async with asyncio.TaskGroup() as group:
        # Beside the others: it moves a record a second.
        group.create_task(wire_slow(figures, folder / "slow"))
        for name, personal in (("bytes_a_record", False), ("bytes_a_record_personal_split", True)):
            options = {
                "total": WIRE_RECORDS, "distinct": WIRE_RECORDS, "size": HAND_OVER,
                "rate": WIRE_RATE,
            }  # fmt: skip
            site = await make(folder / name, options=options, personal=personal)
            async with CountedLink(site) as link:
                await site.start("hub")
                await site.start("agent")
                await site.report()
                await site.accepted_all()
                await site.stop("agent")
                await site.close()
            figures.add(name, link.forwarded / WIRE_RECORDS, "B, both directions")
            each = WIRE_RECORDS / segments_of(site)
            figures.add(f"{name}_records_a_segment", each, "records")


def segments_of(site: Site) -> int:
    """How many segments a stopped agent has sealed."""
    with contextlib.closing(sqlite3.connect(site.folder / "agent" / "spool.db")) as spool:
        [(count,)] = spool.execute("SELECT sum(next_seq) FROM stream")
    return int(count)


async def wire_slow(figures: Figures, folder: Path) -> None:
    """One record a second in segments of a minute: three minutes, from one seal to another."""
    site = await make(folder, profile="polled", options={"rate": 1})
    async with CountedLink(site) as link:
        await site.start("hub")
        await site.start("agent")
        await asyncio.sleep(15)
        before = link.forwarded
        await asyncio.sleep(180)
        figures.add(
            "bytes_a_record_1_per_s", (link.forwarded - before) / 180, "B, segments of 60 s"
        )
        await site.close()


async def cpu(figures: Figures, folder: Path) -> None:
    """CPU seconds per million records, of both programs."""
    site = await make(folder / "batches", options={"total": CPU_RECORDS, "size": HAND_OVER})
    agent, hub = await cpu_of(site)
    figures.add("agent_batches_s", agent)
    figures.add("hub_s", hub)
    site = await make(folder / "singles", profile="singles", options={"total": SINGLES}, age="1s")
    agent, _ = await cpu_of(site)
    figures.add("agent_singles_s", agent)


async def cpu_of(site: Site) -> tuple[float, float]:
    """CPU of agent and hub, sealing and receipts included."""
    await site.start("hub")
    hub_before = site.cpu_s("hub")
    await site.start("agent")
    report = await site.report()
    await site.accepted_all()
    agent, hub = site.cpu_s("agent") - report["cpu"], site.cpu_s("hub") - hub_before
    await site.close()
    return agent / report["records"] * MILLION, hub / report["records"] * MILLION


async def drain(figures: Figures, folder: Path) -> None:
    """Five million records journalled and sealed while the hub was away, then the link comes up."""
    site = await make(folder, options={"total": DRAIN_RECORDS, "size": HAND_OVER}, age="1s")
    await site.start("agent")
    report = await site.report()
    waiting = await site.sealed_all()
    figures.add("drain_records", report["records"], "records")
    figures.add("drain_segments", waiting["spool"]["due"], "segments")  # type: ignore[index]
    figures.add("journalled_per_s", rate_of(report), "records/s while the hub was away")
    await site.start("hub")
    began = site.ready_at["hub"]
    accepted = await site.accepted_all()
    await site.close()
    figures.add("drain_per_s", report["records"] / (accepted - began))
