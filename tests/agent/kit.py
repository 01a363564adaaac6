"""An agent's core at a site of its own, an honest hub in memory, and the owner who reads it back."""

import asyncio
import itertools
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from agent.core import Core
from agent.seal.batch import SpoolItem
from agent.store.ports import CoreSettings, Identity, Paths, ResourceSettings
from devices.driver import Promise, Reading, Rows, Watermark
from protocol.envelope import SealingKey, SigningKey, only_key
from protocol.envelope import parse as parse_envelope
from protocol.grades import Grade
from protocol.keys import EpochKey
from protocol.leaf import State
from protocol.messages import EvidenceItem, Missing, ObjectItem
from protocol.notes import Correction, Gap, open_note
from protocol.packs import Field, Pack
from protocol.principal import make_principal, open_principal
from protocol.records import Record, to_records
from protocol.segment import open_segment
from protocol.sync import AgentSync, Outcome
from protocol.times import ClockMark, ClockSource
from protocol.wraps import Wrap, open_wrap
from tests.protocol.makers import AGENT, NOW_US
from tests.protocol.memory_hub import MemoryHub

DAY_US = 86_400_000_000
OWNER = SigningKey(b"\x21" * 32)
OWNER_SEALING = SealingKey(b"\x22" * 32)
AGENT_SEALING = SealingKey(b"\x23" * 32)
ROOT_KEY = b"\x24" * 32
BOOT = b"boot-id-16-bytes"


def pack(
    name: str = "test.gate", grade: Grade = Grade.SHAREABLE, fields: Sequence[Field] = ()
) -> Pack:
    return Pack(
        id=name,
        version=1,
        zh="测试",
        en="test",
        grade=grade,
        fields=tuple(fields)
        or (
            Field(name="number", zh="号", en="number", type="int", grade=Grade.FULLY_OPEN),
            Field(name="text", zh="字", en="text", type="string", grade=Grade.FULLY_OPEN),
        ),
    )


GATE = ResourceSettings(local="gate", pack=pack())
BAYS = ResourceSettings(local="bays", pack=pack("test.bay", Grade.GENERALLY_OPEN))
SECRET = ResourceSettings(local="secret", pack=pack("test.secret", Grade.KEY_PROTECTED))


@dataclass
class FakeClock:
    wall_us: int = NOW_US
    boot_us: int = 5_000_000
    source: ClockSource = ClockSource.SYSTEM
    offset_us: int = 0
    floor_us: int = 0

    def now_us(self) -> int:
        return self.wall_us

    def monotonic_us(self) -> int:
        return self.boot_us

    def mark(self) -> ClockMark:
        return ClockMark(offset_us=self.offset_us, error_us=1000, source=self.source)

    def advance(self, seconds: float) -> None:
        self.wall_us += int(seconds * 1e6)
        self.boot_us += int(seconds * 1e6)


_SEEDS = itertools.count(1000)


class Dice:
    """Random bytes that follow from a seed."""

    def __init__(self, seed: int = 1) -> None:
        import random

        self._random = random.Random(seed)

    def __call__(self, count: int) -> bytes:
        return self._random.randbytes(count)


