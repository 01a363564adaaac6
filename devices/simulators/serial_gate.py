"""A ticket gate or a QR reader on a serial line: the honest other end of a pseudo-terminal.

    python -m devices.simulators.serial_gate --port run/gate-e1 --books gate-e1.jsonl --gate E1

`--port` becomes a stable path to the line, as udev makes one: a pulled plug takes it away, and a
new line stands behind it when the plug is in again. Three kinds:

- `numbered` (class A): STX number|time|ticket|direction|result|persons ETX BCC, as long as nobody
  answers ACK number CR; NAK CR, or no answer within `--patience`, and the check is sent again.
- `plain` (class B): the same without the number, answered by ACK CR.
- `scanner` (class C): ticket CR LF, and nobody is asked whether it arrived.

As in the field: a visitor holds the ticket before the reader once more (the gate gives it a number
of its own, so it is a check of its own; what a scanner sees again is one scan, and the books know
only the first), noise comes between frames, a frame is cut off or loses a bit, and reads come in
pieces at the speed of the line.

What a pseudo-terminal leaves out, and this with it: parity, stop bits, flow control and a wrong
speed. It has no listener's speed at all, so the pace here is the sender's.
"""

import asyncio
import os
import random
import tty
from argparse import ArgumentParser
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from devices.simulators.books import Book, Content, Fact
from devices.simulators.command import Clock, Orders, arguments, rfc3339, run, ticks

#: Local names of the resources.
CHECK_RESOURCE = "serial-checks"
PLAIN_RESOURCE = "serial-plain-checks"
SCAN_RESOURCE = "serial-scans"

#: How long a pulled plug stays out, in seconds.
UNPLUGGED_S = 0.3
#: A held ticket is seen again so often and so soon, in seconds.
HELD_TIMES = 3
HELD_EVERY_S = 0.06

RESULTS = ("pass", "pass", "pass", "pass", "pass", "pass", "invalid", "expired", "used")
_STX, _ETX, _ACK, _NAK, _CR = b"\x02", b"\x03", b"\x06", b"\x15", b"\r"


@dataclass(frozen=True, slots=True)
class Line:
    """How one gate behaves on its line."""

    gate: str
    kind: str  # numbered, plain, scanner
    port: Path
    baud: int
    patience_s: float  # until a check is sent again
    trouble: float  # share of frames that something happens to
    repeats: float  # share of tickets that are held before the reader once more
    unplug_every: int  # checks; 0: never


class Wire:
    """One pseudo-terminal behind a path; what nobody reads is lost, as on a wire."""

    def __init__(self, port: Path, baud: int, chance: random.Random) -> None:
        self._port = port
        self._byte_s = 10 / baud
        self._chance = chance
        self._master = self._slave = -1
        self._arrived = asyncio.Event()
        self._heard = bytearray()

    def plug_in(self) -> None:
        """Make a line and its path."""
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        asyncio.get_running_loop().add_reader(self._master, self._hear)
        fresh = self._port.with_name(f"{self._port.name}.new")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(os.ttyname(self._slave))
        fresh.replace(self._port)

    def pull(self) -> None:
        """Take the line away. Idempotent."""
        if self._master < 0:
            return
        self._port.unlink(missing_ok=True)
        asyncio.get_running_loop().remove_reader(self._master)
        os.close(self._slave)
        os.close(self._master)
        self._master = self._slave = -1

    async def send(self, data: bytes) -> None:
        """Send in pieces, at the speed of the line."""
        while data:
            size = self._chance.randrange(1, 24)
            with suppress(BlockingIOError):  # nobody listens and the line is full
                os.write(self._master, data[:size])
            await asyncio.sleep(len(data[:size]) * self._byte_s)
            data = data[size:]

    def forget(self) -> None:
        """Drop answers that came too late to mean anything."""
        self._heard.clear()

    async def answer(self, wait_s: float) -> bytes:
        """The next answer without its CR; empty if none comes."""
        try:
            async with asyncio.timeout(wait_s):
                while _CR not in self._heard:
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            return b""
        found, _, rest = bytes(self._heard).partition(_CR)
        self._heard[:] = rest
        return found

    def _hear(self) -> None:
        try:
            self._heard += os.read(self._master, 1024)
        except OSError:
            return
        self._arrived.set()


