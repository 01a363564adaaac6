"""A hub, an agent and a device as real processes in one folder, to be killed, copied and compared.

`World.make` sets everything up with the commands that a county would use; `prepared` keeps one such
folder for a whole session and hands out copies, because setting up takes seconds and kills do not.
"""

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.commands import status
from agent.host.faults import Fault
from devices.simulators.broker import free_port
from tests.faults.line_driver import CHECKS, PACKS, PASSAGES, TABLE
from tests.faults.reading import read_inside
from tests.shared import ROOT

PLUGIN = Path(__file__).with_name("plugin")
READY_TIMEOUT_S = 60.0
DRAIN_TIMEOUT_S = 120.0
INCOMPLETE = 3  # of `shanmen read`: all verifies, and gaps were declared
RESOURCES = (CHECKS, PASSAGES, TABLE)

AGENT_TOML = """
data = "{folder}/agent"
owner = "{owner}"

[hub]
url = "http://127.0.0.1:{hub_port}"
retry_min = "100ms"
retry_max = "1s"
request_timeout = "5s"

[seal]
records = 200
age = "1s"

[storage]
budget = "64MiB"
commit_delay = "1s"
keep_after_receipt = "{keep}"

{resources}
[[device]]
id = "line"
profile = "line/torture"
port = {device_port}
"""


class WorldError(AssertionError):
    """A command of the world ended, or did not end, as it should."""


