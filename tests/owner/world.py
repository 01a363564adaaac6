"""A small world for the owner's tool: an agent that seals, a hub that hands out, both honest unless told otherwise."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
from aiohttp import web
from aiohttp.test_utils import TestServer

from protocol import tiles, wire
from protocol.chain import NO_SEGMENT
from protocol.checkpoint import log_origin, make_note
from protocol.enrolment import make_enrolment
from protocol.envelope import SealingKey, SigningKey, make, parse
from protocol.grades import Grade
from protocol.ids import ResourceId, RunId, StreamId, resource_id, show
from protocol.keys import EpochKey
from protocol.leaf import State, batch_leaf, generation_leaf
from protocol.merkle import Frontier, leaf_hash
from protocol.packs import Field, Pack
from protocol.records import Columns, Record, to_columns
from protocol.registration import Encryption, classify, make_registration
from protocol.segment import Segment, layout_of, seal
from protocol.times import ClockMark, ClockReading, ClockSource
from protocol.token import make_token
from protocol.wraps import Seen, make_wrap
from tests.protocol import objects

T0 = 1_795_219_200_000_000
DAY = 86_400_000_000

PACK = Pack(
    id="ticket.check",
    version=1,
    zh="检票",
    en="Ticket check",
    grade=Grade.SHAREABLE,
    fields=(
        Field(name="gate_no", zh="闸机", en="gate", type="string", grade=Grade.SHAREABLE),
        Field(
            name="persons", zh="人数", en="persons", type="int", minimum=1, grade=Grade.SHAREABLE
        ),
        Field(
            name="ticket_ref",
            zh="票",
            en="ticket",
            type="token",
            group="personal",
            personal="personal",
            grade=Grade.SHAREABLE,
        ),
    ),
)


def rand(label: str, size: int) -> bytes:
    return hashlib.shake_256(label.encode()).digest(size)


class Log:
    """A ledger in memory."""

    def __init__(self, hub: "World", generation: int = 0) -> None:
        self.origin = log_origin(hub.hub.principal, generation)
        self.key = hub.log_key
        self.leaves: list[bytes] = []
        self.hashes: dict[tuple[int, int], bytes] = {}
        self.tree = Frontier()

    def append(self, leaf: bytes) -> int:
        self.leaves.append(leaf)
        for level, index, digest in self.tree.append(leaf_hash(leaf)):
            self.hashes[level, index] = digest
        return self.tree.size - 1

    def note(self) -> str:
        return make_note(self.origin, self.tree.size, self.tree.root(), self.key)

    def tile(self, path: str) -> bytes:
        tile = tiles.parse_tile_path(path)
        if tile.level is None:
            first = tile.index * tiles.WIDTH
            return tiles.bundle_bytes(self.leaves[first : first + tile.width])
        return tiles.tile_bytes(lambda level, index: self.hashes[level, index], tile)


@dataclass
class World:
    """Everything that a reading touches. Change a field to lie."""

    grade: Grade = Grade.SHAREABLE
    owner: SigningKey = field(default_factory=lambda: SigningKey(rand("owner", 32)))
    owner_sealing: SealingKey = field(default_factory=lambda: SealingKey(rand("owner-s", 32)))
    agent: SigningKey = field(default_factory=lambda: SigningKey(rand("agent", 32)))
    hub: SigningKey = field(default_factory=lambda: SigningKey(rand("hub", 32)))
    log_key: SigningKey = field(default_factory=lambda: SigningKey(rand("log", 32)))
    name: str = "east-gate"
    #: (state, leaf, head) as listed
    items: list[list] = field(default_factory=list)
    bodies: dict[str, bytes] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    notes: list[bytes] = field(default_factory=list)
    wraps: list[bytes] = field(default_factory=list)
    chains: dict[bytes, list] = field(default_factory=dict)
    posted: list[bytes] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    fault: Callable[[web.Request], web.StreamResponse | None] | None = None
    page: int = 256

    def __post_init__(self) -> None:
        self.token = make_token(rand("token", 8), rand("secret", 16), self.hub.principal)
        self.resource: ResourceId = resource_id(self.agent.principal, self.name)
        self.log = Log(self)
        self.frozen: dict[str, Log] = {}
        self.entry = self.register()
        enrolment = make_enrolment(
            self.token,
            signing=self.agent,
            sealing_public=SealingKey(rand("a", 32)).public,
            owner=self.owner.principal,
            name="gw",
            software="test",
            clock=ClockReading(wall_us=T0, offset_us=0, error_us=0, source=ClockSource.SYSTEM),
            nonce=rand("n", 16),
        )
        self.objects[show(self.agent.principal)] = enrolment.raw

    def register(self, **changes):
        entry = objects.entry(
            resource=self.resource,
            agent=self.agent.principal,
            local_name=self.name,
            pack=PACK.id,
            schema=PACK.schema_bytes,
            schema_hash=PACK.schema_hash,
            record_index=(),
            owner=self.owner.principal,
            producer=self.agent.principal,
            classification=classify(self.grade, "structured"),
            grade=self.grade,
            encryption=Encryption(suite=1, epoch_s=86_400, groups=PACK.groups),
            owner_key=None,
            agent_key=self.agent.key_id,
        )
        made = make_registration(msgspec.structs.replace(entry, **changes), self.agent)
        self.objects[made.object_id.hex()] = made.raw
        return made

    def epoch_keys(
        self, number: int = 1, *, resource: bytes | None = None, from_us: int = T0
    ) -> dict[int, EpochKey]:
        return {
            group: EpochKey(
                resource=ResourceId(resource or self.resource),
                epoch=number,
                group=group,
                key=rand(f"epoch {number} {group}", 32),
                from_us=from_us,
                to_us=from_us + DAY,
            )
            for group in (0, 1)
        }

    def wrap(
        self,
        keys: dict[int, EpochKey] | None = None,
        *,
        maker: SigningKey | None = None,
        seen: Seen | None = None,
    ) -> None:
        for key in (keys or self.epoch_keys()).values():
            made = make_wrap(
                key,
                recipient=self.owner.principal,
                recipient_sealing=self.owner_sealing.public,
                maker=maker or self.agent,
                seen=seen,
                nonce=rand(f"w{key.group}", 16),
                box_seed=rand(f"b{key.group}", 32),
            )
            self.wraps.append(made.raw)

    def records(self, first: int, count: int) -> Columns:
        rows = [
            Record(
                event_time_us=T0 + (first + n) * 1_000_000,
                device="E1",
                values={
                    "gate_no": "E1",
                    "persons": 1 + n % 3,
                    "ticket_ref": rand(f"t{first + n}", 8),
                },
            )
            for n in range(count)
        ]
        return to_columns(rows, PACK.names, T0)

    def segment(
        self,
        stream: bytes = b"s" * 16,
        *,
        first: int = 0,
        count: int = 10,
        rows: list | None = None,
        signer: SigningKey | None = None,
        agent=None,
        entry=None,
        keys=None,
        seq: int | None = None,
        prev=None,
        continues=None,
        columns: Columns | None = None,
    ) -> Segment:
        chain = self.chains.setdefault(stream, [])
        sealed = self.grade < Grade.GENERALLY_OPEN
        number = len(chain) if seq is None else seq
        made = seal(
            columns or self.records(first, count),
            layout=layout_of(PACK),
            signer=signer or self.agent,
            agent=agent or self.agent.principal,
            resource=self.resource,
            stream=StreamId(stream),
            seq=number,
            prev=prev or (chain[-1].id if chain else NO_SEGMENT),
            entry=entry or self.entry.object_id,
            epoch=1,
            grade=self.grade,
            clock=ClockMark(offset_us=0, error_us=0, source=ClockSource.SYSTEM),
            rows=rows or [(RunId(b"r" * 8), first, first + count - 1)],
            keys=(keys or self.epoch_keys()) if sealed else None,
            nonces=[rand(f"{stream!r}{number}{g}", 24) for g in (0, 1)] if sealed else (),
            continues=continues,
        )
        chain.append(made)
        return made

    def accept(self, *made: Segment, state: State = State.BODY, leaf_agent=None, named=None) -> int:
        leaf = self.log.append(
            batch_leaf(
                leaf_agent or self.agent.principal,
                [(state, named or one.id) for one in made],
                T0,
            )
        )
        for one in made:
            self.items.append([int(state), leaf, one.head])
            self.bodies[one.id.hex()] = one.raw if state is State.BODY else one.head
        return leaf

    def fill(self, segments: int = 3) -> None:
        """An honest start: wraps and some segments of ten records."""
        if self.grade < Grade.GENERALLY_OPEN:
            self.wrap()
        for number in range(segments):
            self.accept(self.segment(first=number * 10))

    def restore(self, kept: int, generation: int = 1, *, size: int | None = None) -> None:
        """The hub comes back from a backup with `kept` leaves and opens a new generation."""
        old = self.log
        number = old.origin.rpartition("/")[2]
        frozen = Log(self, int(number))
        for leaf in old.leaves[:kept]:
            frozen.append(leaf)
        self.frozen[number] = frozen
        self.log = Log(self, generation)
        self.log.append(
            generation_leaf(frozen.origin, size or kept, frozen.tree.root(), "disk", T0)
        )
        self.items = [item for item in self.items if item[1] < kept]

    # --- the hub's side ---------------------------------------------------------------------------

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        if self.fault is not None and (answer := self.fault(request)) is not None:
            return answer
        match request.path.strip("/").split("/"):
            case ["v1", "time"]:
                payload = {
                    "time": T0,
                    "nonce": bytes.fromhex(request.query["nonce"]),
                    "hub_key": self.hub.public,
                    "log_key": self.log_key.public,
                }
                return web.Response(body=make("time", payload, self.hub).raw)
            case ["v1", "objects"]:
                self.posted.append(await request.read())
                return web.json_response(
                    {
                        "object": parse(self.posted[-1]).object_id.hex(),
                        "known": False,
                        "sites": ["511527-A1"],
                    }
                )
            case ["v1", "resources"]:
                line = {"resource": show(self.resource), "agent": show(self.agent.principal)}
                return web.json_response({"items": [line], "next": None})
            case ["v1", "resources", _, "segments"]:
                after = int(request.query["after"])
                page = self.items[after : after + self.page]
                following = after + self.page if after + self.page < len(self.items) else None
                return web.Response(body=wire.encode({"items": page, "next": following}))
            case ["v1", "resources", _, "notes"]:
                return web.Response(body=wire.encode({"items": self.notes, "next": None}))
            case ["v1", "wraps"]:
                return web.Response(body=wire.encode(self.wraps))
            case ["v1", "objects", name] if name in self.objects:
                return web.Response(body=self.objects[name])
            case ["v1", "segments", name] if name in self.bodies:
                return web.Response(body=self.bodies[name])
            case ["log", generation, *rest]:
                log = (
                    self.log
                    if self.log.origin.endswith(f"/{generation}")
                    else self.frozen.get(generation)
                )
                if log is not None and rest == ["checkpoint"]:
                    return web.Response(text=log.note())
                if log is not None:
                    return web.Response(body=log.tile("/".join(rest)))
        return web.json_response({"error": {"key": "not-found"}}, status=404)

    def server(self) -> TestServer:
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self.answer)
        return TestServer(app)
