"""Four people counters on one RS-485 line and one over TCP (promise class D).

    python -m devices.simulators.modbus_bus --port /tmp/site/rs485 --tcp 5020 --books modbus.jsonl

The line is a pty whose other end is linked under `--port`; frames come at the line's bit rate (a
pty has none), answers after the 3.5 characters and the thinking time of a real unit, and a unit
that has no power is silent. Two counters have 16 bits and wrap, one is reset by an installer, one
starts again after a power cut (`--dies UNIT:AFTER:FOR`, seconds; with `--keeps` it has its total in
a memory that needs no power). What it leaves out: parity and
framing errors (a pty refuses parity), and the echo of some adapters.

Books: an answer is an observation, `acked` when its last byte went out. Units tell no time, so the
owner's rows are found by device and totals. `in_sum` and `out_sum` are what increments can add up
to: persons that a unit counted and forgot before anybody read them are not in it.
"""

import argparse
import asyncio
import contextlib
import random
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from devices.simulators.books import Book, Content
from devices.simulators.command import Clock
from devices.simulators.modbus_wire import Bus, TcpUnit

RESOURCE = "line-passages"
#: After SIGTERM it counts no more and answers for so long, so that the last totals are read.
LINGER_S = 3.0


@dataclass(slots=True)
class Counter:
    """One counter: what it shows, and what its increments must add up to."""

    name: str
    wrap: int
    came: int  # shown, without wraps
    went: int
    came_sum: int = 0
    went_sum: int = 0
    _read: tuple[int, int] = (0, 0)  # the sums when it was read last
    has_power: bool = True
    think_s: float = 0.004

    def __post_init__(self) -> None:
        self.came_sum, self.went_sum = self.came, self.went
        self._read = self.came, self.went

    def count(self, came: int, went: int) -> None:
        """Persons pass; a unit without power sees none."""
        if self.has_power:
            self.came += came
            self.went += went
            self.came_sum += came
            self.went_sum += went

    def restart(self) -> None:
        """Show 0 again, as after a power cut, a daily reset or an installer's visit."""
        self.came = self.went = 0
        self.came_sum, self.went_sum = self._read

    def swap(self, came: int, went: int) -> None:
        """Another unit takes its place, with totals of its own."""
        self.restart()
        self.came, self.went = came, went

    def registers(self) -> list[int]:
        """Holding registers from 0: both totals, low word first where they have 32 bits."""
        shown = [self.came % self.wrap, self.went % self.wrap]
        if self.wrap == 1 << 16:
            return shown
        return [word for total in shown for word in (total & 0xFFFF, total >> 16 & 0xFFFF)]

    def shown(self) -> dict[str, int]:
        """What the book says of an answer that is made now."""
        return {
            "in_total": self.came % self.wrap,
            "out_total": self.went % self.wrap,
            "in_sum": self.came_sum,
            "out_sum": self.went_sum,
        }

    def was_read(self, shown: dict[str, int]) -> None:
        """An answer went out: what it showed is known, whatever becomes of the unit."""
        self._read = shown["in_sum"], shown["out_sum"]


def counters(chance: random.Random) -> dict[int, Counter]:
    """The four of the line by unit number, and as number 0 the one over TCP."""
    return {
        1: Counter("L1", 1 << 16, 65_500 - chance.randrange(50), 65_400 - chance.randrange(50)),
        2: Counter("L2", 1 << 16, chance.randrange(60_000), 65_530),
        3: Counter("L3", 1 << 32, chance.randrange(1_000_000), chance.randrange(1_000_000)),
        4: Counter("L4", 1 << 32, 0, 0),
        0: Counter("T1", 1 << 32, chance.randrange(1_000_000), 70_000),
    }


@dataclass(slots=True)
class Site:
    """The counters, the wires they hang on, and the book."""

    book: Book
    units: dict[int, Counter]
    clock: Clock = field(default_factory=Clock)
    number: int = 0
    shown: dict[int, dict[str, int]] = field(default_factory=dict)  # of the answer under way
    run: str = field(default_factory=lambda: f"{time.time_ns() // 1_000_000:x}")

    def answer(self, unit: int, function: int, start: int, count: int) -> list[int] | int | None:
        """What a unit answers: registers, a Modbus exception, or nothing."""
        one = self.units.get(unit)
        if one is None or not one.has_power:
            return None
        if function not in {3, 4}:
            return 1
        registers = one.registers()
        if start + count > len(registers):
            return 2
        self.shown[unit] = one.shown()
        return registers[start : start + count]

    def answered(self, unit: int) -> None:
        """The last byte of an answer went out."""
        one = self.units[unit]
        self.number += 1
        key = f"{one.name}-{self.run}-{self.number}"
        shown = self.shown.pop(unit)
        one.was_read(shown)
        content = Content(self.clock.now_us(), shown)
        self.book.made(key, "D", one.name, [(RESOURCE, content)])
        self.book.sent(key)
        self.book.acked(key)


@dataclass(frozen=True, slots=True)
class Death:
    """A power cut of one unit."""

    unit: int
    after_s: float
    for_s: float


def death(text: str) -> Death:
    """`3:10:15`: unit 3 loses its power after 10 s for 15 s. Raises ValueError."""
    unit, after_s, for_s = text.split(":")
    return Death(int(unit), float(after_s), float(for_s))


async def simulate(told: argparse.Namespace) -> None:
    """Count and answer until SIGTERM; then answer a little longer, counting no more."""
    chance = random.Random(told.seed)
    book = Book(told.books)
    site = Site(book, counters(chance))
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    try:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(Bus(told.port, told.baud, site))
            if told.tcp:
                await stack.enter_async_context(TcpUnit(told.tcp, site))
            async for passed_s in _seconds(told.rate, stop):
                let_pass(site, chance, told, passed_s)
            await asyncio.sleep(told.linger)
    finally:
        book.close()


def let_pass(site: Site, chance: random.Random, told: argparse.Namespace, passed_s: float) -> None:
    """What happens at one moment: power fails or is back, and perhaps somebody passes."""
    for one in told.dies:
        unit = site.units[one.unit]
        has_power = not one.after_s <= passed_s < one.after_s + one.for_s
        if has_power and not unit.has_power and not told.keeps:
            unit.restart()
        unit.has_power = has_power
    unit = chance.choice(list(site.units.values()))
    unit.count(chance.randrange(3), chance.randrange(2))


async def _seconds(rate: float, stop: asyncio.Event) -> AsyncIterator[float]:
    """Seconds since the start, `rate` times a second, until the stop."""
    began_s = time.monotonic()
    while not stop.is_set():
        yield time.monotonic() - began_s
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1 / rate):
                await stop.wait()


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", required=True, type=Path, help="link to make to the line's end")
    parser.add_argument("--tcp", type=int, default=0, help="port of the unit over TCP; 0: none")
    parser.add_argument("--books", required=True, type=Path, help="file to append the books to")
    parser.add_argument("--baud", type=int, default=9600)
    parser.add_argument("--rate", type=float, default=8.0, help="persons' passings a second")
    parser.add_argument("--seed", type=int, default=1, help="of everything random here")
    parser.add_argument("--dies", type=death, action="append", default=[], help="UNIT:AFTER:FOR")
    parser.add_argument("--keeps", action="store_true", help="totals outlive a power cut")
    parser.add_argument("--linger", type=float, default=LINGER_S, help="seconds after SIGTERM")
    asyncio.run(simulate(parser.parse_args()))


if __name__ == "__main__":
    main()
