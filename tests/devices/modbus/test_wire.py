"""The shell on real wires: an RS-485 line on a pty, and a pymodbus server over TCP."""

import asyncio
import os
import random
import subprocess
import sys
import time
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from devices.demo.reconcile import reconcile
from devices.driver import DeviceState, DriverError, Promise
from devices.kit import Bench, load
from devices.modbus.client import Line, NoAnswerError
from devices.modbus.pace import DEAD_AFTER
from devices.modbus.plan import Block
from devices.simulators.books import Book, read_books
from devices.simulators.broker import free_port
from devices.simulators.modbus_bus import RESOURCE, Counter, Site, counters
from devices.simulators.modbus_wire import Bus, TcpUnit, crc, pdu
from hub.owner.output import plain
from protocol.errors import Code
from protocol.times import Quality

BAUD = 57600


def bus_config(
    port: Path, units: dict[int, Counter], *, every: str = "100ms", more: str = ""
) -> str:
    text = f'[[bus]]\nid = "line"\nport = "{port}"\nbaud = {BAUD}\nturnaround = "2ms"\n{more}\n'
    for number, one in units.items():
        kind, second = ("u16", 1) if one.wrap == 1 << 16 else ("u32", 2)
        place = f'bus = "line", unit = {number}'
        text += device(one.name, place, kind, second, every)
    return text


def device(name: str, place: str, kind: str, second: int, every: str) -> str:
    return f"""
[[device]]
id = "{name}"
profile = "modbus/generic"
resource = "{RESOURCE}"
pack = "visitor.passage"
connection = {{ {place} }}
poll = {{ every = "{every}" }}
[device.map]
in_count = {{ register = "holding:0", type = "{kind}", words = "low_first", counter = {{}} }}
out_count = {{ register = "holding:{second}", type = "{kind}", words = "low_first", counter = {{}} }}
"""


class NowBench(Bench):
    """A bench with the real clock."""

    def clock_us(self) -> int:
        return time.time_ns() // 1000


@asynccontextmanager
async def site_on_a_bus(folder: Path):
    book = Book(folder / "books.jsonl")
    units = counters(random.Random(4))
    site = Site(book, units)
    try:
        async with Bus(folder / "rs485", BAUD, site) as bus:
            yield site, bus
    finally:
        book.close()


async def pump(driver, bench, until) -> None:
    async with asyncio.timeout(30), aclosing(driver.run()) as readings:
        async for reading in readings:
            bench.commit(reading)
            if until():
                return


async def test_R19_a_dead_unit_costs_the_others_nothing_that_matters(tmp_path: Path):
    async with site_on_a_bus(tmp_path) as (site, bus):
        site.units[2].has_power = False
        line = {number: one for number, one in site.units.items() if number}
        loaded = load(bus_config(tmp_path / "rs485", line))
        bench = NowBench()
        driver = loaded.drivers[0].make(bench)

        def counted() -> None:
            for one in line.values():
                one.count(1, 0)  # so that each answer makes a record

        def until() -> bool:
            counted()
            return len(bus.requests) > 200

        await pump(driver, bench, until)
        asked = {number: bus.requests.count(number) for number in line}
        living = [asked[1], asked[3], asked[4]]
        # Roughly: a machine that is busy costs turns. The exact rhythm is tested in its own clock.
        assert min(living) >= max(living) / 2
        # Naively each round waits for it: as many polls as the others.
        assert DEAD_AFTER <= asked[2] <= min(living) / 5
        assert bench.health.states["L2"] is DeviceState.SILENT
        assert bench.health.states.get("L1") is not DeviceState.SILENT
        assert driver.schedule.units["L2"].is_dead

        site.units[2].has_power = True
        before = bus.requests.count(2)

        def is_back() -> bool:
            counted()
            return bus.requests.count(2) > before + 3

        await pump(driver, bench, is_back)
        assert not driver.schedule.units["L2"].is_dead
        assert bench.health.counters["L2", "unanswered"] >= asked[2]


