"""What it costs to be there: memory of the process tree, idle CPU, bytes written to the device."""

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from devices.demo.figures import Figures
from devices.simulators.broker import Broker
from tests.bench.cgroup import Cgroup, reason
from tests.bench.site import Site, make, peak, publish
from tests.shared import ROOT

MB = 1_000_000
DATA_BYTES = 128 << 20  # RLIMIT_DATA of the big spool
GROUP_BYTES = 128 * MB  # memory of its cgroup, where one can be made: page cache included
BIG_SPOOL_BYTES = 2_000_000_000
TEXT_RECORDS = 4_000_000
LOAD_RECORDS = 1_500_000
DRAIN_RECORDS = 1_500_000
DISTINCT = 3_000  # the load's own memory is within the agent's: keep it small
IDLE_S = 125.0
DISK_S = 310.0


async def memory(figures: Figures, folder: Path) -> None:
    """Peaks of the process tree with the mqtt driver connected; and of a 2 GB spool."""
    broker = Broker(folder / "broker")
    await broker.start()
    try:
        options = {"total": LOAD_RECORDS, "distinct": DISTINCT}
        site = await make(folder / "load", options=options, broker=broker)
        await site.start("hub")
        await site.start("agent")
        task: asyncio.Task[object] = asyncio.create_task(_loaded(site))
        figures.add("under_load_mb", await peak(site, "agent", task) / MB)
        await task
        await site.close()
        options = {"total": DRAIN_RECORDS, "distinct": DISTINCT}
        site = await make(folder / "drain", options=options, broker=broker, age="1s")
        await site.start("agent")
        await site.report()
        await site.sealed_all()
        await site.stop("agent")
        await site.start("agent")
        figures.add("idle_mb", await _idle_peak(site) / MB)
        await site.start("hub")
        task = asyncio.create_task(site.accepted_all())
        figures.add("under_drain_mb", await peak(site, "agent", task) / MB)
        await task
        await site.close()
    finally:
        await broker.stop()
    await big_spool(figures, folder / "big")


async def _loaded(site: Site) -> None:
    await site.report()
    await site.accepted_all()


async def _idle_peak(site: Site, seconds: float = 20.0) -> int:
    return await peak(site, "agent", asyncio.create_task(asyncio.sleep(seconds)))


async def big_spool(figures: Figures, folder: Path) -> None:
    """A 2 GB spool of incompressible text: start and drain under a limit of 128 MiB of data.

    Where a cgroup can be made, in one of 128 MB as well: its bar stands in a table of its own.
    """
    options = {"total": TEXT_RECORDS, "size": 100}
    site = await make(folder, profile="text", options=options, age="1s")
    await site.start("agent")
    await site.report()
    waiting = await site.sealed_all()
    size = waiting["spool"]["due_bytes"]  # type: ignore[index]
    figures.add("big_spool_gb", size / 1e9, "GB of bodies")
    await site.stop("agent")
    await site.start("hub")
    with _grouped(figures, site):
        starting = asyncio.create_task(site.start("agent", BENCH_DATA_BYTES=str(DATA_BYTES)))
        while "agent" not in site.children:
            await asyncio.sleep(0.01)
        most = await peak(site, "agent", starting)
        await starting
        draining: asyncio.Task[object] = asyncio.create_task(site.accepted_all())
        most = max(most, await peak(site, "agent", draining))
        figures.add("big_spool_mb", most / MB)
        is_all = draining.exception() is None and size >= BIG_SPOOL_BYTES
        figures.add("big_spool_drained", float(is_all))
        await site.close()


@contextmanager
def _grouped(figures: Figures, site: Site) -> Iterator[None]:
    """Have the agent run in a cgroup; how often the kernel killed in it is a figure."""
    if reason(GROUP_BYTES):
        yield
        return
    site.cgroup = Cgroup.make("shanmen-bench", GROUP_BYTES)
    try:
        yield
    finally:
        figures.add("big_spool_cgroup_kills", site.cgroup.kills)
        site.cgroup.close()


def in_cgroup() -> str:
    """The table of the cgroup's bar, or nothing and why (printed) where none can be made."""
    why = reason(GROUP_BYTES)
    if why:
        print(f"no memory cgroup can be made here, so its bar does not count: {why}", flush=True)
    return "" if why else "bench memory in a cgroup"


async def idle(figures: Figures, folder: Path) -> None:
    """CPU of three agents side by side: nothing to do, polled, messages; and the first segment.

    Beside them the least program that takes the same messages as durably (tests/bench/floor.py).
    """
    broker = Broker(folder / "broker")
    await broker.start()
    publishing = asyncio.create_task(publish(broker.url, 100, folder / "book"))
    sites: list[Site] = []
    try:
        still = Broker(folder / "still")
        await still.start()
        sites = [
            await make(folder / "idle", profile="", broker=still),
            await make(folder / "polled", profile="polled", options={"rate": 100}),
            await make(folder / "messages", profile="", broker=broker),
        ]
        for site in sites:
            await site.start("hub")
        await asyncio.sleep(2)
        began = time.time()
        await sites[2].start("agent", wait=False)
        figures.add("first_segment_s", await sites[2].first_accepted() - began)
        for site in sites[:2]:
            await site.start("agent")
        words = [sys.executable, "-m", "tests.bench.floor", f"{broker.port}", f"{folder / 'floor'}"]
        floor = await asyncio.create_subprocess_exec(*words, cwd=ROOT)
        least = psutil.Process(floor.pid)
        await asyncio.sleep(10)
        before, at = [site.cpu_s("agent") for site in sites], time.monotonic()
        spent_least = -sum(least.cpu_times()[:2])
        await asyncio.sleep(IDLE_S)
        spent = time.monotonic() - at
        spent_least += sum(least.cpu_times()[:2])
        floor.kill()
        await floor.wait()
        for name, site, old in zip(("idle", "polled", "messages"), sites, before, strict=True):
            figures.add(f"{name}_cpu", (site.cpu_s("agent") - old) / spent * 100)
        figures.add("messages_floor_cpu", spent_least / spent * 100, "% of a core: paho, SQLite")
        figures.add("messages_accepted", _accepted(await sites[2].look()), "records")
        await still.stop()
    finally:
        publishing.cancel()
        with suppress(asyncio.CancelledError):
            await publishing
        for site in sites:
            await site.close()
        await broker.stop()


def _accepted(status: dict[str, object]) -> int:
    rows = status["resources"]
    assert isinstance(rows, list)
    return sum(int(row["accepted"]) for row in rows)


async def disk(figures: Figures, folder: Path) -> None:
    """Bytes that the kernel wrote to the device for the agent at one polled record a second."""
    if on_memory(folder):
        return  # a missing figure is a red one
    site = await make(folder, profile="polled", options={"rate": 1})
    await site.start("hub")
    await site.start("agent")
    await asyncio.sleep(30)
    before, at = site.written_bytes("agent"), time.monotonic()
    await asyncio.sleep(DISK_S)
    written = site.written_bytes("agent") - before
    figures.add("gb_a_day", written / (time.monotonic() - at) * 86_400 / 1e9)
    figures.add("bytes_written", written, f"B in {DISK_S:.0f} s")
    await site.close()


def on_memory(folder: Path) -> bool:
    """Whether a folder lies on a file system that never reaches a device."""
    found = [
        (len(one.mountpoint), one.fstype)
        for one in psutil.disk_partitions(all=True)
        if folder.resolve().is_relative_to(one.mountpoint)
    ]
    return not found or max(found)[1] in {"tmpfs", "ramfs"}
