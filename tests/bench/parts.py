"""The measurements, one function a part; each adds its figures and may be run alone."""

import asyncio
import json
import os
import resource
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from devices.demo.figures import Figures
from tests.bench.reference import BATCH, GROUP, HAND_OVER
from tests.bench.site import CountedLink, Site, make, now, peak
from tests.faults.build import shim
from tests.shared import ROOT

MILLION = 1_000_000
MB = 1_000_000

RECORDS = 600_000  # a multiple of 3 x 1,000, so that no segment waits for its age
SINGLES = 150_000


async def reference(figures: Figures, folder: Path) -> None:
    """The straight-line program, and the sum of its parts."""
    told = run_reference(folder, RECORDS // 2)
    figures.add("reference_records_per_s", told["records_per_s"], "records/s")
    for name in ("columns_us", "journal_us", "seal_us", "exchange_us"):
        figures.add(f"reference_{name}", told[name], "us a record, this part alone")
    figures.add("of_its_parts", told["of_its_parts"])


def run_reference(folder: Path, records: int) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.bench.reference", str(folder / "reference"), str(records)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=600)
    answer: dict[str, float] = json.loads(done.stdout)
    return answer


async def throughput(figures: Figures, folder: Path) -> None:
    """Batches against the reference; singles; singles with a slow disk."""
    told = run_reference(folder, RECORDS // 2)
    figures.add("reference_records_per_s", told["records_per_s"], "records/s")
    figures.add("reference_hand_over", HAND_OVER, "records")
    figures.add("reference_group", GROUP, "records a commit")
    figures.add("reference_batch", BATCH, "segments a request")
    figures.add("reference_syncs_per_million", told["syncs"] / told["records"] * MILLION)
    rate, syncs = await batches(folder / "batches")
    figures.add("batches_per_s", rate, "records/s, first hand-over to last receipt")
    figures.add("batches_syncs_per_million", syncs, "agent and hub")
    figures.add("batches_of_reference", rate / told["records_per_s"])
    rate, p99, _, _ = await singles(folder / "singles", SINGLES)
    figures.add("singles_per_s", rate)
    figures.add("singles_p99_ms", p99 * 1000)
    rate, p99, syncs, commits = await singles(folder / "slow", 20_000, sync_ms=20)
    figures.add("slow_sync_per_s", rate)
    figures.add("slow_sync_p99_ms", p99 * 1000, "ms until the commit")
    figures.add("slow_sync_syncs_a_commit", syncs / max(1, commits))


async def batches(folder: Path) -> tuple[float, float]:
    """Records a second through agent and hub, and syncs a million records."""
    site = await make(folder, options={"total": RECORDS, "size": HAND_OVER})
    rate = await one_run(site)
    counted = await make(folder / "counted", options={"total": RECORDS // 2, "size": HAND_OVER})
    count = folder / "syncs"
    await one_run(counted, LD_PRELOAD=str(shim()), SHIM_ROOT=str(counted.folder), SHIM_COUNT=str(count))
    return rate, read_count(count) / (RECORDS // 2) * MILLION


async def one_run(site: Site, **env: str) -> float:
    await site.start("hub", **env)
    await site.start("agent", **env)
    report = await site.report()
    accepted = await site.accepted_all()
    await site.close()
    return report["records"] / (accepted - report["began"])


async def singles(folder: Path, total: int, sync_ms: int = 0) -> tuple[float, float, int, int]:
    """Rate until committed, p99 in seconds, syncs of the agent, commits of its journal."""
    site = await make(folder, profile="singles", options={"total": total})
    count = folder / "syncs"
    env = {"LD_PRELOAD": str(shim()), "SHIM_ROOT": str(folder / "agent"), "SHIM_COUNT": str(count)}
    env["SHIM_SYNC_MS"] = str(sync_ms)
    await site.start("hub")
    await site.start("agent", **(env if sync_ms else {}))
    before = read_count(count)
    report = await site.report()
    syncs = read_count(count) - before
    status = await site.look()
    spool = status["spool"]
    assert isinstance(spool, dict)
    await site.close()
    seconds = report["committed"] - report["began"]
    return report["records"] / seconds, report["p99_s"], syncs, int(spool["commits"])


def read_count(path: Path) -> int:
    return int.from_bytes(path.read_bytes(), "little") if path.exists() else 0


async def wire(figures: Figures, folder: Path) -> None:
    """Bytes on the wire a record, all of TCP's payload in both directions."""
    for name, options in (
        ("bytes_a_record", {}),
        ("bytes_a_record_personal_split", {"personal": True}),
    ):
        site = await make(folder / name, options={"total": RECORDS // 2, "size": HAND_OVER}, **options)
        async with CountedLink(site) as link:
            await one_run_through(site)
            figures.add(name, link.forwarded / (RECORDS // 2), "B")
    site = await make(folder / "slow", profile="polled", options={"total": 0, "rate": 1})
    async with CountedLink(site) as link:
        await site.start("hub")
        await site.start("agent")
        await asyncio.sleep(10)
        before, began = link.forwarded, now()
        await asyncio.sleep(180)
        figures.add("bytes_a_record_1_per_s", (link.forwarded - before) / (now() - began), "B")
        await site.close()


async def one_run_through(site: Site) -> None:
    await site.start("hub")
    await site.start("agent")
    await site.report()
    await site.accepted_all()
    await site.close()


async def cpu(figures: Figures, folder: Path) -> None:
    """CPU seconds per million records, of both programs."""
    site = await make(folder / "batches", options={"total": RECORDS, "size": HAND_OVER})
    agent, hub = await cpu_of(site)
    figures.add("agent_batches_s", agent)
    figures.add("hub_s", hub)
    site = await make(folder / "singles", profile="singles", options={"total": SINGLES})
    agent, _ = await cpu_of(site)
    figures.add("agent_singles_s", agent)


async def cpu_of(site: Site) -> tuple[float, float]:
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
    total = 5_000_000
    chunk = 250_000
    site = await make(folder, options={"total": chunk, "size": HAND_OVER})
    for _ in range(total // chunk):
        (folder / "report.json").unlink(missing_ok=True)
        await site.start("agent")
        await site.report()
        await sealed_all(site)
        await site.stop("agent")
    site.options = {"total": 3}
    site.write_config()
    await site.start("agent")
    began = now()
    await site.start("hub")
    accepted = await site.accepted_all()
    await site.close()
    figures.add("drain_records", total, "records")
    figures.add("drain_per_s", total / (accepted - began))


async def sealed_all(site: Site) -> None:
    async with asyncio.timeout(120):
        while True:
            status = await site.look()
            spool = status["spool"]
            assert isinstance(spool, dict)
            if not spool["journal"]:
                return
            await asyncio.sleep(0.05)


async def big_spool(figures: Figures, folder: Path) -> None:
    """A 2 GB spool of incompressible text under a limit of 128 MiB of data."""
    total = 3_900_000
    site = await make(folder, profile="text", options={"total": total // 20, "size": 100})
    for _ in range(20):
        (folder / "report.json").unlink(missing_ok=True)
        await site.start("agent")
        await site.report()
        await sealed_all(site)
        await site.stop("agent")
    figures.add("big_spool_gb", (folder / "agent" / "spool.db").stat().st_size / 1e9, "GB")
    await site.start("hub")
    limit = 128 << 20
    site.options = {"total": 0}
    site.write_config()
    before = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, before[1]))
    try:
        await site.start("agent")
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
    draining = asyncio.create_task(site.accepted_all())
    figures.add("big_spool_mb", await peak(site, "agent", draining) / MB)  # type: ignore[arg-type]
    figures.add("big_spool_drained", float(draining.exception() is None))
    await site.close()


async def disk(figures: Figures, folder: Path) -> None:
    """Bytes that the kernel wrote to the device for the agent at one polled record a second."""
    site = await make(folder, profile="polled", options={"total": 0, "rate": 1})
    await site.start("hub")
    await site.start("agent")
    await asyncio.sleep(30)
    process, began = site.process("agent"), now()
    before = process.io_counters().write_bytes
    await asyncio.sleep(300)
    written = process.io_counters().write_bytes - before
    figures.add("gb_a_day", written / (now() - began) * 86_400 / 1e9)
    await site.close()


Part = Callable[[Figures, Path], Awaitable[None]]

#: Part → its function; its bars stand in the table `bench <part>`.
PARTS: dict[str, Part] = {
    "reference": reference,
    "throughput": throughput,
    "wire": wire,
    "cpu": cpu,
    "drain": drain,
    "disk": disk,
}

CORES = os.cpu_count() or 1
