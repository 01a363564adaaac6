"""The whole line as child processes: real commands, in the order of docs/quickstart.md."""

import asyncio
import json
import secrets
import sys
from pathlib import Path
from typing import Any, Final

import aiohttp

from devices.demo.children import Child, CommandError, command, output_of
from devices.demo.proxy import Link
from devices.demo.site import BAUD, GATES, RESOURCES, SILENT_UNIT, Wires, write_site
from devices.demo.texts import say
from devices.simulators.broker import Broker, free_port

SITE: Final = "511527-A0007"
#: Time a part may take until it is ready.
READY_S: Final = 30.0
#: Simulators that publish to the broker, and messages a second.
_PUBLISHERS: Final = {"carpark": 200, "gates": 60}
#: When one counter of the RS-485 line falls silent, and for how long, as shares of the run. It
#: keeps its total: one that forgot it while the agent is killed between answer and commit would
#: take persons with it that nobody can know.
_SILENT_FROM, _SILENT_FOR = 0.15, 0.5
_PASSINGS_A_SECOND: Final = 40
_POLL_S: Final = 0.2


class Line:
    """Broker, hub, link, agent and simulators in one folder. `open` all, then `close` all.

    seconds: how long the devices will work, for what is to happen in a part of it.
    """

    def __init__(self, folder: Path, *, seed: int, seconds: float = 60.0) -> None:
        self.folder = folder
        self.broker = Broker(folder / "broker")
        self.hub_port = free_port()
        self.link = Link(self.hub_port)
        self.read_token = ""
        self.owner = ""
        self._seed = seed
        self._config = folder / "site" / "agent.toml"
        self.hub = self._child("hub", "shanmen-hub", "serve", "--data", str(folder / "hub"))
        self.agent = self._child("agent", "shanmen-agent", "run", "--config", str(self._config))
        self._wires = Wires(folder / "ports", free_port())
        self._publishers = [
            self._simulator(name, name, "--broker", self.broker.url, "--rate", str(rate))
            for name, rate in _PUBLISHERS.items()
        ]
        dies = f"{SILENT_UNIT}:{_SILENT_FROM * seconds:g}:{_SILENT_FOR * seconds:g}"
        self._wired = [
            *(
                self._simulator(
                    f"gate-{gate}", "serial_gate", "--port", str(self._wires.gate(gate)),
                    "--gate", gate, *more,
                )
                for gate, more in GATES.items()
            ),
            self._simulator(
                "bus", "modbus_bus", "--port", str(self._wires.bus), "--baud", str(BAUD),
                "--tcp", str(self._wires.tcp_port), "--rate", str(_PASSINGS_A_SECOND),
                "--dies", dies, "--keeps",
            ),
        ]  # fmt: skip

    @property
    def simulators(self) -> list[Child]:
        """The devices."""
        return [*self._publishers, *self._wired]

    @property
    def children(self) -> list[Child]:
        """Everything but the broker."""
        return [self.hub, self.agent, *self.simulators]

    @property
    def hub_url(self) -> str:
        """The hub itself; the agent goes through the link."""
        return f"http://127.0.0.1:{self.hub_port}"

    @property
    def books(self) -> list[Path]:
        """The simulators' books."""
        return [self.book(one.name) for one in self.simulators]

    def book(self, name: str) -> Path:
        """The book of one simulator."""
        return self.folder / f"{name}.books.jsonl"

    async def open(self) -> None:
        """Set everything up and start it. Raises CommandError, BrokerError, TimeoutError."""
        self._wires.folder.mkdir(parents=True, exist_ok=True)
        await self.broker.start()
        await self.link.open()
        say("line.broker", url=self.broker.url)
        await self._open_hub()
        await self._open_agent()
        for simulator in self._publishers:
            await simulator.start()

    async def _open_hub(self) -> None:
        hub = str(self.folder / "hub")
        port = str(self.hub_port)
        await self._run("shanmen-hub", "init", hub, "--name", "Shanmen demo hub",
                        "--region", "511527", "--port", port)  # fmt: skip
        await self.hub.start()
        await self.hub_ready()
        phrase = self.folder / "passphrase"
        phrase.write_text(secrets.token_hex(16) + "\n", "utf-8")
        phrase.chmod(0o600)
        made = await self._run("shanmen", "key", "new", "owner.key", "--name", "Demo scenic area",
                               "--passphrase-file", str(phrase))  # fmt: skip
        self.owner = made.split()[0]
        token = await self._run("shanmen-hub", "token", "new", "--owner", "--data", hub)
        await self._run("shanmen", "principal", "add", "--hub", self.hub_url,
                        "--token", token.split()[0])  # fmt: skip
        await self._run("shanmen-hub", "site", "add", SITE, "--name", "Demo scenic area",
                        "--owner", self.owner, "--data", hub)  # fmt: skip
        read = await self._run("shanmen-hub", "token", "new", "--read", "--name", "demo",
                               "--data", hub)  # fmt: skip
        self.read_token = read.split()[0]
        login = self.folder / "login"
        login.write_text(secrets.token_hex(8) + "\n", "utf-8")
        login.chmod(0o600)
        await self._run("shanmen-hub", "user", "add", "demo", "--passphrase-file", str(login),
                        "--data", hub)  # fmt: skip
        say("line.page", url=self.hub_url, passphrase=login.read_text("utf-8").strip(), port=port)
        say("line.hub", url=self.hub_url, token=self.read_token)
        say("line.owner", owner=self.owner, folder=self.folder)

    async def _open_agent(self) -> None:
        write_site(
            self._config.parent,
            data=self.folder / "agent",
            hub=f"http://127.0.0.1:{self.link.port}",
            broker=self.broker.url,
            wires=self._wires,
            seed=self._seed,
        )
        token = await self._run("shanmen-hub", "token", "new", "--site", SITE,
                                "--data", str(self.folder / "hub"))  # fmt: skip
        await self._run("shanmen-agent", "enrol", token.split()[0], "--owner", self.owner,
                        "--config", str(self._config))  # fmt: skip
        await self._run("shanmen-agent", "check", "--config", str(self._config))
        for simulator in self._wired:  # what hangs on a wire is there before whoever listens
            await simulator.start()
        await self.agent.start()
        # The broker keeps for the agent what is published from the moment it subscribed.
        status = await self.agent_ready()
        say("line.agent", agent=status["agent"], site=SITE, resources=len(RESOURCES))

    async def hub_ready(self) -> None:
        """Wait until the hub accepts data. Raises TimeoutError, CommandError."""
        async with aiohttp.ClientSession() as session, asyncio.timeout(READY_S):
            while True:
                self._check(self.hub)
                try:
                    async with session.get(f"{self.hub_url}/readyz") as answer:
                        if answer.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(_POLL_S)

    async def agent_ready(self) -> dict[str, Any]:
        """Wait until the agent runs and has subscribed; gives its status."""
        async with asyncio.timeout(READY_S):
            while True:
                self._check(self.agent)
                status = await self.status()
                online = {one["name"] for one in status.get("devices", []) if
                          one["state"] == "online"}  # fmt: skip
                if "site" in online:
                    return status
                await asyncio.sleep(_POLL_S)

    async def status(self) -> dict[str, Any]:
        """What `shanmen-agent status --json` says; empty while it does not run."""
        try:
            out = await self._run("shanmen-agent", "status", "--json",
                                  "--config", str(self._config))  # fmt: skip
        except CommandError:
            return {}
        found: dict[str, Any] = json.loads(out)
        return found

    async def stop_simulators(self) -> None:
        """Let the devices fall silent; everything they published is acknowledged to them."""
        await asyncio.gather(*(one.stop() for one in self.simulators))

    async def read(self, resource: str) -> list[dict[str, Any]]:
        """What the owner reads back of one resource. Raises CommandError if it does not verify."""
        out = await self._run("shanmen", "read", resource, "--jsonl", "--hub", self.hub_url,
                              "--key", "owner.key", "--passphrase-file", "passphrase")  # fmt: skip
        return [json.loads(line) for line in out.splitlines()]

    async def accepted(self, resource_id: str) -> int:
        """How many records of a resource the hub says it accepted."""
        headers = {"Authorization": f"Bearer {self.read_token}"}
        url = f"{self.hub_url}/v1/entries/{resource_id}"
        async with aiohttp.ClientSession(headers=headers) as session, session.get(url) as answer:
            answer.raise_for_status()
            entry = await answer.json()
        return int(entry["metadata"]["records"])

    async def close(self) -> None:
        """Stop everything in the order of the data."""
        await self.stop_simulators()
        await self.agent.stop()
        await self.hub.stop()
        await self.link.close()
        await self.broker.stop()

    def _child(self, name: str, *words: str) -> Child:
        return Child(
            name, [command(words[0]), *words[1:]], self.folder, self.folder / f"{name}.log"
        )

    def _simulator(self, name: str, module: str, *more: str) -> Child:
        words = [sys.executable, "-m", f"devices.simulators.{module}", *more]
        words += ["--books", str(self.book(name)), "--seed", str(self._seed)]
        return Child(name, words, self.folder, self.folder / f"{name}.log")

    def _check(self, child: Child) -> None:
        if child.ended:
            raise CommandError(f"{child.name} ended:\n{child.last_words()}")

    async def _run(self, name: str, *words: str) -> str:
        return await output_of(command(name), *words, folder=self.folder)