@dataclass
class Ledger:
    """What of each counter is committed, so that the test knows what can be known."""

    sums: dict[str, list[int]]
    polled: tuple[str, ...] = ()  # devices of the plan that runs now

    def commit(self, bench: Bench, reading) -> None:
        bench.commit(reading)
        for record in (one for rows in reading.rows for one in rows.records):
            self.sums[record.device][0] += record.values["in_count"] or 0
            self.sums[record.device][1] += record.values["out_count"] or 0

    def has_all_of(self, one: Counter) -> bool:
        return one.name in self.polled and tuple(self.sums[one.name]) == one._read


def is_clear(one: Counter) -> bool:
    """Whether a restart now can be told from a roll-over, and from no restart at all."""
    return all(400 < total % one.wrap < one.wrap - 2_000 for total in (one.came, one.went))


async def people(site: Site, chance: random.Random, ledger: Ledger) -> None:
    """Persons pass, units restart and lose their power, until cancelled.

    A unit that restarts while its last answer is neither committed nor asked again loses what was
    in it for everybody; one that restarts unseen and passes its old total looks as if it had not.
    Nobody can know that, so here it does not happen.
    """
    while True:
        await asyncio.sleep(0.02)
        for number, one in site.units.items():
            one.count(chance.randrange(4), chance.randrange(3))
            if number not in site.shown and ledger.has_all_of(one) and is_clear(one):
                one.restart()
            if number == 4 and chance.random() < 0.03:
                one.has_power = not one.has_power


async def test_class_D_totals_are_exact_whatever_dies(tmp_path: Path):
    """Power cuts, wraps, and an agent that dies before or after its commits; the books decide."""
    chance = random.Random(9)
    async with site_on_a_bus(tmp_path) as (site, _):
        port = free_port()
        text = bus_config(tmp_path / "rs485", {n: u for n, u in site.units.items() if n})
        text += device("T1", f'host = "127.0.0.1", tcp_port = {port}', "u32", 2, "100ms")
        loaded = load(text)
        assert loaded.resources[RESOURCE].promise is Promise.D
        bench = NowBench()
        ledger = Ledger({one.name: [one.came, one.went] for one in site.units.values()})
        async with TcpUnit(port, site):
            for plan in loaded.drivers:
                await settle(plan, bench, ledger)  # the base line
            passing = asyncio.create_task(people(site, chance, ledger))
            for plan in loaded.drivers:
                await settle(plan, bench, ledger)
                ledger.polled = plan.devices
                for _ in range(6):
                    left, dies_before_commit = chance.randrange(4, 15), chance.random() < 0.5
                    async with asyncio.timeout(30), aclosing(plan.make(bench).run()) as readings:
                        async for reading in readings:
                            left -= 1
                            if left or not dies_before_commit:
                                ledger.commit(bench, reading)
                            if not left:
                                break
                ledger.polled = ()
            passing.cancel()
            for one in site.units.values():
                one.has_power = True
            for plan in loaded.drivers:
                await settle(plan, bench, ledger)
    books = read_books([tmp_path / "books.jsonl"])
    records = [one for reading in bench.committed for rows in reading.rows for one in rows.records]
    account = reconcile(books[RESOURCE], [plain(one) for one in records], RESOURCE)
    assert account.kept, account
    assert account.units > 100
    assert sum(bool(one.quality & Quality.REBASED) for one in records) > 6, "units restarted"


async def settle(plan, bench: Bench, ledger: Ledger) -> None:
    """Let the last totals be read: nobody passes now, and a new instance records what it finds."""
    left = set(plan.devices)
    async with asyncio.timeout(30), aclosing(plan.make(bench).run()) as readings:
        async for reading in readings:
            ledger.commit(bench, reading)
            left -= {record.device for rows in reading.rows for record in rows.records}
            if not left:
                return


