"""Whatever arrives, the hub answers with a reason and never with 500.

Handlers are called in process, through the same gate as over HTTP. Half of the bodies are valid
ones with one thing changed *and signed again*, because what is merely broken never gets past the
signature.
"""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from hub import admin, opening
from hub import app as apps
from hub.api.exchange import Reply
from hub.api.middleware import Gate
from hub.config import HubConfig, LimitsSection
from hub.folder import Folder
from hub.making import make_hub
from hub.store.audit import Actor
from protocol import ids, messages, tags
from protocol.envelope import SigningKey
from protocol.messages import MEDIA_TYPE
from protocol.signatures import sign_request
from protocol.token import parse_token
from tests.hub import kit
from tests.hub.shell import Owner

EXAMPLES = int(os.environ.get("SHANMEN_FUZZ_EXAMPLES", "2000"))
BY = Actor(who="operator:test", source="console")


class Arrived:
    """A request without a socket."""

    def __init__(self, method: str, target: str, headers: Any, body: bytes) -> None:
        self.method, self.target, self._body = method, target, body
        found = CIMultiDict(headers)
        if body or method == "POST":
            found.setdefault("Content-Length", str(len(body)))
        self.headers = CIMultiDictProxy(found)
        self.address, self.loopback = "192.0.2.1", False

    async def chunks(self) -> AsyncIterator[bytes]:
        if self._body:
            yield self._body


class World:
    """A hub in process, a gateway, an owner, and tokens that are never used up for good."""

    def __init__(self, folder: Path) -> None:
        make_hub(folder, {"listen": {"port": 0}})
        self.runner = asyncio.Runner()
        self.config = HubConfig(
            limits=LimitsSection(enrol_per_address=1_000_000, enrol_total=1_000_000)
        )
        self._context = opening.opened(self.config, Folder(folder))
        self.runner.run(self._open())

    async def _open(self) -> None:
        core = await self._context.__aenter__()
        self.ingest = apps._ingest(core)
        self.parts = apps._parts(core, self.ingest, "en")
        self.gate = Gate(self.parts)
        self.task = asyncio.create_task(self.ingest.run())
        self.hub = core.keys.hub
        await core.admin.do(admin.SiteAdd(site="lake", name="湖"), BY)
        self.token = await self._token(core, "site")
        self.invited = (await self._token(core, "owner")).signing_key()
        self.reader = (await core.admin.do(admin.TokenNew(kind="read"), BY))["token"]
        self.agent, self.owner = kit.Agent("fuzz"), Owner()
        now = core.admin._clock_us()
        row = msgspec.structs.replace(self.agent.row(), created_us=now)
        from hub.store import agents

        await core.store.write("enrol", agents.add, row, BY)
        self.bays = self.agent.resource()
        for path, key, body in (
            ("/v1/sync", self.agent.signing, self.batch(kit.ObjectItem(self.bays.entry.raw))),
            ("/v1/objects", self.invited, self.owner.principal.raw),
        ):
            reply = await self.gate.serve(self.signed(key, "POST", path, body))
            assert reply.status == 200, reply.body

    async def _token(self, core: Any, kind: Any) -> Any:
        site = "lake" if kind == "site" else ""
        made = await core.admin.do(admin.TokenNew(kind=kind, site=site), BY)
        return parse_token(made["token"])

    def close(self) -> None:
        async def end() -> None:
            await apps._end_ingest(self.ingest, self.task)
            await self._context.__aexit__(None, None, None)

        self.runner.run(end())
        self.runner.close()

    def batch(self, *items: Any) -> bytes:
        return messages.encode_batch(
            messages.Batch(
                agent=self.agent.id, software="f", items=items, inbox=(0, 0), checkpoint=None
            )
        )

    def signed(self, key: SigningKey, method: str, target: str, body: bytes | None) -> Arrived:
        path, _, query = target.partition("?")
        headers = sign_request(
            method,
            path,
            query,
            body=body,
            content_type=None if body is None else MEDIA_TYPE,
            hub=self.hub,
            key=key,
            created_s=int(time.time()),
            nonce=random.randbytes(16),
        )
        return Arrived(method, target, headers, body or b"")

    def serve(self, arrived: Arrived) -> Reply:
        async def one() -> Reply:
            async with asyncio.timeout(20):
                reply = await self.gate.serve(arrived)
                if reply.stream is not None:
                    await reply.stream.aclose()
                return reply

        return self.runner.run(one())


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("fuzz") / "hub")
    yield made
    made.close()


