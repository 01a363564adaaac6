"""A whole hub on a free port, and people who talk HTTP to it."""

import asyncio
import contextlib
import itertools
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from hub import admin
from hub.app import App
from hub.config import HubConfig, LimitsSection
from hub.folder import Folder, read_config
from hub.making import make_hub
from hub.opening import wall_us
from hub.store.audit import Actor
from protocol import ids
from protocol.enrolment import Enrolled, make_enrolment, open_enrolled
from protocol.envelope import Envelope, SealingKey, SigningKey
from protocol.ids import PrincipalId
from protocol.messages import MEDIA_TYPE, Item
from protocol.principal import make_principal
from protocol.signatures import sign_request
from protocol.sync import AgentSync, HubIdentity, Outcome
from protocol.times import ClockReading, ClockSource
from protocol.token import Token, parse_token
from tests.hub import kit

BY = Actor(who="operator:test", source="console")
_numbers = itertools.count(1)


@dataclass
class Answer:
    status: int
    body: bytes
    headers: Any

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def key(self) -> str:
        return self.json["error"]["key"]


@dataclass
class Shell:
    """One serving hub."""

    app: App
    config: HubConfig
    folder: Folder
    url: str
    session: aiohttp.ClientSession
    hub: PrincipalId = field(init=False)

    def __post_init__(self) -> None:
        self.hub = self.parts.keys.hub

    @property
    def parts(self):
        assert self.app.parts is not None
        return self.app.parts

    async def do(self, command) -> dict[str, Any]:
        from hub import operator

        return await operator.ask(self.folder.socket, command, "operator:test")

    async def site(self, name: str = "lake", owner: str = "") -> None:
        await self.do(admin.SiteAdd(site=name, name="湖区", region="330523", owner=owner))

    async def token(self, site: str = "lake") -> Token:
        return parse_token((await self.do(admin.TokenNew(kind="site", site=site)))["token"])

    async def owner_token(self) -> Token:
        return parse_token((await self.do(admin.TokenNew(kind="owner")))["token"])

    async def read_token(self) -> str:
        return (await self.do(admin.TokenNew(kind="read", name="test")))["token"]

    async def call(
        self,
        method: str,
        target: str,
        *,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        from yarl import URL

        url = URL(self.url + target, encoded=True)
        async with self.session.request(
            method, url, data=body, headers=headers, skip_auto_headers=["Content-Type"]
        ) as response:
            return Answer(response.status, await response.read(), response.headers)

    def sign(
        self,
        key: SigningKey,
        method: str,
        target: str,
        body: bytes | None = None,
        *,
        hub: PrincipalId | None = None,
        created_s: int | None = None,
        nonce: bytes | None = None,
    ) -> dict[str, str]:
        path, _, query = target.partition("?")
        return sign_request(
            method,
            path,
            query,
            body=body,
            content_type=None if body is None else MEDIA_TYPE,
            hub=hub or self.hub,
            key=key,
            created_s=int(time.time()) if created_s is None else created_s,
            nonce=nonce or secrets.token_bytes(16),
        )

    async def signed(
        self, key: SigningKey, method: str, target: str, body: bytes | None = None, **how: Any
    ) -> Answer:
        headers = self.sign(key, method, target, body, **how)
        return await self.call(method, target, body=body, headers=headers)

    async def bearer(self, token: str, target: str) -> Answer:
        return await self.call("GET", target, headers={"Authorization": f"Bearer {token}"})

    async def post(self, target: str, body: bytes) -> Answer:
        return await self.call("POST", target, body=body, headers={"Content-Type": MEDIA_TYPE})


@contextlib.asynccontextmanager
async def serving(tmp_path: Path, *, name: str = "hub", **limits: Any) -> AsyncIterator[Shell]:
    """A hub that serves; made on first use of the folder."""
    root = tmp_path / name
    if not (root / "hub.toml").exists():
        await asyncio.to_thread(make_hub, root, {"listen": {"port": 0}})
    config, folder = read_config(root / "hub.toml")
    other = {key: limits.pop(key) for key in ("hub", "listen", "metrics") if key in limits}
    other |= limits.pop("config", {})
    config = msgspec.structs.replace(config, limits=LimitsSection(**limits), **other)
    with folder.locked() as held:
        assert held
        app = App(config, folder, "en")
        task = asyncio.create_task(app.run())
        try:
            await asyncio.wait({task, app.ready}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                await task
            connector = aiohttp.TCPConnector(limit=0)
            async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
                yield Shell(app, config, folder, f"http://127.0.0.1:{await app.ready}", session)
        finally:
            app.stop()
            await asyncio.wait({task}, timeout=20)
        await task


class Gateway(kit.Agent):
    """A gateway that enrols and syncs over HTTP."""

    def __init__(self, shell: Shell, name: str = "") -> None:
        self.shell = shell
        self.enrolled: Enrolled | None = None
        super().__init__(name or f"gateway-{next(_numbers)}")

    def _conversation(self) -> AgentSync | None:  # type: ignore[override]
        if self.enrolled is None:
            return None
        from protocol.envelope import only_key

        return AgentSync(
            agent=self.id,
            agent_keys=only_key(self.signing.public),
            hub=HubIdentity(
                hub=self.enrolled.hub,
                signing_public=self.enrolled.hub_keys.signing,
                log_vkey=self.enrolled.log_key,
                generation=self.enrolled.generation,
            ),
            checkpoint=None,
        )

    def request(self, token: Token, owner: PrincipalId | None = None, name: str = "") -> Envelope:
        return make_enrolment(
            token,
            signing=self.signing,
            sealing_public=self.sealing.public,
            owner=owner,
            name=name or self.name,
            software="kit 1",
            clock=ClockReading(
                wall_us=wall_us(), offset_us=0, error_us=0, source=ClockSource.SYSTEM
            ),
            nonce=secrets.token_bytes(16),
        )

    def believe(self, request: Envelope, raw: bytes) -> Enrolled:
        self.enrolled = open_enrolled(
            raw,
            hub=self.shell.hub,
            request=request.object_id,
            agent=self.id,
            record_hash=request.record_hash,
        )
        self.sync = self._conversation()
        return self.enrolled

    async def join(self, *, owner: PrincipalId | None = None) -> Enrolled:
        request = self.request(await self.shell.token(), owner)
        answer = await self.shell.post("/v1/enrol", request.raw)
        assert answer.status == 200, answer.body
        return self.believe(request, answer.body)

    async def exchange(self, *items: Item) -> Outcome:
        answer = await self.shell.signed(self.signing, "POST", "/v1/sync", self.body(*items))
        assert answer.status == 200, answer.body
        return self.sync.receive(answer.body, now_us=wall_us())


class Owner:
    """A data owner with keys."""

    def __init__(self, name: str = "owner") -> None:
        self.signing = SigningKey(kit.hashlib.sha256(name.encode()).digest())
        self.sealing = SealingKey(kit.hashlib.sha256(name.encode() + b"s").digest())
        self.id = self.signing.principal
        self.principal = make_principal(
            self.signing, self.sealing.public, kind="owner", nonce=bytes(16)
        )

    @property
    def shown(self) -> str:
        return ids.show(self.id)

    async def join(self, shell: Shell) -> Answer:
        token = await shell.owner_token()
        return await shell.signed(token.signing_key(), "POST", "/v1/objects", self.principal.raw)
