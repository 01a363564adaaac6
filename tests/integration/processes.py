"""The real commands as child processes, and the socket on which they say how they are."""

import asyncio
import json
import os
import re
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.commands.status import ask
from devices.demo.site import BY_EVENT_ID, CHECKS, HEAD

BIN = Path(sys.executable).parent


class NotifySocket:
    """What systemd would be: the other end of sd_notify."""

    def __init__(self, path: Path):
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self.states: list[dict[str, str]] = []

    async def until(self, key: str, value: str | None = None, *, count: int = 1) -> dict[str, str]:
        """Wait for the `count`-th new message that has `key` (with `value`)."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(20):
            while True:
                raw = await loop.sock_recv(self._socket, 4096)
                state = dict(line.split("=", 1) for line in raw.decode().splitlines())
                self.states.append(state)
                if key in state and value in {None, state[key]}:
                    count -= 1
                    if count == 0:
                        return state

    def close(self):
        self._socket.close()


class Service:
    """One long-running command; started and stopped as systemd does it."""

    def __init__(self, folder: Path, name: str, *words: str, env: dict[str, str] | None = None):
        self.words = words
        self.log = folder / f"{name}.log"
        self._env = env or {}
        self.notify = NotifySocket(folder / f"{name}.notify")
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, *, watchdog_s: float | None = None, ready: bool = True):
        env = {
            **os.environ,
            "LANG": "en_US.UTF-8",
            "LC_ALL": "",
            "NOTIFY_SOCKET": str(self.notify.path),
        }
        if watchdog_s is not None:
            env["WATCHDOG_USEC"] = str(int(watchdog_s * 1e6))
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                str(BIN / self.words[0]),
                *self.words[1:],
                env=env | self._env,
                stdout=log,
                stderr=log,
            )
        if ready:
            await self.notify.until("READY", "1")

    async def stop(self, *, kill: bool = False) -> int:
        if self.process is None:
            return 0
        if self.process.returncode is None:
            if kill:
                self.process.kill()
            else:
                self.process.terminate()
        async with asyncio.timeout(15):
            code = await self.process.wait()
        self.process = None
        return code

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line[:1] == "{"]


async def command(*words: str, lang: str = "en_US.UTF-8", **env: str) -> tuple[int, str, str]:
    """Run a command to its end: exit code, standard output, standard error."""
    process = await asyncio.create_subprocess_exec(
        str(BIN / words[0]),
        *words[1:],
        env={**os.environ, "LANG": lang, "LC_ALL": "", **env},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def done(*words: str, **env: str) -> str:
    """Run a command that must succeed; its standard output."""
    code, out, err = await command(*words, **env)
    assert code == 0, f"{words}: {code}\n{out}\n{err}"
    return out


async def make_template(folder: Path):
    """A hub, an owner's key and a site, by the real commands."""
    hub = str(folder / "hub")
    await done("shanmen-hub", "init", hub, "--port", "1")
    (folder / "pp").write_text("a long passphrase\n")
    key = str(folder / "owner.key")
    await done("shanmen", "key", "new", key, "--passphrase-file", str(folder / "pp"))
    owner = (await done("shanmen", "key", "show", key)).split()[0]
    about = ("--name", "S", "--region", "330523", "--owner", owner, "--data", hub)
    await done("shanmen-hub", "site", "add", "s1", *about)
    (folder / "owner").write_text(owner)


class World:
    """A hub with an owner and a site, made by the real commands."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.hub_folder = folder / "hub"
        self.hub = Service(folder, "hub", "shanmen-hub", "serve", "--data", str(self.hub_folder))
        self.port = 0
        self.owner = ""

    async def make(self, template: Path):
        """A copy of a hub with owner and site that is made once: five commands cost seconds."""
        from devices.simulators.broker import free_port

        if not (template / "owner").exists():
            await make_template(template)
        for name in ("hub", "owner.key", "pp"):
            source = template / name
            if source.is_dir():
                shutil.copytree(source, self.folder / name)
            else:
                shutil.copy2(source, self.folder / name)
        self.owner = (template / "owner").read_text()
        self.port = free_port()
        toml = self.hub_folder / "hub.toml"
        toml.write_text(re.sub(r"(?m)^port = \d+$", f"port = {self.port}", toml.read_text()))

    async def admin(self, *words: str) -> str:
        return await done("shanmen-hub", *words, "--data", str(self.hub_folder))

    async def token(self) -> str:
        return (await self.admin("token", "new", "--site", "s1")).split()[0]

    async def add_principal(self):
        token = (await self.admin("token", "new", "--owner")).split()[0]
        key = str(self.folder / "owner.key")
        await done("shanmen", "principal", "add", "--key", key, "--hub", self.url, "--token", token)

    async def read(self, resource: str) -> list[dict[str, object]]:
        out = await done(
            "shanmen",
            "read",
            resource,
            "--key",
            str(self.folder / "owner.key"),
            "--hub",
            self.url,
            "--passphrase-file",
            str(self.folder / "pp"),
        )
        return [json.loads(line) for line in out.splitlines()]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def config(self, name: str = "agent", *, broker: str | None = None, more: str = "") -> Path:
        """An agent.toml with a counter on a JSON topic if there is a broker."""
        path = self.folder / f"{name}.toml"
        text = HEAD.format(data=f"{self.folder}/{name}-data", name="gateway", hub=self.url)
        text += f"""
[storage]
budget = "64MiB"
commit_delay = "200ms"
[seal]
age = "1s"
{more}
[[resource]]
id = "checks"
pack = "ticket.check"
"""
        if broker is not None:
            text += f"""
[[mqtt]]
id = "site"
url = "{broker}"
client_id = "{name}"
"""
            text += CHECKS.format(
                id="gates", resource="checks", topic="gates/+/check", policy=BY_EVENT_ID
            )
        path.write_text(text)
        return path

    def agent(self, config: Path) -> Service:
        return Service(self.folder, config.stem, "shanmen-agent", "run", "--config", str(config))

    async def status(self, config: Path) -> dict[str, Any]:
        """What `status --json` prints, asked over the agent's socket without a process."""
        return await ask(self.folder / f"{config.stem}-data")

    async def until(self, config: Path, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Ask again and again until it holds; the test's bound is 40 s."""
        async with asyncio.timeout(40):
            while not holds(snapshot := await self.status(config)):
                await asyncio.sleep(0.05)
        return snapshot