async def test_R01_noise_before_an_answer_costs_one_poll_and_no_total(tmp_path: Path):
    async with site_on_a_bus(tmp_path) as (site, bus):
        bench = NowBench()
        driver = load(bus_config(tmp_path / "rs485", {3: site.units[3]})).drivers[0].make(bench)
        turns = 0

        def until() -> bool:
            nonlocal turns
            turns += 1
            site.units[3].count(5, 0)
            if turns % 3 == 0:
                bus.noise(random.Random(turns).randbytes(turns))
            return turns > 30

        await pump(driver, bench, until)
        total = sum(
            r.values["in_count"] or 0
            for one in bench.committed
            for rows in one.rows
            for r in rows.records
        )
        assert total == 5 * 30
        assert not any(one.rejected for one in bench.committed)


async def test_a_line_that_is_pulled_and_comes_back(tmp_path: Path):
    bench = NowBench()
    async with site_on_a_bus(tmp_path) as (site, _):
        driver = load(bus_config(tmp_path / "rs485", {3: site.units[3]})).drivers[0].make(bench)
        readings = driver.run()
        bench.commit(await anext(readings))
        shown = site.units[3].came
    with pytest.raises(DriverError) as lost:
        async with asyncio.timeout(20):
            await anext(readings)
    assert lost.value.code is Code.UNREACHABLE
    assert lost.value.retry
    async with site_on_a_bus(tmp_path) as (site, _):
        site.units[3].came = shown + 7
        async with aclosing(driver.run()) as again:
            reading = await anext(again)
        assert reading.rows[0].records[0].values["in_count"] == 7


def test_nothing_of_modbus_is_imported_before_it_connects(tmp_path: Path):
    config = tmp_path / "agent.toml"
    config.write_text(
        bus_config(tmp_path / "rs485", counters(random.Random(1))).replace("unit = 0", "unit = 9")
    )
    code = (
        "import sys; from devices.kit import Bench, load;"
        f"loaded = load(open({str(config)!r}).read()); assert not loaded.problems, loaded.problems;"
        "loaded.drivers[0].make(Bench());"
        "assert not {'pymodbus', 'serial'} & set(sys.modules)"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=Path(__file__).resolve().parents[3]
    )


# --- a server that is not ours -----------------------------------------------------------------


@asynccontextmanager
async def served(handle, port: int):
    """A host of a test's own; its connections are over when it is."""
    tasks: list[asyncio.Task] = []

    async def connected(reader, writer):
        tasks.append(asyncio.current_task())
        try:
            await handle(reader, writer)
        finally:
            writer.close()

    async with await asyncio.start_server(connected, "127.0.0.1", port):
        yield tasks
        await asyncio.gather(*tasks)


@asynccontextmanager
async def pymodbus_server(port: int):
    """Holding 0..1 and 10..13, nothing between; coils 3..10; input registers 0..1."""
    device = SimDevice(
        1,
        simdata=(
            [SimData(0, values=[True] * 16, datatype=DataType.BITS)],
            [SimData(0, values=[False, True, True, False] * 4, datatype=DataType.BITS)],
            [
                SimData(0, values=[34464, 1], datatype=DataType.REGISTERS),
                SimData(10, values=[7, 0, 9, 0], datatype=DataType.REGISTERS),
            ],
            [SimData(0, values=[0x0110, 0xF000], datatype=DataType.REGISTERS)],
        ),
    )
    server = ModbusTcpServer(device, address=("127.0.0.1", port))
    await server.serve_forever(background=True)
    try:
        yield server
    finally:
        await server.shutdown()


def tcp_config(port: int, fields: str, *, unit: int = 1, pack: str = "visitor.passage") -> str:
    return f"""
[[device]]
id = "T1"
profile = "modbus/generic"
resource = "r"
pack = "{pack}"
connection = {{ host = "127.0.0.1", tcp_port = {port}, unit = {unit}, timeout = "500ms" }}
poll = {{ every = "50ms", gap = 20 }}
{fields}
"""


HOLED = """[device.map]
in_count = { register = "40001", type = "u32", words = "low_first", counter = { first = "zero", max_step = 1000000 } }
child_in = { register = "holding:10", type = "u32", words = "low_first" }
child_out = { register = "holding:12", type = "u32", words = "low_first" }
"""


