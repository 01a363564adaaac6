"""The peer's side: the real thingsboard-gateway, and the stand-in as its durable receiver."""

import asyncio
import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from devices.simulators.broker import free_port
from tests.bench.peer import settings
from tests.bench.peer.side import Side
from tests.bench.peer.stand_in import Counts, read_counts, read_telemetry
from tests.faults.world import WorldError, tail
from tests.shared import ROOT

START_S = 60.0


class Theirs(Side):
    """The gateway with one connector, and what it sends to."""

    name = "thingsboard-gateway"

    def __init__(self, folder: Path, programs: Path, connector: dict[str, Any], kind: str) -> None:
        self.folder, self._program = folder, programs / "thingsboard-gateway"
        self._home, self._store = folder / "gateway", folder / "stand-in"
        self._connector, self._kind = connector, kind
        self._children: dict[str, asyncio.subprocess.Process] = {}

    async def start(self) -> None:
        self._store.mkdir(parents=True)
        port = free_port()
        settings.write(self._home, port=port, connector=self._connector, name=self._kind)
        words = [sys.executable, "-m", "tests.bench.peer.stand_in", str(port), str(self._store)]
        self._children["receiver"] = await asyncio.create_subprocess_exec(*words, cwd=ROOT)
        while not (self._store / "counts").exists():
            self._must_run()
            await asyncio.sleep(0.05)
        await self._start_gateway()

    async def _start_gateway(self) -> None:
        env = {k: v for k, v in os.environ.items() if k not in {"host", "port"}}  # it reads these
        env["TB_GW_CONFIG_DIR"] = str(self._home / "config")
        with (self.folder / "gateway.log").open("ab") as log:
            self._children["gateway"] = await asyncio.create_subprocess_exec(
                str(self._program), cwd=self._home, env=env, stdout=log, stderr=log,
                stdin=asyncio.subprocess.DEVNULL,
            )  # fmt: skip

    def _must_run(self) -> None:
        for name, child in self._children.items():
            if child.returncode is not None:
                raise WorldError(f"{name} ended: {tail(self.folder / 'gateway.log')}")

    async def close(self) -> None:
        for child in self._children.values():
            if child.returncode is None:
                child.kill()
            await child.wait()

    @property
    def _counts(self) -> Counts:
        return read_counts(self._store)

    async def progress(self) -> int:
        self._must_run()
        return self._counts.records

    async def last_at(self) -> float:
        return self._counts.synced_at

    @property
    def gateway(self) -> int:
        return self._children["gateway"].pid

    @property
    def receiver(self) -> int:
        return self._children["receiver"].pid

    @property
    def wire_bytes(self) -> int:
        return self._counts.received + self._counts.sent

    async def kill(self) -> None:
        child = self._children.pop("gateway")
        child.kill()
        await child.wait()
        await self._start_gateway()

    async def identities(self) -> Counter[int]:
        """Each id of what was received durably."""
        return Counter(int(one["values"]["number"]) for one in read_telemetry(self._store))

    async def ready(self) -> None:
        """Until the load connector has its load, and the gateway is through with its start."""
        async with asyncio.timeout(START_S):
            while not Path(self._connector["ready"]).exists():
                self._must_run()
                await asyncio.sleep(0.05)
        await asyncio.sleep(3)

    async def loaded(self) -> float:
        """Tell the load connector to go; when it began, once it has handed over everything."""
        self.mark()
        Path(self._connector["go"]).touch()
        report = Path(self._connector["report"])
        while not report.exists():
            self._must_run()
            await asyncio.sleep(0.05)
        return float(json.loads(report.read_text())["began"])