class Hub(MemoryHub):
    """The memory hub, which also keeps the objects and everything that came over the line."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.raw: dict[bytes, bytes] = {}
        self.wire: list[bytes] = []

    def payload(self, body: bytes):
        self.wire.append(body)
        for item in self.sync.parse_request(body).items:
            if isinstance(item, ObjectItem):
                self.raw[parse_envelope(item.raw).object_id] = item.raw
        return super().payload(body)

    def _judge(self, item, accepted):
        if isinstance(item, EvidenceItem):
            stored = self.streams.get((AGENT.principal, item.resource, item.stream))
            if not stored:
                return Missing(None)
        return super()._judge(item, accepted)

    def of_kind(self, kind: str) -> list[bytes]:
        return [raw for raw in self.raw.values() if parse_envelope(raw).kind == kind]

    def notes(self) -> list[Gap | Correction]:
        keys = only_key(AGENT.public)
        return [
            open_note(parse_envelope(raw), keys)
            for kind in ("gap", "correction")
            for raw in self.of_kind(kind)
        ]

    def epoch_keys(self) -> dict[bytes, EpochKey]:
        """By commitment: numbers may repeat where a gateway was restored or cloned."""
        keys = [
            open_wrap(parse_envelope(raw), OWNER_SEALING, only_key(AGENT.public))
            for raw in self.of_kind("wrap")
        ]
        return {key.commitment(): key for key in keys}

    def segments(self):
        return [one for many in self.streams.values() for one in many]

    def records(self) -> list[Record]:
        """Everything the owner can read: by verified wraps, from bodies that are here."""
        keys = self.epoch_keys()
        found: list[Record] = []
        for one in self.segments():
            if one.state is State.BODY:
                header = one.segment.header
                held = {p.group: keys[p.commitment] for p in header.parts if p.commitment} or None
                found += to_records(open_segment(one.segment, held))
        return found

    def numbers(self) -> list[int]:
        return sorted(int(record.values["number"]) for record in self.records())


def identity(hub: MemoryHub, *, confirmed: bool = True) -> Identity:
    owner = open_principal(
        make_principal(OWNER, OWNER_SEALING.public, kind="owner", nonce=bytes(16)), OWNER.principal
    )
    return Identity(
        agent=AGENT.principal,
        signing=AGENT,
        sealing=AGENT_SEALING,
        site="site-1",
        region="330100000000",
        hub=hub.identity,
        owner=owner if confirmed else None,
        owner_confirmed=confirmed,
    )


def record(number: int, *, at_us: int | None = None, text: str = "x", **more) -> Record:
    return Record(
        event_time_us=NOW_US + number if at_us is None else at_us,
        device="d1",
        values={"number": number, "text": text},
        **more,
    )


def reading(*numbers: int, resource: str = "gate", **more) -> Reading:
    at_us = more.pop("at_us", None)
    text = more.pop("text", "x")
    records = [record(number, at_us=at_us, text=text) for number in numbers]
    more.setdefault("promise", Promise.A)
    return Reading(rows=[Rows(resource=resource, records=records)], **more)


@dataclass
class Site:
    """One gateway: its folder, its clock, and its core while it runs."""

    folder: Path
    hub: Hub = field(default_factory=Hub)
    clock: FakeClock = field(default_factory=FakeClock)
    settings: CoreSettings = field(default_factory=lambda: CoreSettings(resources=(GATE, BAYS)))
    confirmed: bool = True
    dice: Dice = field(default_factory=Dice)
    vault_dice: Dice = field(default_factory=lambda: Dice(99))
    boot: bytes = BOOT
    core: Core = None  # type: ignore[assignment]
    sync: AgentSync = None  # type: ignore[assignment]
    alarms: list[str] = field(default_factory=list)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Site"]:
        self.core = await Core.open(
            Paths(folder=self.folder),
            self.settings,
            identity(self.hub, confirmed=self.confirmed),
            self.clock,
            root_key=ROOT_KEY,
            boot=self.boot,
            random=self.dice,
            vault_random=self.vault_dice,
        )
        self.core.answers.alarm = lambda key, _fields: self.alarms.append(key)
        self.sync = self.hub.agent(self.core.spool.checkpoint)
        task = asyncio.create_task(self.core.run())
        try:
            yield self
        finally:
            self.core.stop()
            async with asyncio.timeout(10):
                await task
            await self.core.close()

    async def give(self, *numbers: int, driver: str = "mqtt", **more) -> None:
        async with asyncio.timeout(10):
            await self.core.pipeline.submit(reading(*numbers, **more), driver=driver)

    async def seal(self) -> None:
        while await self.core.main.sealer.seal_due(force=True):
            pass

    async def exchange(self, bytes_max: int = 1 << 20, items_max: int = 1000):
        """One round with the hub; None if nothing was to be sent."""
        items = await self.core.spool.next_items(bytes_max, items_max)
        if not items:
            return None
        outcome = self.ask(items)
        await self.core.spool.apply(outcome, items)
        return outcome

    def ask(self, items: Sequence[SpoolItem]) -> Outcome:
        body = self.sync.request([one.item for one in items], inbox=(0, 0), software="test")
        return self.sync.receive(self.hub.handle(body), now_us=self.clock.wall_us)

    async def drain(self, rounds: int = 50) -> None:
        """Seal and send until nothing is left to send."""
        for _ in range(rounds):
            await self.seal()
            if await self.exchange() is None:
                return
        raise AssertionError("the spool does not become empty")

    def image(self, target: Path) -> Path:
        """A copy of the folder as it lies on the disk now."""
        shutil.copytree(self.folder, target)
        return target

    def like(self, **changes) -> "Site":
        changes.setdefault("dice", Dice(next(_SEEDS)))
        return replace(self, **changes)


def watermark(value: bytes, source: str = "cursor") -> list[Watermark]:
    return [Watermark(source=source, value=value)]


def wraps(hub: Hub) -> list[Wrap]:
    from protocol.envelope import decode_payload

    return [decode_payload(parse_envelope(raw), Wrap) for raw in hub.of_kind("wrap")]