@dataclass
class World:
    """One folder with everything in it; ports stand in files of that folder."""

    folder: Path
    code: Path = ROOT  # where the packages are imported from: a mutant has a tree of its own
    hub_port: int = 0
    device_port: int = 0
    agent_hub_port: int = 0  # where the agent finds its hub, if not at the hub itself
    children: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.hub_port, self.device_port = (
            self.hub_port or free_port(),
            self.device_port or free_port(),
        )

    # --- commands -----------------------------------------------------------------------------

    def env(self, extra: Mapping[str, str]) -> dict[str, str]:
        path = os.pathsep.join([str(self.code), str(ROOT), str(PLUGIN)])
        base = {k: v for k, v in os.environ.items() if k != "NOTIFY_SOCKET"}
        return {
            **base,
            "PYTHONPATH": path,
            "LANG": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "",
            **extra,
        }

    def words(self, command: str, *args: str) -> list[str]:
        # -P: the folder we run in must not come before PYTHONPATH.
        return [sys.executable, "-P", "-m", "tests.faults.armed", command, *args]

    async def do(
        self,
        command: str,
        *args: str,
        timeout: float = 60.0,
        good: tuple[int, ...] = (0,),
        **env: str,
    ) -> str:
        child = await asyncio.create_subprocess_exec(
            *self.words(command, *args),
            cwd=self.folder,
            env=self.env(env),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, err = await asyncio.wait_for(child.communicate(), timeout)
        except TimeoutError:
            child.kill()
            raise WorldError(f"{command} {args} did not end in {timeout} s") from None
        if child.returncode not in good:
            raise WorldError(f"{command} {args}: {child.returncode}\n{out.decode()}{err.decode()}")
        return out.decode()

    async def make(self) -> None:
        """Hub, owner, site, token, enrolment: as docs/quickstart.md, in this folder."""
        await self.make_hub()
        await self.start("hub")
        await self.add_owner(await self.owner_token())
        await self.enrol(await self.site_token())
        await self.stop("hub")

    async def make_hub(self) -> None:
        """An empty hub with one site, and a key of the owner; nothing runs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "pass").write_text("torture passphrase\n")
        await self.do("hub", "init", "hub", "--port", str(self.hub_port))
        owner = (
            await self.do(
                "owner", "key", "new", "owner.key", "--name", "o", "--passphrase-file", "pass"
            )
        ).split()[-1]
        (self.folder / "owner.txt").write_text(owner)
        await self.do("hub", "site", "add", "s1", "--name", "s1", "--owner", owner, "--data", "hub")
        self.write_config()

    async def owner_token(self) -> str:
        return (await self.do("hub", "token", "new", "--owner", "--data", "hub")).split()[-1]

    async def site_token(self) -> str:
        out = await self.do("hub", "token", "new", "--site", "s1", "--data", "hub")
        return out.split()[-1]

    async def add_owner(self, token: str) -> None:
        """The owner's principal at the hub; the hub runs."""
        url = f"http://127.0.0.1:{self.hub_port}"
        await self.do(
            "owner", "principal", "add", "--hub", url, "--token", token, "--key", "owner.key",
        )  # fmt: skip

    async def enrol(self, token: str) -> None:
        """The gateway at the hub; the hub runs."""
        owner = (self.folder / "owner.txt").read_text()
        await self.do("agent", "enrol", token, "--owner", owner, "--config", "agent.toml")

    def write_config(self, keep: str = "0s") -> None:
        """The configuration with this world's ports and paths, and the owner's memory of the hub."""
        resources = "".join(
            f'[[resource]]\nid = "{name}"\npack = "{pack}"\n' for name, pack in PACKS.items()
        )
        (self.folder / "agent.toml").write_text(
            AGENT_TOML.format(
                folder=self.folder,
                owner=(self.folder / "owner.txt").read_text(),
                hub_port=self.agent_hub_port or self.hub_port,
                device_port=self.device_port,
                keep=keep,
                resources=resources,
            )
        )
        config = self.folder / "hub" / "hub.toml"
        lines = [
            f"port = {self.hub_port}" if line.startswith("port =") else line
            for line in config.read_text().splitlines()
        ]
        config.write_text("\n".join(lines) + "\n")
        memory = self.folder / "owner.key.hubs.json"
        if memory.exists():
            known = json.loads(memory.read_text())
            for hub in known["hubs"]:
                hub["url"] = f"http://127.0.0.1:{self.hub_port}"
            memory.write_text(json.dumps(known))

    def copy(self, target: Path) -> "World":
        """The same world in another folder, on other ports."""
        shutil.copytree(self.folder, target, ignore=shutil.ignore_patterns("*.sock", "*.log"))
        other = World(target, self.code)
        other.write_config()
        return other

    # --- the two services ---------------------------------------------------------------------

    async def start(self, name: str, *, wait: bool = True, **env: str) -> None:
        """Start hub or agent; with `wait`, until it says READY on its notify socket."""
        notify = None
        if wait:
            notify = Notify(self.folder / f"{name}.notify")
            env["NOTIFY_SOCKET"] = str(notify.path)
        args = ["serve", "--data", "hub"] if name == "hub" else ["run", "--config", "agent.toml"]
        with (self.folder / f"{name}.log").open("ab") as log:
            child = await asyncio.create_subprocess_exec(
                *self.words(name, *args),
                cwd=self.folder,
                env=self.env(env),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.children[name] = child
        if notify is not None:
            await notify.ready(child, self.folder / f"{name}.log")

    async def kill(self, name: str) -> None:
        child = self.children.pop(name, None)
        if child is not None:
            if child.returncode is None:
                child.kill()
            await child.wait()

    async def stop(self, name: str) -> None:
        """SIGTERM; both promise to be gone within their bounds."""
        child = self.children.pop(name, None)
        if child is None:
            return
        if child.returncode is None:
            child.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(child.wait(), 30)
        except TimeoutError:
            child.kill()
            raise WorldError(f"{name} did not stop within 30 s") from None

    async def died(self, name: str, timeout: float) -> bool:
        """Wait until a process ends by itself (its armed point); False if it does not."""
        try:
            await asyncio.wait_for(self.children[name].wait(), timeout)
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        for name in list(self.children):
            await self.kill(name)

    # --- what is in it ------------------------------------------------------------------------

    async def status(self) -> dict[str, Any]:
        """What the running agent says over its socket; no process is started for it."""
        try:
            return await status.ask(self.folder / "agent")
        except Fault as error:
            raise WorldError(f"agent does not answer: {tail(self.folder / 'agent.log')}") from error

    async def drained(self, timeout: float = DRAIN_TIMEOUT_S) -> None:
        """Until nothing of the agent waits for the hub any more."""
        found: object = None
        try:
            async with asyncio.timeout(timeout):
                while True:
                    for name, child in self.children.items():
                        if child.returncode is not None:
                            raise WorldError(f"{name} ended: {tail(self.folder / f'{name}.log')}")
                    with suppress(WorldError):
                        found = await self.status()
                        if is_drained(found):
                            return
                    await asyncio.sleep(0.1)
        except TimeoutError:
            logs = "".join(tail(self.folder / f"{name}.log", 600) for name in self.children)
            said = {k: found[k] for k in ("state", "spool", "alarms")} if found else None
            raise WorldError(f"not drained in {timeout} s: {said}\n{logs}") from None

    async def read(self, resource: str) -> list[dict[str, object]]:
        """What the owner reads back, everything verified. Raises WorldError if it does not verify.

        A gap that the gateway declared is told by the exit status; the books judge it.
        """
        out = await self.do(
            "owner", "read", resource, "--hub", f"http://127.0.0.1:{self.hub_port}", "--key",
            "owner.key", "--passphrase-file", "pass", timeout=120, good=(0, INCOMPLETE),
        )  # fmt: skip
        return [json.loads(line) for line in out.splitlines()]

    async def read_all(self) -> dict[str, list[dict[str, object]]]:
        return {name: await self.read(name) for name in RESOURCES}

    async def read_inside(self) -> dict[str, list[dict[str, object]]]:
        """The same by the owner's functions in this process: what hundreds of cuts can afford."""
        return {name: await read_inside(self.folder, name) for name in RESOURCES}


def is_drained(found: Mapping[str, Any]) -> bool:
    """Whether status says that neither journal nor spool nor outbox holds anything for the hub."""
    return not any(found["spool"].get(k) for k in ("journal", "due", "objects"))


class Notify:
    """A notify socket as systemd's: waits for READY=1."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.unlink(missing_ok=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.setblocking(False)

    async def ready(self, child: asyncio.subprocess.Process, log: Path) -> None:
        loop = asyncio.get_running_loop()
        ended = asyncio.create_task(child.wait())
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                while True:
                    receive = asyncio.create_task(loop.sock_recv(self.socket, 4096))
                    await asyncio.wait({receive, ended}, return_when=asyncio.FIRST_COMPLETED)
                    if receive.done() and b"READY=1" in receive.result():
                        return
                    if ended.done():
                        receive.cancel()
                        if child.returncode == -signal.SIGKILL:
                            return  # its armed point came before it was ready
                        raise WorldError(f"ended with {child.returncode}: {tail(log)}")
        finally:
            ended.cancel()
            self.socket.close()
            self.path.unlink(missing_ok=True)


def tail(log: Path, size: int = 2000) -> str:
    return log.read_bytes()[-size:].decode("utf-8", "replace") if log.exists() else ""


__all__ = ["World", "WorldError", "free_port"]
