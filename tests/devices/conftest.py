"""Real brokers for the tests of drivers: nats-server always, mosquitto where the system has it."""

import asyncio
import getpass
import os
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import aiomqtt
import pytest

from tests.certificates import Authority

NATS = """
server_name: test
listen: "127.0.0.1:-1"
jetstream {{ store_dir: "{folder}/js", max_mem: 32MB, max_file: 256MB }}
{auth}
mqtt {{ host: "127.0.0.1", port: {port}, ack_wait: "1s", max_ack_pending: {in_flight} {tls} }}
"""
MOSQUITTO = """
user {user}
listener {port} 127.0.0.1
{auth}
persistence true
persistence_location {folder}/
max_inflight_messages {in_flight}
max_queued_messages 0
{tls}
"""
READY = {"nats": b"Server is ready", "mosquitto": b" running"}


@dataclass
class Broker:
    """One broker process; `restart` keeps its port and store."""

    kind: str
    folder: Path
    in_flight: int = 100
    tls: "Certificates | None" = None
    login: tuple[str, str] | None = None
    port: int = 0
    process: asyncio.subprocess.Process | None = None
    log: list[bytes] = field(default_factory=list)
    drain: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return f"{'mqtts' if self.tls else 'mqtt'}://127.0.0.1:{self.port}"

    async def start(self) -> "Broker":
        if not self.port:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = probe.getsockname()[1]
        config = self.folder / "broker.conf"
        config.write_text(self._config())
        program = _program("nats-server" if self.kind == "nats" else "mosquitto")
        self.process = await asyncio.create_subprocess_exec(
            program,
            "-c",
            str(config),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        ready = asyncio.Event()
        self.drain = asyncio.create_task(self._read(self.process, ready))
        async with asyncio.timeout(20):
            await ready.wait()
        assert self.process.returncode is None, b"".join(self.log).decode()
        return self

    async def stop(self, *, kill: bool = False) -> None:
        while self.process is not None and self.process.returncode is None:
            (self.process.kill if kill else self.process.terminate)()
            # mosquitto forgets a SIGTERM that comes between "running" and its main loop.
            await asyncio.wait([asyncio.ensure_future(self.process.wait())], timeout=5)
        if self.drain is not None:
            await self.drain
        self.process = self.drain = None

    def client(self, name: str, **more) -> aiomqtt.Client:
        context = None
        if self.tls:
            import ssl

            context = ssl.create_default_context(cafile=str(self.tls.ca))
        user, password = self.login or (None, None)
        return aiomqtt.Client(
            "127.0.0.1",
            self.port,
            identifier=name,
            username=user,
            password=password,
            tls_context=context,
            **more,
        )

    async def publish(self, *messages: tuple[str, str | bytes], retain: bool = False) -> None:
        """Publish with QoS 1 and wait for every PUBACK."""
        async with self.client("publisher") as client:
            for topic, payload in messages:
                await client.publish(topic, payload, qos=1, retain=retain)

    def _config(self) -> str:
        values = {"folder": self.folder, "port": self.port, "in_flight": self.in_flight}
        if self.kind == "nats":
            tls = auth = ""
            if self.tls:
                tls = f', tls {{ cert_file: "{self.tls.cert}", key_file: "{self.tls.key}" }}'
            if self.login:
                auth = f'authorization {{ user: "{self.login[0]}", password: "{self.login[1]}" }}'
            return NATS.format(tls=tls, auth=auth, **values)
        tls, auth = "", "allow_anonymous true"
        if self.tls:
            tls = f"certfile {self.tls.cert}\nkeyfile {self.tls.key}"
        if self.login:
            passwords = self.folder / "passwords"
            passwords.write_text(f"{self.login[0]}:{self.login[1]}\n")
            import subprocess

            subprocess.run([_program("mosquitto_passwd"), "-U", str(passwords)], check=True)
            auth = f"allow_anonymous false\npassword_file {passwords}"
        return MOSQUITTO.format(tls=tls, auth=auth, user=getpass.getuser(), **values)

    async def _read(self, process: asyncio.subprocess.Process, ready: asyncio.Event) -> None:
        while line := await process.stderr.readline():
            self.log.append(line)
            if READY[self.kind] in line:
                ready.set()
        await process.wait()
        ready.set()


@dataclass
class Certificates:
    """A county's own authority, and a certificate for 127.0.0.1."""

    ca: Path
    cert: Path
    key: Path
    other_ca: Path


def _program(name: str) -> str:
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin"))
    found = shutil.which(name, path=path)
    assert found, f"{name} is not installed"
    return found


@pytest.fixture(params=["nats", pytest.param("mosquitto", marks=pytest.mark.needs_mosquitto)])
def kind(request) -> str:
    return request.param


@pytest.fixture
async def make_broker(kind, tmp_path) -> AsyncIterator[Callable]:
    """Start brokers of the parametrised kind; they are stopped at the end."""
    async with AsyncExitStack() as stack:

        async def make(**more) -> Broker:
            folder = tmp_path / f"broker{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            broker = await Broker(kind, folder, **more).start()
            stack.push_async_callback(broker.stop)
            return broker

        yield make


@pytest.fixture(scope="session")
def certificates(tmp_path_factory) -> Certificates:
    folder = tmp_path_factory.mktemp("tls")
    county = Authority(folder / "ca.pem", "ca")
    cert, key = county.issue(folder / "cert.pem", folder / "key.pem", subject="broker")
    return Certificates(county.path, cert, key, Authority(folder / "other-ca.pem").path)
