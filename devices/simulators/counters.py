"""Four people counters that publish cumulative totals as JSON (promise class D).

    python -m devices.simulators.counters --broker mqtt://127.0.0.1:1883 --books counters.jsonl

Two of them count in 16 bits and wrap. Losing a message loses resolution, never the total; a total
that is delivered late must not be taken for a reset.
"""

import json
import random
from dataclasses import dataclass

from devices.simulators.books import Book, Content
from devices.simulators.command import Clock, Orders, orders, rfc3339, run, ticks
from devices.simulators.publisher import Message, Publisher

TOPIC = "counters/{bits}/{line}"
RESOURCE = "passages"


@dataclass(slots=True)
class Counter:
    """One line with its totals as the device shows them, and without wraps."""

    line: str
    wrap: int  # the total that is never shown
    came: int
    went: int


def lines(chance: random.Random) -> list[Counter]:
    """The counters at the start: installed long ago, so their totals are not 0."""
    return [
        Counter("N1", 1 << 16, 65_500 - chance.randrange(50), 65_400 - chance.randrange(50)),
        Counter("N2", 1 << 16, chance.randrange(60_000), 65_530),
        Counter("S1", 1 << 32, chance.randrange(1_000_000), chance.randrange(1_000_000)),
        Counter("S2", 1 << 32, 0, 0),
    ]


class Counters:
    """The four lines."""

    def __init__(self, seed: int, publisher: Publisher, book: Book) -> None:
        self._chance = random.Random(seed)
        self._lines = lines(self._chance)
        self._publisher = publisher
        self._book = book
        self._clock = Clock()
        self._run = f"{seed:x}-{self._clock.now_us():x}"

    async def step(self, number: int) -> None:
        """One line reports its totals; every line does so first with what it starts from."""
        counter = self._lines[number % len(self._lines)]
        if number >= len(self._lines):
            counter.came += self._chance.randrange(4)
            counter.went += self._chance.randrange(3)
        time_us = self._clock.now_us()
        shown = {
            "in_total": counter.came % counter.wrap,
            "out_total": counter.went % counter.wrap,
        }
        key = f"{counter.line}-{self._run}-{number}"
        # the totals without wraps are what the increments must add up to
        content = Content(time_us, shown | {"in_sum": counter.came, "out_sum": counter.went})
        self._book.made(key, "D", counter.line, [(RESOURCE, content)])
        body = {"ts": rfc3339(time_us), "line": counter.line, **shown}
        topic = TOPIC.format(bits=counter.wrap.bit_length() - 1, line=counter.line)
        await self._publisher.send(Message(key, topic, json.dumps(body).encode()))


async def simulate(told: Orders) -> None:
    """Run the counters until their orders end."""
    book = Book(told.books)
    try:
        async with Publisher(told.broker, f"counters-{told.seed:x}", book) as publisher:
            site = Counters(told.seed, publisher, book)
            async for number in ticks(told):
                await site.step(number)
    finally:
        book.close()


if __name__ == "__main__":
    run(simulate, orders(__doc__.splitlines()[0], rate=40.0))
