"""The parts of `make bench`; each adds its figures and may be run alone."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from devices.demo.figures import Figures
from tests.bench import calm, page, speed

Part = Callable[[Figures, Path], Awaitable[None]]

#: Part → its function; its bars stand in the table `bench <part>`.
PARTS: dict[str, Part] = {
    "reference": speed.reference,
    "throughput": speed.throughput,
    "wire": speed.wire,
    "cpu": speed.cpu,
    "drain": speed.drain,
    "memory": calm.memory,
    "idle": calm.idle,
    "disk": calm.disk,
    "page": page.page,
}
