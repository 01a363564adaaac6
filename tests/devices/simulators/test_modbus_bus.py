"""The simulated line as a process: the driver on it, one unit dies, and the books are kept."""

import argparse
import asyncio
import random
import signal
import sys
from contextlib import aclosing
from pathlib import Path

import pytest

from devices.demo.reconcile import reconcile
from devices.kit import Bench, load
from devices.simulators.books import Book, read_books
from devices.simulators.broker import free_port
from devices.simulators.modbus_bus import RESOURCE, Counter, Site, counters, death, let_pass
from devices.simulators.modbus_wire import crc, pdu
from hub.owner.output import plain
from tests.devices.modbus.test_wire import NowBench, bus_config, device


def test_frames_are_those_of_the_standard():
    assert crc(bytes.fromhex("010300000002")).hex() == "c40b"
    assert pdu(3, [658, 65435]).hex() == "03040292ff9b"
    assert pdu(2, [1, 0, 1, 1, 0, 0, 0, 0, 1]).hex() == "02020d01"
    assert pdu(4, 2).hex() == "8402"


def test_what_a_counter_forgot_is_not_expected_of_anybody():
    one = Counter("L1", 1 << 16, 65_530, 10)
    one.count(9, 1)
    one.was_read(one.shown())
    one.count(5, 0)  # nobody reads this any more
    one.restart()
    one.count(2, 0)
    assert one.shown() == {"in_total": 2, "out_total": 0, "in_sum": 65_541, "out_sum": 11}
    one.swap(900, 1)
    assert one.registers() == [900, 1]
    one.has_power = False
    one.count(7, 7)
    assert one.shown()["in_sum"] == 65_539


@pytest.mark.parametrize(("keeps", "shown"), [(True, 70_005), (False, 0)])
def test_total_outlives_a_power_cut_only_where_told(tmp_path: Path, keeps: bool, shown: int):
    one = Counter("L3", 1 << 32, 70_005, 0)
    site = Site(Book(tmp_path / "b"), {3: one})
    told = argparse.Namespace(dies=[death("3:1:2")], keeps=keeps)
    let_pass(site, NobodyPasses(), told, 1.5)
    assert site.answer(3, 3, 0, 4) is None
    let_pass(site, NobodyPasses(), told, 3.5)
    assert one.shown()["in_total"] == shown


class NobodyPasses(random.Random):
    def randrange(self, *_: int) -> int:
        return 0


async def test_a_site_with_a_death_reconciles(tmp_path: Path):
    port = free_port()
    words = ["--port", str(tmp_path / "rs485"), "--tcp", str(port), "--books", str(tmp_path / "b")]
    words += ["--baud", "57600", "--rate", "60", "--linger", "2", "--dies", "3:1:1"]
    assert death("3:1:1").for_s == 1
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "devices.simulators.modbus_bus", *words
    )
    try:
        line = {n: one for n, one in counters(random.Random(1)).items() if n}
        more = 'timeout = "100ms"\nprobe_min = "100ms"\nprobe_max = "500ms"'
        text = bus_config(tmp_path / "rs485", line, more=more)
        text += device("T1", f'host = "127.0.0.1", tcp_port = {port}', "u32", 2, "100ms")
        bench = NowBench()
        async with asyncio.timeout(60):
            await until((tmp_path / "rs485").is_symlink)
            drivers = [plan.make(bench) for plan in load(text).drivers]
            polling = [asyncio.create_task(poll(one, bench)) for one in drivers]
            await until(lambda: is_dead(drivers[0]))
            await until(lambda: not is_dead(drivers[0]))
            process.send_signal(signal.SIGTERM)
            await process.wait()
        for one in polling:
            one.cancel()
        await asyncio.wait(polling)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    books = read_books([tmp_path / "b"])
    rows = [plain(r) for one in bench.committed for rows in one.rows for r in rows.records]
    account = reconcile(books[RESOURCE], rows, RESOURCE)
    assert account.kept, account
    assert {one.device for one in books[RESOURCE]} == {"L1", "L2", "L3", "L4", "T1"}


async def until(is_so) -> None:
    while not is_so():
        await asyncio.sleep(0.02)


def is_dead(driver) -> bool:
    return driver.schedule is not None and driver.schedule.units["L3"].is_dead


async def poll(driver, bench: Bench) -> None:
    async with aclosing(driver.run()) as readings:
        async for reading in readings:
            bench.commit(reading)
