"""A hub restored from a backup and a gateway from an image, together: counters stay exact.

The restored hub makes everything due again that the gateway still holds; the image forks with what
the hub has. Either alone is held by `test_hub_restored` and `test_image_restore_counters`.
"""

import itertools
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from devices.driver import Promise, Reading, Rows
from protocol.errors import UnavailableError
from protocol.leaf import State, batch_leaf, generation_leaf
from protocol.merkle import Frontier, consistency_path, leaf_hash
from protocol.messages import Answer
from protocol.receipt import Receipt
from tests.agent.kit import AGENT, NOW_US, Hub, Site, record, watermark
from tests.protocol.memory_hub import MemoryLedger, Stored

DRIVER = "counter"
SOURCE = "total"


@dataclass
class Backup:
    """What a hub had at some time."""

    size: int
    streams: dict
    objects: list[bytes]


@dataclass
class RestorableHub(Hub):
    """Comes back with what its backup had, in a new generation; as often as one likes."""

    past: dict[str, tuple[MemoryLedger, int]] = field(default_factory=dict)
    frozen: dict[int, Receipt] = field(default_factory=dict)  # statement of each generation before

    def backup(self) -> Backup:
        streams = {
            key: [(one.segment, one.state) for one in many] for key, many in self.streams.items()
        }
        return Backup(len(self.ledger.leaves), streams, list(self.objects))

    def restore_from(self, backup: Backup) -> None:
        old, frontier = self.ledger, Frontier()
        if old.generation > 1:
            self.frozen[old.generation] = old.receipt(0)
        for leaf in old.leaves[: backup.size]:
            frontier.append(leaf_hash(leaf))
        self.past[old.origin] = (old, backup.size)
        self.ledger = MemoryLedger(old.generation + 1)
        said = generation_leaf(old.origin, backup.size, frontier.root(), "backup", NOW_US)
        self.ledger.append(said)
        self.streams.clear()
        self.objects.clear()
        for key, many in backup.streams.items():
            self.streams[key] = [
                Stored(segment, state, self._renewed(state, segment.id)) for segment, state in many
            ]
        self.objects |= {one: self._renewed(State.OBJECT, one) for one in backup.objects}

    def _renewed(self, state: State, item: bytes) -> int:
        return self.ledger.append(batch_leaf(AGENT.principal, [(state, item)], NOW_US))

    def payload(self, body: bytes) -> Answer:
        answer = super().payload(body)
        seen = self.sync.parse_request(body).checkpoint
        if seen is None or seen.origin == self.ledger.origin:
            return answer
        ledger, size = self.past[seen.origin]
        path = consistency_path(ledger.read, seen.size, size) if seen.size <= size else []
        statements = [one for n, one in self.frozen.items() if n > ledger.generation]
        statements.append(self.ledger.receipt(0))
        proofs = msgspec.structs.replace(
            answer.receipt, consistency=tuple(path), statements=tuple(statements)
        )
        return msgspec.structs.replace(answer, receipt=proofs)


@dataclass
class Turnstile:
    """A class D counter: its driver counts from the committed watermark when it begins anew."""

    site: Site
    total: int = 0
    state: int | None = None
    resets: int = 0
    names: itertools.count = field(default_factory=itertools.count)

    def on_resumed(self, _drivers: frozenset[str]) -> None:
        self.state = None
        self.resets += 1

    async def turn(self, by: int) -> None:
        """So many persons pass, and the driver reads the total."""
        self.total += by
        if self.state is None:
            known = self.site.core.pipeline.watermark(DRIVER, SOURCE)
            self.state = int(known or b"0")
        passed, self.state = self.total - self.state, self.total
        one = Reading(
            rows=[Rows(resource="gate", records=[record(passed, text=f"D{next(self.names)}")])],
            watermarks=watermark(b"%d" % self.total, SOURCE),
            promise=Promise.D,
            urgent=True,
        )
        try:
            await self.site.core.pipeline.submit(one, driver=DRIVER)
        except UnavailableError:
            self.state = None  # it was under way when its source was set back


def counted(hub: Hub) -> dict[str, int]:
    """What the owner reads of the turnstile, by the name of each report."""
    named = ((str(r.values["text"]), int(r.values["number"])) for r in hub.records())
    return {text: number for text, number in named if text.startswith("D")}


@asynccontextmanager
async def life(site: Site, turnstile: Turnstile) -> AsyncIterator[None]:
    """From a start of the gateway to its end."""
    async with site.running():
        site.sync.hub = await site.core.spool.stored_hub() or site.hub.identity
        site.core.forks.on_resumed = turnstile.on_resumed
        turnstile.site, turnstile.state = site, None
        yield


def restored_from(image: Path, site: Site) -> Site:
    return site.like(folder=image, core=None, sync=None, alarms=[])


