"""docs/quickstart.md is run as it stands: its blocks in order, in one shell; only ports and folders are put in their place."""

import asyncio
import json
import os
import re
import signal
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from devices.simulators.broker import free_port
from devices.simulators.gates import HANDHELD_EVERY
from tests.shared import ROOT

BLOCK = re.compile(r"^```(\w+)(?: ([^\n]+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
END = "--- end of block ---"


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, what the info string says besides, its text."""

    language: str
    about: str
    text: str


def blocks(ports: dict[str, int], data: Path) -> list[Block]:
    text = (ROOT / "docs" / "quickstart.md").read_text("utf-8")
    for written, free in ports.items():
        text = text.replace(written, str(free))
    text = text.replace("/var/lib/shanmen-agent", str(data))
    return [Block(*found) for found in BLOCK.findall(text)]


class Shell:
    """One bash that keeps its variables from block to block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(ROOT),
        }

    async def __aenter__(self) -> "Shell":
        self._bash = await asyncio.create_subprocess_exec(
            "bash",
            "-s",
            cwd=self._folder,
            env=self._environment,
            limit=1 << 24,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._bash.stdin.close()
        await self._bash.wait()

    async def run(self, text: str) -> tuple[int, list[str]]:
        """Exit status and output of one block; the first command that fails ends the block."""
        name = self._folder / "block.sh"
        name.write_text(text, "utf-8")
        self._bash.stdin.write(
            f"trap 'echo failed $?' ERR; . {name}; trap - ERR; echo; echo '{END}'\n".encode()
        )
        await self._bash.stdin.drain()
        lines: list[str] = []
        async with asyncio.timeout(60):
            while (line := (await self._bash.stdout.readline()).decode()) and not line.startswith(
                END
            ):
                lines.append(line.rstrip("\n"))
        failed = not line or any(one.startswith("failed ") for one in lines)
        return int(failed), lines

    async def service(self, stack: AsyncExitStack, block: Block) -> Path:
        """Start a block that stays; it is stopped in order at the end, and must end well."""
        log = self._folder / f"{block.about.split()[1]}.log"
        with log.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                "bash",
                "-c",
                f"exec {block.text}",
                cwd=self._folder,
                env=self._environment,
                stdout=file,
                stderr=file,
            )

        async def stop() -> None:
            assert process.returncode is None, log.read_text()
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(20):
                assert await process.wait() == 0, log.read_text()

        stack.push_async_callback(stop)
        return log


async def until(shell: Shell, text: str, what: str) -> list[str]:
    """Run a block until it says what it should."""
    async with asyncio.timeout(60):
        while True:
            status, lines = await shell.run(text)
            if status == 0 and sum(what in line for line in lines):
                return lines
            await asyncio.sleep(0.1)


async def test_every_command_of_the_quick_start_works(tmp_path: Path) -> None:
    ports = {"8440": free_port(), "1883": free_port()}
    ready = {
        "hub": f"python -c \"import urllib.request as u; print(u.urlopen('http://127.0.0.1:{ports['8440']}/readyz').read())\"",
        "broker": f"python -c \"import socket; socket.create_connection(('127.0.0.1', {ports['1883']})); print('ok')\"",
        "agent": "shanmen-agent status --config agent.toml --json",
    }
    says = {"hub": "ok", "broker": "ok", "agent": '"online"'}
    ran = 0
    async with AsyncExitStack() as stack:
        shell = await stack.enter_async_context(Shell(tmp_path))
        for block in blocks(ports, tmp_path / "agent"):
            if block.language == "toml":
                (tmp_path / block.about).write_text(block.text, "utf-8")
            elif block.about.startswith("service"):
                name = block.about.split()[1]
                log = await shell.service(stack, block)
                assert await until(shell, ready[name] + " 2>/dev/null", says[name]), log.read_text()
            elif block.about == "read":
                records: list[str] = []
                async with asyncio.timeout(60):
                    while (
                        len(records) < 160
                    ):  # every fifth of the 200 is the hand-held's, which is not configured
                        status, lines = await shell.run(block.text)
                        records = [line for line in lines if line.startswith("{")]
                assert status == 0, lines
                assert (
                    len(
                        {
                            json.loads(line)["event_time"] + json.loads(line)["device"]
                            for line in records
                        }
                    )
                    == 160
                )
            else:
                status, lines = await shell.run(block.text)
                assert status == 0, "\n".join([block.text, *lines])
            ran += 1
        assert ran >= 13
        assert any("511527" in line and "检票" in line for line in lines), lines


def test_the_quick_start_says_how_many_records_to_expect() -> None:
    """Each fifth check is the hand-held's, whose topic the configuration does not read."""
    text = (ROOT / "docs" / "quickstart.md").read_text("utf-8")
    assert "--count 200" in text
    assert f"expect {200 - 200 // HANDHELD_EVERY} records" in text