async def test_R21_a_block_that_a_server_refuses_is_read_in_pieces(tmp_path: Path):
    port = free_port()
    bench = NowBench()
    async with pymodbus_server(port):
        driver = load(tcp_config(port, HOLED)).drivers[0].make(bench)
        (reading,) = await bench.pump(driver, 1)
    values = reading.rows[0].records[0].values
    assert (values["in_count"], values["child_in"], values["child_out"]) == (100_000, 7, 9)
    assert bench.health.counters["T1", "blocks_split"] == 1
    assert [str(one) for one in driver.units["T1"].blocks] == ["holding:0-1", "holding:10-13"]
    assert not reading.rejected


async def test_a_register_that_does_not_exist_is_named_once_and_the_others_are_read():
    port = free_port()
    bench = NowBench()
    fields = HOLED + 'passby = { register = "holding:300" }\n'
    async with pymodbus_server(port):
        driver = load(tcp_config(port, fields)).drivers[0].make(bench)
        first, second = await bench.pump(driver, 2)
        (probed,) = await driver.probe()
    assert [(one.reason, one.detail) for one in first.rejected] == [
        ("illegal-address", "holding:300")
    ]
    assert second.rows[0].records[0].values["in_count"] == 100_000
    assert bench.health.states["T1"] is DeviceState.ONLINE
    assert (probed.ok, probed.key, probed.fields["register"]) == (
        False,
        "unit-illegal-address",
        "holding:300",
    )


async def test_an_answer_that_is_none_costs_one_poll_and_not_the_connection():
    """pymodbus raises where it cannot make a PDU of what arrived, and asyncio would close."""
    answers = [
        bytes.fromhex("000000000003016300"),
        None,
        bytes.fromhex("0000000000070103040007000b"),
    ]

    async def serve(reader, writer):
        while request := await reader.read(12):
            answer = answers.pop(0)
            if answer is not None:
                writer.write(request[:2] + answer[2:])

    port = free_port()
    source = load(tcp_config(port, HOLED)).drivers[0].config
    block = source.units[0].blocks[0]
    short = Block(block.start, 2, block.spans[:1])
    async with served(serve, port) as connections, Line(source) as line:
        for heard in (True, False):
            with pytest.raises(NoAnswerError) as none:
                await line.read(1, short, 200_000)
            assert none.value.heard is heard
        assert (await line.read(1, short, 5_000_000))[0] == [7, 11]
        assert len(connections) == 1


async def test_R18_a_shorter_answer_is_not_taken_for_the_one_asked_for(tmp_path: Path):
    async with site_on_a_bus(tmp_path) as (site, bus):
        source = load(bus_config(tmp_path / "rs485", {3: site.units[3]})).drivers[0].config
        block = source.units[0].blocks[0]
        late = bytes([3]) + pdu(3, [1, 2])
        async with Line(source) as line:
            assert len((await line.read(3, block, 5_000_000))[0]) == block.count == 4
            asking = asyncio.create_task(line.read(3, block, 5_000_000))
            while len(bus.requests) < 2:
                await asyncio.sleep(0)
            bus.noise(late + crc(late))
            with pytest.raises(NoAnswerError):
                await asking


async def test_R22_bits_of_discrete_inputs_stand_in_their_order():
    port = free_port()
    bench = NowBench()
    fields = '[device.bays]\nregister = "discrete:3"\nlabels = ["A", "B", "C", "D", "E"]\n'
    async with pymodbus_server(port):
        driver = load(tcp_config(port, fields, pack="parking.bay")).drivers[0].make(bench)
        (reading,) = await bench.pump(driver, 1)
    states = [one.values["state"] for one in reading.rows[0].records]
    assert states == ["free", "free", "occupied", "occupied", "free"]