async def drain(site: Site) -> None:
    """Until nothing is to be sent, and nothing is held back either."""
    for _ in range(400):
        await site.seal()
        if await site.exchange() is not None:
            continue
        if not site.core.spool.held_s():
            return
        site.clock.advance(site.core.spool.held_s() + 1)
    raise AssertionError("the spool does not become empty")


@pytest.mark.parametrize("is_restarted", [False, True])
@pytest.mark.parametrize("has_class_a", [False, True])
async def test_totals_are_exact_when_hub_and_gateway_are_restored_together(
    tmp_path, has_class_a, is_restarted
):
    """The answer that forks names a new generation: what the hub has is due again beside it."""
    (tmp_path / "a").mkdir()
    site = Site(tmp_path / "a", hub=RestorableHub())
    turnstile = Turnstile(site)
    async with life(site, turnstile):
        await turnstile.turn(10)
        await drain(site)
        image = site.image(tmp_path / "image")
        if not is_restarted:
            await turnstile.turn(10)
            await drain(site)
    if is_restarted:
        async with life(site, turnstile):
            await turnstile.turn(10)
            await drain(site)
    site.hub.restore_from(site.hub.backup())  # nothing was lost
    site = restored_from(image, site)
    async with life(site, turnstile):
        if has_class_a:
            await site.give(1)
        await turnstile.turn(10)
        await drain(site)
        assert "hub-restored" in site.alarms
        assert site.alarms.count("fork") == 1, "what stands before the fork stays in its stream"
        assert turnstile.resets == 1
        assert site.core.pipeline.watermark(DRIVER, SOURCE) == b"20"
        await turnstile.turn(10)
        await drain(site)
        stats = await site.core.spool.stats()
        assert (stats.due, stats.due_bytes) == (0, 0)
    assert sum(counted(site.hub).values()) == 40 == turnstile.total


@dataclass
class Lives:
    """Random lives of one gateway and its hub, each restored whenever chance will have it."""

    draw: random.Random
    folder: Path
    loses: bool  # whether backups may be older than what the hub has
    site: Site
    turnstile: Turnstile
    given: int = 0  # messages of class A
    image: Path | None = None
    backup: Backup | None = None
    before: dict[str, int] = field(
        default_factory=dict
    )  # reports that a hub had, then was restored

    async def step(self, what: str) -> None:
        site, draw = self.site, self.draw
        if what == "count":
            await self.turnstile.turn(draw.randrange(1, 5))
        elif what == "message":
            self.given += 1
            await site.give(self.given, resource=draw.choice(("gate", "bays")))
        elif what == "seal":
            await site.seal()
        elif what == "send":
            await site.exchange(items_max=draw.choice((1, 2, 5)))
        elif what == "drain":
            await drain(site)
        elif what == "backup":
            self.backup = site.hub.backup()
        elif what == "hub" and self.backup is not None:
            self.before |= counted(site.hub)
            site.hub.restore_from(self.backup if self.loses else site.hub.backup())
            self.backup = None  # of a generation that is over
        elif what == "image" and self.image is None:
            self.image = site.image(self.folder / f"image{draw.random()}")

    def put_image_back(self) -> None:
        if self.image is not None and self.draw.random() < 0.6:
            self.site, self.image = restored_from(self.image, self.site), None


SEEDS = (0, 1, 2, 3, 4, 12, 31, 38, 49, 54)  # the last five counted twice once
STEPS = ("count", "count", "message", "seal", "send", "send", "drain", "backup", "hub", "image")


@pytest.mark.parametrize("loses", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
async def test_totals_are_exact_at_random(tmp_path, seed, loses):
    """Exact where no backup lost anything; else too low by no more than what it lost."""
    (tmp_path / "a").mkdir()
    draw = random.Random(seed)
    site = Site(tmp_path / "a", hub=RestorableHub(page=draw.choice((1, 3, 256))))
    turnstile = Turnstile(site)
    lives = Lives(draw, tmp_path, loses, site, turnstile)
    for _ in range(draw.randrange(2, 6)):
        async with life(lives.site, turnstile):
            await turnstile.turn(1)
            for _ in range(draw.randrange(3, 14)):
                await lives.step(draw.choice(STEPS))
        lives.put_image_back()
    async with life(lives.site, turnstile):
        for _ in range(4):
            await turnstile.turn(2)
            await drain(lives.site)
        await turnstile.turn(2)
        await drain(lives.site)
    found = counted(site.hub)
    lost = sum(number for name, number in lives.before.items() if name not in found)
    assert loses or not lost
    assert turnstile.total - lost <= sum(found.values()) <= turnstile.total
    messages = [r.values["number"] for r in site.hub.records() if r.values["text"] == "x"]
    assert len(messages) == len(set(messages))
