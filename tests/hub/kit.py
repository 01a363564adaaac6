"""A hub's core on real files, and agents that speak the protocol to it without HTTP."""

import asyncio
import contextlib
import hashlib
import itertools
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hub.domain.agents import AgentState
from hub.ingest import Ingest
from hub.last_checkpoint import LastCheckpoint
from hub.ledger import Ledger
from hub.reading import Reading
from hub.store import agents, leaves, migrate, sites
from hub.store.agents import AgentRow
from hub.store.audit import Actor
from hub.store.bodies import Bodies
from hub.store.engine import Store
from hub.store.nonces import RequestNonce
from hub.store.sites import SiteRow
from protocol import messages, wire
from protocol.chain import NO_SEGMENT
from protocol.checkpoint import log_origin, vkey_text
from protocol.envelope import Envelope, SealingKey, SigningKey, only_key
from protocol.grades import Grade
from protocol.header import Continues
from protocol.ids import SegmentId, resource_id
from protocol.messages import HeaderItem, Item, ObjectItem, SegmentItem
from protocol.records import Columns
from protocol.registration import Encryption, classify, make_registration
from protocol.schema import Field, schema_hash
from protocol.segment import Layout, Segment, seal
from protocol.sync import AgentSync, HubIdentity, Outcome
from protocol.times import ClockMark, ClockSource
from tests.protocol import objects

BY = Actor(who="operator:test", source="console")
HUB_KEY = SigningKey(b"h" * 32)
LOG_KEY = SigningKey(b"l" * 32)
T0 = 1_790_000_000_000_000
FIELDS = (Field(name="state", zh="状态", en="state", type="int", grade=Grade.GENERALLY_OPEN),)
SCHEMA = wire.encode(FIELDS)
LAYOUT = Layout((("state",),))


class Killed(BaseException):
    """The process ends here."""


_hooks: list[Callable[[str], None]] = []


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if event == "shanmen.point":
        for one in list(_hooks):
            one(str(arguments[0]))


sys.addaudithook(_hook)


@contextlib.contextmanager
def at_points(act: Callable[[str], None]):
    """Call `act` with the name of every point that is passed."""
    _hooks.append(act)
    try:
        yield
    finally:
        _hooks.remove(act)


def kill_at(name: str, *, nth: int = 1):
    """End the process at the nth passing of a point."""
    counter = itertools.count(1)

    def act(passed: str) -> None:
        if passed == name and next(counter) == nth:
            raise Killed(name)

    return at_points(act)


@dataclass
class HubCore:
    """The hub without HTTP, on a folder."""

    folder: Path
    max_page_count: int | None = None
    now: int = T0
    store: Store = field(init=False)

    def __post_init__(self) -> None:
        self.store = Store(self.folder / "hub.db", max_page_count=self.max_page_count)
        self.bodies = Bodies(self.folder / "packs")
        self.ledger = Ledger(name=log_origin(HUB_KEY.principal, 1).rpartition("/")[0], key=LOG_KEY)
        self.last = LastCheckpoint(self.folder / "last-checkpoint")
        self.random = itertools.count(1)
        self.ingest = Ingest(
            store=self.store,
            bodies=self.bodies,
            ledger=self.ledger,
            key=HUB_KEY,
            last=self.last,
            now_us=self.tick,
            random=lambda n: next(self.random).to_bytes(n, "big"),
        )
        self.reading = Reading(self.store, self.bodies)

    def tick(self) -> int:
        self.now += 1000
        return self.now

    async def open(self) -> None:
        def begin(tx) -> None:
            migrate.upgrade(tx)
            if leaves.live(tx) is None:
                self.ledger.begin(tx, self.now, reason="init")
                sites.add(
                    tx,
                    SiteRow(id="lake", name="湖区", region="330523", owner=None, created_us=T0),
                    BY,
                )

        await self.store.write("open", begin)

    async def close(self) -> None:
        self.ingest.close()
        await self.store.close()
        self.last.close()

    async def generation(self) -> int:
        return (await self.store.read(leaves.live)).generation


@contextlib.asynccontextmanager
async def running(folder: Path, **options) -> AsyncIterator[HubCore]:
    """A hub core whose groups are formed; closed in the end, however it ended."""
    hub = HubCore(folder, **options)
    task = None
    try:
        await hub.open()
        task = asyncio.create_task(hub.ingest.run())
        yield hub
    finally:
        hub.ingest.stop()
        if task is not None:
            with contextlib.suppress(Killed):
                await task
        await hub.close()