def check(reply: Reply) -> None:
    assert reply.status < 500, reply.body
    if reply.status >= 400:
        detail = msgspec.json.decode(reply.body)["error"]
        assert detail["key"] != "internal"
        assert detail["zh"] != f"code.{detail['key']}"
        assert len(reply.body) < 4096


WILD: list[Any] = [
    None, True, 0, -1, 2**63, 2**64 - 1, 1.5, float("nan"), "", "a" * 300, "\x00", "\ud800",
    b"", b"\x00" * 16, b"\xff" * 32, b"x" * 5000, [], [[]], {}, {"a": 1}, [0] * 70,
]  # fmt: skip


def mutated(value: Any, chance: random.Random) -> Any:
    """One thing of it changed: a value, a key, a length."""
    if isinstance(value, dict) and value and chance.random() < 0.85:
        key = chance.choice(sorted(value))
        copy = dict(value)
        what = chance.random()
        if what < 0.1:
            del copy[key]
        elif what < 0.2:
            copy[chance.choice(["x", "", "resource", "nonce"])] = chance.choice(WILD)
        else:
            copy[key] = mutated(value[key], chance)
        return copy
    if isinstance(value, list) and value and chance.random() < 0.85:
        copy = list(value)
        at = chance.randrange(len(copy))
        what = chance.random()
        if what < 0.1:
            del copy[at]
        elif what < 0.2:
            copy.insert(at, chance.choice(WILD))
        else:
            copy[at] = mutated(copy[at], chance)
        return copy
    if isinstance(value, bytes) and value and chance.random() < 0.5:
        at = chance.randrange(len(value))
        return value[:at] + bytes([value[at] ^ 1 << chance.randrange(8)]) + value[at + 1 :]
    if type(value) is int and chance.random() < 0.5:
        return value + chance.choice([-1, 1, 256, 2**32])
    return chance.choice(WILD)


def packed(value: Any) -> bytes:
    try:
        return msgspec.msgpack.encode(value)
    except (UnicodeEncodeError, OverflowError):
        return b"\xc1"


def resigned(raw: bytes, chance: random.Random, *keys: SigningKey) -> bytes:
    """The envelope with a changed payload, signed again by its signers."""
    suite, kind, body, _ = msgspec.msgpack.decode(raw)
    changed = packed(mutated(msgspec.msgpack.decode(body), chance))
    signed = tags.ENVELOPE + bytes((suite, len(kind))) + kind.encode() + changed
    return packed([suite, kind, changed, [[key.key_id, key.sign(signed)] for key in keys]])


def body_of(world: World, chance: random.Random) -> tuple[str, SigningKey | None, bytes]:
    """A path, who signs the request, and a body with something wrong in it."""
    what = chance.randrange(8)
    agent = world.agent.signing
    if what == 0:
        batch = msgspec.msgpack.decode(world.batch(kit.item(world.bays.sealed())))
        return "/v1/sync", agent, packed(mutated(batch, chance))
    if what == 1:
        raw = resigned(world.bays.entry.raw, chance, agent)
        return "/v1/sync", agent, world.batch(kit.ObjectItem(raw[:60_000]))
    if what == 2:
        raw = bytearray(world.bays.sealed().raw)
        raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
        return "/v1/sync", agent, world.batch(kit.SegmentItem(bytes(raw)))
    if what == 3:
        request = enrolment(world)
        return "/v1/enrol", None, resigned(request, chance, agent, world.token.signing_key())
    if what == 4:
        raw = resigned(world.owner.principal.raw, chance, world.owner.signing)
        return "/v1/objects", chance.choice([world.owner.signing, world.invited]), raw
    if what == 5:
        return "/v1/objects", world.owner.signing, packed(chance.choice(WILD))
    size = chance.choice([1, 20, 300, 4000])
    path = chance.choice(["/v1/sync", "/v1/enrol", "/v1/objects"])
    signer = None if path == "/v1/enrol" else agent if path == "/v1/sync" else world.owner.signing
    return path, signer, chance.randbytes(size)


