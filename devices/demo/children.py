"""The processes of the demo: started, watched, killed, started again; their words in files."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

#: Time an orderly stop may take: the agent's own bound is 10 s.
STOP_TIMEOUT_S = 20.0


class CommandError(RuntimeError):
    """A command of ours ended with an error; the text holds its output."""


def command(name: str) -> str:
    """One of our commands, out of the environment that runs the demo."""
    return str(Path(sys.executable).parent / name)


async def output_of(*words: str, folder: Path, env: Mapping[str, str] | None = None) -> str:
    """Run one command to its end and return what it printed. Raises CommandError."""
    process = await asyncio.create_subprocess_exec(
        *words,
        cwd=folder,
        env={**os.environ, **(env or {})},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, said = await process.communicate()
    if process.returncode:
        shown = " ".join(Path(words[0]).name if n == 0 else w for n, w in enumerate(words))
        text = (out + said).decode("utf-8", "replace").strip()
        raise CommandError(f"`{shown}` ended with {process.returncode}:\n{text}")
    return out.decode()


@dataclass(slots=True)
class Child:
    """One long-running process. Ending unasked is counted as a failure and is not repaired."""

    name: str
    words: Sequence[str]
    folder: Path
    log: Path
    env: Mapping[str, str] = field(default_factory=dict)
    killed_us: list[int] = field(default_factory=list)  # when, µs UTC
    failures: list[str] = field(default_factory=list)
    _process: asyncio.subprocess.Process | None = None
    _watch: asyncio.Task[None] | None = None
    _expected: bool = False  # it is meant to end now

    @property
    def pid(self) -> int | None:
        """The process, while it runs."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start it; its output is appended to the log."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self.words,
                cwd=self.folder,
                env={**os.environ, **self.env},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the demo, which stops its children in order
            )
        self._expected = False
        self._watch = asyncio.create_task(self._watched(self._process), name=f"watch {self.name}")

    async def kill(self) -> None:
        """SIGKILL it, wherever it is."""
        if self._process is not None and not self.ended:
            self._expected = True
            self.killed_us.append(time.time_ns() // 1000)
            self._process.kill()
            await self._gone()

    async def stop(self) -> None:
        """SIGTERM it and wait for its end; SIGKILL if that takes too long, which is a failure."""
        if self._process is None or self.ended:
            return
        self._expected = True
        self._process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                code = await self._process.wait()
                if code:
                    self.failures.append(f"{self.name} stopped with {code}")
        except TimeoutError:
            self.failures.append(f"{self.name} did not stop within {STOP_TIMEOUT_S:g} s")
            self._process.kill()
        await self._gone()

    @property
    def ended(self) -> bool:
        """Whether it is not running."""
        return self._process is None or self._process.returncode is not None

    def last_words(self, lines: int = 15) -> str:
        """The end of its log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-lines:])

    async def _gone(self) -> None:
        if self._watch is not None:
            await self._watch

    async def _watched(self, process: asyncio.subprocess.Process) -> None:
        code = await process.wait()
        if not self._expected:
            self.failures.append(f"{self.name} ended by itself with {code}")
