"""Two ticket gates that publish every check as JSON, and a hand-held checker without event ids.

    python -m devices.simulators.gates --broker mqtt://127.0.0.1:1883 --books gates.jsonl

The gates number their events and send one again when they are unsure (promise class A); the
hand-held does not number anything (class B): a repeat of it can only be marked as possible.
"""

import json
import random

from devices.simulators.books import Book, Content, Fact
from devices.simulators.command import Clock, Orders, orders, rfc3339, run, ticks
from devices.simulators.publisher import Message, Publisher

GATES = ("E1", "E2")
HANDHELD = "H1"
CHECK_TOPIC = "gates/{gate}/check"
HANDHELD_TOPIC = "handheld/{gate}/check"

#: Local names of the resources.
CHECK_RESOURCE = "gate-checks"
HANDHELD_RESOURCE = "handheld-checks"

#: Each fifth check is the hand-held's.
HANDHELD_EVERY = 5

RESULTS = ("pass", "pass", "pass", "pass", "pass", "pass", "invalid", "expired", "used")


class Gates:
    """What happens at the entrance."""

    def __init__(self, seed: int, publisher: Publisher, book: Book) -> None:
        self._chance = random.Random(seed)
        self._publisher = publisher
        self._book = book
        self._clock = Clock()
        self._tickets: list[str] = []
        self._run = f"{seed:x}-{self._clock.now_us():x}"

    async def step(self, number: int) -> None:
        """One check."""
        if number % HANDHELD_EVERY == HANDHELD_EVERY - 1:
            await self._check(number, HANDHELD, HANDHELD_RESOURCE, HANDHELD_TOPIC, numbered=False)
            return
        gate = GATES[self._chance.randrange(len(GATES))]
        await self._check(number, gate, CHECK_RESOURCE, CHECK_TOPIC, numbered=True)

    async def _check(
        self, number: int, gate: str, resource: str, topic: str, *, numbered: bool
    ) -> None:
        chance, time_us = self._chance, self._clock.now_us()
        key = f"{gate}-{self._run}-{number}"
        values: dict[str, Fact] = {
            "ticket_ref": self._ticket(),
            "gate_no": gate,
            "direction": "in" if chance.random() < 0.7 else "out",
            "result": chance.choice(RESULTS),
            "persons": chance.randrange(1, 6),
        }
        promise = "A" if numbered else "B"
        self._book.made(key, promise, gate, [(resource, Content(time_us, values))])
        body: dict[str, object] = {"ts": rfc3339(time_us), **values}
        body["ticket"] = body.pop("ticket_ref")
        if numbered:
            body["id"] = key
        message = Message(key, topic.format(gate=gate), json.dumps(body).encode())
        await self._publisher.send(message)
        if numbered and chance.random() < 0.05:  # the gate did not trust its acknowledgement
            await self._publisher.send(message)

    def _ticket(self) -> str:
        """A ticket's number; some come back for a second entry."""
        if self._tickets and self._chance.random() < 0.15:
            return self._chance.choice(self._tickets)
        self._tickets.append(f"T{self._chance.getrandbits(56):014X}")
        del self._tickets[:-500]
        return self._tickets[-1]


async def simulate(told: Orders) -> None:
    """Run the gates until their orders end."""
    book = Book(told.books)
    try:
        async with Publisher(told.broker, f"gates-{told.seed:x}", book) as publisher:
            site = Gates(told.seed, publisher, book)
            async for number in ticks(told):
                await site.step(number)
    finally:
        book.close()


if __name__ == "__main__":
    run(simulate, orders(__doc__.splitlines()[0], rate=120.0))
