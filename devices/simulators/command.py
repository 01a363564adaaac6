"""What the simulators' commands have in common: arguments, pace, an orderly end."""

import argparse
import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Orders:
    """What a simulator was told on its command line."""

    broker: str  # url; empty for what hangs on a line
    books: Path
    rate: float  # messages a second
    seed: int
    count: int | None  # messages, or until SIGTERM


def orders(description: str, *, rate: float) -> Orders:
    """Read the command line of a simulator that publishes to a broker."""
    parser = arguments(description, rate=rate)
    parser.add_argument("--broker", required=True, help="mqtt://host:port")
    found = parser.parse_args()
    return Orders(found.broker, found.books, found.rate, found.seed, found.count)


def arguments(description: str, *, rate: float) -> argparse.ArgumentParser:
    """What every simulator can be told."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--books", required=True, type=Path, help="file to append the books to")
    parser.add_argument("--rate", type=float, default=rate, help="messages a second")
    parser.add_argument("--seed", type=int, default=1, help="of everything random here")
    parser.add_argument("--count", type=int, help="stop by itself after so many messages")
    return parser


async def ticks(told: Orders) -> AsyncIterator[int]:
    """0, 1, 2 … at the told rate (a simulator's own pace), until the count or SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    began = time.monotonic()
    number = 0
    while not stop.is_set() and (told.count is None or number < told.count):
        yield number
        number += 1
        behind = began + number / told.rate - time.monotonic()
        if behind > 0:
            try:
                async with asyncio.timeout(behind):
                    await stop.wait()
            except TimeoutError:
                pass


class Clock:
    """The devices' clock: each reading is later than the one before, in whole milliseconds."""

    def __init__(self) -> None:
        self._last_us = 0

    def now_us(self) -> int:
        """µs UTC."""
        self._last_us = max(self._last_us + 1000, time.time_ns() // 1_000_000 * 1000)
        return self._last_us


def rfc3339(time_us: int) -> str:
    """A time as ChirpStack writes it."""
    whole = datetime.fromtimestamp(time_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{whole}.{time_us % 1_000_000:06d}+00:00"


def run(simulate: Callable[[Orders], Awaitable[None]], told: Orders) -> None:
    """Run one simulator to its end: everything that was published is acknowledged and booked."""

    async def main() -> None:
        await simulate(told)

    asyncio.run(main())
