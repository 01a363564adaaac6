"""What the runs ask of a side: a gateway and its durable receiver as two processes."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections import Counter
from typing import NamedTuple, Self

import psutil

MILLION = 1_000_000
MB = 1_000_000
BUDGET_S = 600.0
#: With no record for so long nothing comes any more; both flush several times a second.
QUIET_S = 4.0


class Row(NamedTuple):
    """One line of a table."""

    records_per_s: float
    gateway_cpu: float  # s a million records
    receiver_cpu: float  # s a million records
    memory_mb: float  # largest resident size of the gateway's process tree
    wire: float  # bytes a record on the uplink, both directions


class Side(ABC):
    """One gateway under test."""

    name: str
    _cpu: tuple[float, float] = (0.0, 0.0)
    _wire: int = 0
    _progress: int = 0

    @abstractmethod
    async def start(self) -> None:
        """Start receiver and gateway."""

    @abstractmethod
    async def close(self) -> None:
        """End both."""

    @abstractmethod
    async def progress(self) -> int:
        """Records that the receiver has taken durably so far; -1 where that is not known now."""

    @abstractmethod
    async def last_at(self) -> float:
        """Wall time at which the last of them was."""

    @abstractmethod
    async def kill(self) -> None:
        """SIGKILL the gateway and start it again."""

    @abstractmethod
    async def identities(self) -> Counter[int]:
        """The ids of all that the receiver has, counted."""

    @property
    @abstractmethod
    def gateway(self) -> int:
        """Process of the gateway."""

    @property
    @abstractmethod
    def receiver(self) -> int:
        """Process of the receiver."""

    @property
    @abstractmethod
    def wire_bytes(self) -> int:
        """TCP payload between the two so far, both directions."""

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def mark(self) -> None:
        """From here on CPU and bytes count."""
        self._cpu, self._wire = (cpu_s(self.gateway), cpu_s(self.receiver)), self.wire_bytes

    @property
    def marked_cpu(self) -> float:
        """CPU seconds of the gateway at `mark`."""
        return self._cpu[0]

    async def settled(self, expected: int, *, at_least_s: float = 0.0) -> int:
        """Until `expected` records are there and nothing more comes; what is there then.

        Without all of them it takes `at_least_s` and a longer silence to give up.
        """
        began = changed = time.monotonic()
        last = -1
        async with asyncio.timeout(BUDGET_S):
            while True:
                found, now = await self.progress(), time.monotonic()
                if found != last:
                    last, changed = found, now
                is_quiet = now - changed > (QUIET_S if last >= expected else 3 * QUIET_S)
                if is_quiet and (last >= expected or now - began > at_least_s):
                    return last
                await asyncio.sleep(0.25)

    async def row(self, records: int, began: float, memory: int) -> Row:
        """The figures since `mark`."""
        spent = cpu_s(self.gateway) - self._cpu[0], cpu_s(self.receiver) - self._cpu[1]
        return Row(
            records_per_s=records / (await self.last_at() - began),
            gateway_cpu=spent[0] / records * MILLION,
            receiver_cpu=spent[1] / records * MILLION,
            memory_mb=memory / MB,
            wire=(self.wire_bytes - self._wire) / records,
        )


def cpu_s(pid: int) -> float:
    """User and system seconds of a process."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def tree_bytes(pid: int) -> int:
    """Resident bytes of a process and its children."""
    process = psutil.Process(pid)
    return sum(p.memory_info().rss for p in (process, *process.children(recursive=True)))


async def watch_memory(pid: int, until: "asyncio.Task[int]") -> list[tuple[float, int]]:
    """Wall time and resident bytes of a process tree, five times a second while a task runs."""
    found = []
    while not until.done():
        found.append((time.time(), tree_bytes(pid)))
        await asyncio.wait({until}, timeout=0.2)
    return found


def peak(samples: list[tuple[float, int]]) -> int:
    """The largest of them."""
    return max(size for _, size in samples)


def growth(samples: list[tuple[float, int]], began: float) -> int:
    """How far the largest is above the last before `began`."""
    before = [size for at, size in samples if at <= began] or [samples[0][1]]
    return max(0, peak([one for one in samples if one[0] > began] or samples[-1:]) - before[-1])