async def test_a_host_that_goes_away_and_comes_back():
    port = free_port()
    bench = NowBench()
    driver = load(tcp_config(port, HOLED)).drivers[0].make(bench)
    with pytest.raises(DriverError) as refused:
        await bench.pump(driver, 1)
    assert refused.value.code is Code.UNREACHABLE
    async with pymodbus_server(port):
        readings = driver.run()
        bench.commit(await anext(readings))
    with pytest.raises(DriverError):
        async with asyncio.timeout(20):
            await anext(readings)
    async with pymodbus_server(port) as server:
        await server.async_setValues(1, 16, 0, [34469, 1])
        (reading,) = await bench.pump(driver, 1)
    assert reading.rows[0].records[0].values["in_count"] == 5


async def test_bays_become_unknown_where_the_unit_died_before_the_agent_started():
    fields = '[device.bays]\nregister = "discrete:3"\nlabels = ["A", "B"]\n'
    bench = Bench()
    plan = load(tcp_config(free_port(), fields, pack="parking.bay")).drivers[0]
    bench.commit(plan.make(bench).decode("T1", {(2, 3): 1, (2, 4): 0}, bench.now_us))
    again = plan.make(bench)  # the agent restarts, and nothing is at the host any more
    with pytest.raises(DriverError):
        await bench.pump(again, 1)
    bench.now_us += 24 * 3600 * 1_000_000
    (reading,) = await bench.pump(again, 1)
    for record in reading.rows[0].records:
        assert record.values["state"] == "unknown"
        assert record.quality & Quality.ESTIMATED
    with pytest.raises(DriverError):  # told once
        await bench.pump(again, 1)


# --- doctor ------------------------------------------------------------------------------------


async def probed(text: str):
    return {one.device: one for one in await load(text).drivers[0].make(Bench()).probe()}


async def test_doctor_tests_each_unit_of_a_line_and_names_the_remedy(tmp_path: Path):
    async with site_on_a_bus(tmp_path) as (site, _):
        site.units[2].has_power = False
        text = bus_config(tmp_path / "rs485", {n: u for n, u in site.units.items() if n})
        head, third = text.split('id = "L3"')
        text = head + 'id = "L3"' + third.replace("holding:2", "holding:200", 1)
        found = await probed(text)
    assert {name: one.key for name, one in found.items()} == {
        "L1": "unit-answers", "L2": "unit-silent", "L3": "unit-illegal-address", "L4": "unit-answers",
    }  # fmt: skip
    assert found["L1"].ok
    assert found["L2"].fields["unit"] == "2"
    assert (await probed(text))["L1"].key == "line-missing"


async def test_doctor_beside_a_running_agent_and_without_permission(tmp_path: Path, monkeypatch):
    async with site_on_a_bus(tmp_path) as (site, _):
        text = bus_config(tmp_path / "rs485", {1: site.units[1]})
        driver = load(text).drivers[0].make(NowBench())
        async with aclosing(driver.run()) as readings:
            await anext(readings)
            busy = (await probed(text))["L1"]
        assert (busy.ok, busy.key) == (True, "line-busy")

        def forbidden(*_):
            raise PermissionError

        monkeypatch.setattr(os, "open", forbidden)
        assert (await probed(text))["L1"].key == "line-permission"


async def test_doctor_at_a_host():
    port = free_port()
    assert (await probed(tcp_config(port, HOLED)))["T1"].key == "host-refused"
    async with pymodbus_server(port):
        assert (await probed(tcp_config(port, HOLED)))["T1"].key == "unit-answers"
        # It fails for a unit that it does not know.
        assert (await probed(tcp_config(port, HOLED, unit=9)))["T1"].key == "device-failure"

    async def box(reader, writer):
        """A gateway box: nobody behind it answers (R20)."""
        while request := await reader.read(12):
            writer.write(request[:5] + bytes([3, request[6], request[7] | 0x80, 11]))

    async def mute(reader, writer):
        await reader.read()

    async with served(box, port):
        assert (await probed(tcp_config(port, HOLED, unit=9)))["T1"].key == "gateway-no-answer"
    async with served(mute, port):
        assert (await probed(tcp_config(port, HOLED)))["T1"].key == "host-unit-silent"
    unknown = tcp_config(port, HOLED).replace("127.0.0.1", "counter.invalid")
    assert (await probed(unknown))["T1"].key == "host-unknown"