@dataclass
class Agent:
    """One gateway: its keys, its conversation, its streams."""

    name: str
    hub_generation: int = 1
    nonces: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.signing = SigningKey(hashlib.sha256(self.name.encode()).digest())
        self.sealing = SealingKey(hashlib.sha256(self.name.encode() + b"s").digest())
        self.id = self.signing.principal
        self.sync = self._conversation()

    def _conversation(self) -> AgentSync:
        origin = log_origin(HUB_KEY.principal, self.hub_generation)
        return AgentSync(
            agent=self.id,
            agent_keys=only_key(self.signing.public),
            hub=HubIdentity(
                hub=HUB_KEY.principal,
                signing_public=HUB_KEY.public,
                log_vkey=vkey_text(origin, LOG_KEY.public),
                generation=self.hub_generation,
            ),
            checkpoint=None,
        )

    def row(self, state: AgentState = AgentState.ACTIVE) -> AgentRow:
        return AgentRow(
            id=self.id,
            site="lake",
            name=self.name,
            software="kit",
            signing=self.signing.public,
            sealing=self.sealing.public,
            owner=None,
            state=state,
            reason="",
            enrolment=bytes(32),
            created_us=T0,
            seen_us=T0,
            inbox_generation=0,
            inbox_number=0,
        )

    async def enrol(self, hub: HubCore) -> None:
        await hub.store.write("enrol", agents.add, self.row(), BY)

    def nonce(self) -> RequestNonce:
        return RequestNonce(key=self.signing.key_id, nonce=next(self.nonces).to_bytes(16, "big"))

    def body(self, *items: Item) -> bytes:
        return self.sync.request(items, inbox=(0, 0), software="kit")

    async def send(self, hub: HubCore, *items: Item, nonce: RequestNonce | None = None) -> Outcome:
        """One batch there, and its answer verified as the real agent does."""
        raw = await self.send_raw(hub, self.body(*items), nonce=nonce)
        return self.sync.receive(raw, now_us=hub.now)

    async def send_raw(
        self, hub: HubCore, body: bytes, *, nonce: RequestNonce | None = None
    ) -> bytes:
        row = await hub.store.read(agents.get, self.id)
        return await hub.ingest.submit(
            messages.decode_batch(body),
            row,
            nonce or self.nonce(),
            hashlib.sha256(body).digest(),
        )

    def resource(self, local_name: str = "bays", **changes) -> "Source":
        return Source(self, local_name, **changes)


class Source:
    """One resource of an agent: its entry, and its present stream."""

    def __init__(
        self, agent: Agent, local_name: str, grade: Grade = Grade.GENERALLY_OPEN, **changes
    ) -> None:
        self.agent = agent
        self.grade = grade
        self.id = resource_id(agent.id, local_name)
        fields = dict(
            resource=self.id,
            agent=agent.id,
            local_name=local_name,
            name_zh="车位状态",
            name_en="Bay states",
            pack="parking.bay",
            schema=SCHEMA,
            schema_hash=schema_hash(SCHEMA),
            record_index=(),
            owner=None,
            owner_basis="none",
            producer=agent.id,
            region="330523",
            classification=classify(grade, "structured"),
            grade=grade,
            encryption=Encryption(suite=1, epoch_s=0, groups=("data",)),
            owner_key=None,
            agent_key=agent.signing.key_id,
        )
        self.payload = objects.entry(**fields | changes)
        self.entry: Envelope = make_registration(self.payload, agent.signing)
        self.new_stream(b"\x01" * 16)
        self.run = b"run-0001"
        self.row = 0

    def new_stream(self, stream: bytes) -> None:
        self.stream, self.seq, self.prev = stream, 0, NO_SEGMENT

    @property
    def registration(self) -> ObjectItem:
        return ObjectItem(self.entry.raw)

    def seal(self, count: int = 3, *, value: int = 7, **changes) -> Segment:
        """The next segment of the stream; the source goes on from it."""
        made = self.sealed(count, value=value, **changes)
        self.seq, self.prev = made.header.seq + 1, made.id
        self.row += count
        return made

    def sealed(self, count: int = 3, *, value: int = 7, **changes) -> Segment:
        """A segment in the next place, without going on from it."""
        at = T0 + self.row * 1000
        columns = Columns(
            count=count,
            event_time=[at + i for i in range(count)],
            gateway_time=[at] * count,
            device_time=[None] * count,
            device=["bay-1"] * count,
            quality=[0] * count,
            fields={"state": [value] * count},
        )
        fields = dict(
            layout=LAYOUT,
            signer=self.agent.signing,
            agent=self.agent.id,
            resource=self.id,
            stream=self.stream,
            seq=self.seq,
            prev=self.prev,
            entry=self.entry.object_id,
            epoch=1,
            grade=self.grade,
            clock=ClockMark(offset_us=0, error_us=0, source=ClockSource.SYSTEM),
            rows=((self.run, self.row, self.row + count - 1),),
        )
        return seal(columns, **fields | changes)

    def many(self, n: int, **changes) -> list[Segment]:
        return [self.seal(**changes) for _ in range(n)]

    def follow(self, stream: bytes, *, reason: str = "fork") -> Continues:
        """Begin a new stream that continues the present one."""
        said = Continues(self.stream, max(0, self.seq - 1), SegmentId(self.prev), reason)
        self.new_stream(stream)
        return said


def item(segment: Segment) -> SegmentItem:
    return SegmentItem(segment.raw)


def items(segments: Sequence[Segment]) -> list[SegmentItem]:
    return [item(one) for one in segments]


def head(segment: Segment, reason: str = "damaged") -> HeaderItem:
    return HeaderItem(segment.head, reason)


def verdicts(outcome: Outcome) -> list[str]:
    return [type(one.verdict).__name__ for one in outcome.items]