def enrolment(world: World) -> bytes:
    from protocol.enrolment import make_enrolment
    from protocol.times import ClockReading, ClockSource

    return make_enrolment(
        world.token,
        signing=world.agent.signing,
        sealing_public=world.agent.sealing.public,
        owner=None,
        name="x",
        software="y",
        clock=ClockReading(wall_us=1, offset_us=0, error_us=0, source=ClockSource.NONE),
        nonce=bytes(16),
    ).raw


@settings(max_examples=EXAMPLES)
@given(seed=st.integers(0, 2**63))
def test_mutated_bodies_signed_again(world: World, seed: int) -> None:
    chance = random.Random(seed)
    path, key, body = body_of(world, chance)
    if key is None:
        arrived = Arrived("POST", path, {"Content-Type": MEDIA_TYPE}, body)
    else:
        arrived = world.signed(key, "POST", path, body)
    check(world.serve(arrived))


TARGETS = [
    "/v1/time", "/v1/enrol", "/v1/sync", "/v1/streams", "/v1/inbox", "/v1/objects",
    "/v1/objects/{}", "/v1/wraps", "/v1/resources", "/v1/resources/{}/segments",
    "/v1/segments/{}", "/v1/parts/{}/{}", "/v1/entries", "/v1/entries/{}",
    "/log/{}/checkpoint", "/log/{}/tile/{}", "/healthz", "/readyz", "/metrics", "/openapi.json",
]  # fmt: skip
NAMES = [
    "nonce", "generation", "n", "recipient", "resource", "after", "limit", "site", "agent",
    "owner", "grade", "pack", "kind", "region", "text",
]  # fmt: skip
PIECES = [
    "0", "1", "-1", "00", "9" * 18, "9" * 30, "x001/000", "000.p/1", "entries/000", "%2e%2e", "..",
    "0" * 64, "f" * 64, ids.show(bytes(16)), "aaaa-aaaa", "东", "'", "1;--", "\\", "%", "a" * 500,
]  # fmt: skip


@settings(max_examples=EXAMPLES)
@given(seed=st.integers(0, 2**63), text=st.text(max_size=20))
def test_crooked_targets_queries_and_headers(world: World, seed: int, text: str) -> None:
    chance = random.Random(seed)
    target = chance.choice(TARGETS)
    while "{}" in target:
        target = target.replace("{}", chance.choice([*PIECES, text]), 1)
    if chance.random() < 0.6:
        pairs = [
            f"{chance.choice([*NAMES, text])}={chance.choice([*PIECES, text])}"
            for _ in range(chance.randrange(4))
        ]
        target += "?" + "&".join(pairs)
    method = chance.choice(["GET", "GET", "GET", "POST", "PUT", "DELETE", "HEAD", text or "X"])
    body = b"" if method != "POST" else chance.randbytes(chance.choice([0, 10]))
    who = chance.randrange(4)
    if who == 0:
        arrived = Arrived(method, target, {"Authorization": f"Bearer {world.reader}"}, body)
    elif who == 1 and target.isascii() and method.isascii() and "\n" not in target + method:
        key = chance.choice([world.agent.signing, world.owner.signing, world.invited])
        arrived = world.signed(key, method, target, body or None)
    else:
        names = ["Authorization", "Signature", "Signature-Input", "Content-Type", "Shanmen-Hub",
                 "Content-Length", "Content-Encoding", "Accept-Language", "Content-Digest"]  # fmt: skip
        headers = [(chance.choice(names), chance.choice([*PIECES, text])) for _ in range(3)]
        arrived = Arrived(method, target, headers, body)
    check(world.serve(arrived))