class Gate:
    """What happens at one gate."""

    def __init__(self, line: Line, told: Orders, book: Book) -> None:
        self._line = line
        self._chance = random.Random(told.seed)
        self._book = book
        self._clock = Clock()
        self._run = f"{told.seed:x}-{self._clock.now_us():x}"
        self._number = 0
        self._wire = Wire(line.port, line.baud, self._chance)

    async def work(self, told: Orders) -> None:
        """Check tickets until the orders end; everything begun is answered."""
        self._wire.plug_in()
        try:
            async for number in ticks(told):
                await self._visitor()
                every = self._line.unplug_every
                if every and number % every == every - 1:
                    self._wire.pull()
                    await asyncio.sleep(UNPLUGGED_S)
                    self._wire.plug_in()
        finally:
            self._wire.pull()

    async def _visitor(self) -> None:
        """One check, and perhaps the same ticket once more: where numbered, another check."""
        chance, time_us = self._chance, self._clock.now_us()
        ticket = f"T{chance.getrandbits(48):012X}"
        again = chance.random() < self._line.repeats
        if self._line.kind == "scanner":
            await self._scan(self._next_key(), ticket, time_us, HELD_TIMES if again else 1)
            return
        values: dict[str, Fact] = {
            "ticket_ref": ticket,
            "gate_no": self._line.gate,
            "direction": "in" if chance.random() < 0.7 else "out",
            "result": chance.choice(RESULTS),
            "persons": chance.randrange(1, 6),
        }
        await self._check(time_us, values)
        if again and self._line.kind == "numbered":
            await self._check(self._clock.now_us(), values)

    def _next_key(self) -> str:
        self._number += 1
        return f"{self._line.gate}-{self._run}-{self._number}"

    async def _check(self, time_us: int, values: dict[str, Fact]) -> None:
        """One check with a number of its own, told until it is acknowledged."""
        key = self._next_key()
        is_numbered = self._line.kind == "numbered"
        resource = CHECK_RESOURCE if is_numbered else PLAIN_RESOURCE
        promise = "A" if is_numbered else "B"
        self._book.made(key, promise, self._line.gate, [(resource, Content(time_us, values))])
        await self._until_answered(key, self._number, time_us, values)

    async def _scan(self, key: str, ticket: str, time_us: int, times: int) -> None:
        """A reader without clock and answer: the event is timed by whoever hears it."""
        content = Content(time_us, {"ticket_ref": ticket})
        self._book.made(key, "C", self._line.gate, [(SCAN_RESOURCE, content)])
        for _ in range(times):
            self._book.sent(key)
            await self._wire.send(f"{ticket}\r\n".encode())
            await asyncio.sleep(HELD_EVERY_S)

    async def _until_answered(
        self, key: str, number: int, time_us: int, values: dict[str, Fact]
    ) -> None:
        """Send one check until it is acknowledged."""
        frame = self._frame(number, time_us, values)
        told = b"%d" % number if self._line.kind == "numbered" else b""
        while True:
            self._book.sent(key)
            self._wire.forget()
            await self._on_the_line(frame)
            loop = asyncio.get_running_loop()
            ends_s = loop.time() + self._line.patience_s
            while left_s := max(0.0, ends_s - loop.time()):
                answer = await self._wire.answer(left_s)
                if answer == _ACK + told:
                    self._book.acked(key)
                    return
                if answer == _NAK:
                    break

    def _frame(self, number: int, time_us: int, values: dict[str, Fact]) -> bytes:
        way = "I" if values["direction"] == "in" else "O"
        parts = [rfc3339(time_us), values["ticket_ref"], way, values["result"], values["persons"]]
        if self._line.kind == "numbered":
            parts.insert(0, number)
        body = "|".join(map(str, parts)).encode() + _ETX
        check = 0
        for byte in body:
            check ^= byte
        return _STX + body + bytes((check,))

    async def _on_the_line(self, frame: bytes) -> None:
        """Send a frame, and what a line does to it."""
        chance = self._chance
        if chance.random() >= self._line.trouble:
            await self._wire.send(frame)
            return
        match chance.randrange(3):
            case 0:  # noise before it
                noise = bytes(chance.choice(b"\x00\xff\x02\x55~") for _ in range(1, 9))
                await self._wire.send(noise + frame)
            case 1:  # cut off
                await self._wire.send(frame[: chance.randrange(1, len(frame))])
            case _:  # one bit wrong
                bad = bytearray(frame)
                bad[chance.randrange(len(bad))] ^= 1 << chance.randrange(8)
                await self._wire.send(bytes(bad))


def _arguments() -> ArgumentParser:
    assert __doc__ is not None
    parser = arguments(__doc__.splitlines()[0], rate=2.0)
    parser.add_argument("--port", required=True, type=Path, help="stable path to make")
    parser.add_argument("--gate", default="E1", help="number of the gate: its device id")
    parser.add_argument("--kind", choices=("numbered", "plain", "scanner"), default="numbered")
    parser.add_argument("--baud", type=int, default=9600, help="pace of the line, bit/s")
    parser.add_argument("--patience", type=float, default=2.0, help="seconds until sent again")
    parser.add_argument("--trouble", type=float, default=0.02, help="share of frames hurt")
    parser.add_argument("--repeats", type=float, default=0.05, help="share of tickets held again")
    parser.add_argument("--unplug-every", type=int, default=0, help="pull the plug after so many")
    return parser


def main() -> None:
    """Run one gate to its end."""
    found = _arguments().parse_args()
    told = Orders("", found.books, found.rate, found.seed, found.count)
    line = Line(
        gate=found.gate,
        kind=found.kind,
        port=found.port,
        baud=found.baud,
        patience_s=found.patience,
        trouble=found.trouble,
        repeats=found.repeats,
        unplug_every=found.unplug_every,
    )

    async def simulate(told: Orders) -> None:
        book = Book(told.books)
        try:
            await Gate(line, told, book).work(told)
        finally:
            book.close()

    run(simulate, told)


if __name__ == "__main__":
    main()
