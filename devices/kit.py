"""The test kit for drivers: ours, and yours if you write a plug-in.

`Bench` is an agent in memory that keeps the contract of `devices.driver`: it commits a reading
whole, remembers identities and watermarks, and only then acknowledges. It fails a test that breaks
the contract. `lines` gives what a reading led to as plain values, for `expected.jsonl`.

A case is a folder: `config.toml` (tables as in agent.toml), `input.jsonl` (one message a line) and
`expected.jsonl` (what must come of it), or `error.txt` (the problems of the configuration).
"""

import json
import tomllib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

from devices.driver import DeviceState, Driver, DriverContext, Reading, Watermark
from devices.loader import Loaded, load_devices
from devices.packs import load_packs
from protocol.errors import Code, ConfigError
from protocol.packs import Pack, check_columns
from protocol.records import to_columns
from protocol.times import Quality, parse_rfc3339, show_time

#: Longest watermark that the agent takes, in bytes.
WATERMARK_BYTES_MAX: Final = 4096


class Health:
    """Remembers what drivers said about their devices."""

    def __init__(self) -> None:
        self.states: dict[str, DeviceState] = {}
        self.counters: dict[tuple[str, str], int] = {}
        self.last_seen: dict[str, int] = {}

    def seen(self, device: str, at_us: int) -> None:
        """See `devices.driver.HealthSink`."""
        self.last_seen[device] = at_us

    def changed(self, device: str, state: DeviceState, detail: str = "") -> None:  # noqa: ARG002
        """See `devices.driver.HealthSink`."""
        self.states[device] = state

    def count(self, device: str, counter: str, by: int = 1) -> None:
        """See `devices.driver.HealthSink`."""
        self.counters[device, counter] = self.counters.get((device, counter), 0) + by

    def total(self, counter: str) -> int:
        """The sum of a counter over all devices."""
        return sum(n for (_, name), n in self.counters.items() if name == counter)


class Bench:
    """An agent's core in memory and the context that it lends: survives the driver, as disks do."""

    def __init__(self, *, now_us: int = 1_790_000_000_000_000, **secrets: str) -> None:
        self.health = Health()
        self.now_us = now_us
        self.secrets = {"pseudonym": "kit", **secrets}
        self.watermarks: dict[str, bytes] = {}
        self.identities: set[bytes] = set()
        self.committed: list[Reading] = []
        self.repeats = 0

    def watermark(self, source: str) -> bytes | None:
        """See `devices.driver.DriverContext`."""
        return self.watermarks.get(source)

    async def note(self, watermark: Watermark) -> None:
        """See `devices.driver.DriverContext`."""
        self.watermarks[watermark.source] = watermark.value

    def clock_us(self) -> int:
        """See `devices.driver.DriverContext`."""
        return self.now_us

    def secret(self, name: str) -> str:
        """See `devices.driver.DriverContext`."""
        if name not in self.secrets:
            raise ConfigError(Code.CONFIG_INVALID, field=name, expected="a secret of that name")
        return self.secrets[name]

    def commit(self, reading: Reading, *, ack: bool = True) -> bool:
        """Commit a reading as the agent does; False if its identity was committed before.

        ack: False stands for a crash between the commit and the acknowledgement.
        Raises AssertionError where the reading breaks the contract.
        """
        check_reading(reading)
        fresh = reading.identity is None or reading.identity not in self.identities
        if fresh:
            if reading.identity is not None:
                self.identities.add(reading.identity)
            self.watermarks.update((one.source, one.value) for one in reading.watermarks)
            self.committed.append(reading)
        else:
            self.repeats += 1
        if ack and reading.ack is not None:
            reading.ack()
        return fresh

    async def pump(self, driver: Driver, count: int) -> list[Reading]:
        """Take `count` readings of a running driver, commit and acknowledge each."""
        taken: list[Reading] = []
        async for reading in _closing(driver.run()):
            self.commit(reading)
            taken.append(reading)
            if len(taken) >= count:
                break
        return taken


def check_reading(reading: Reading) -> None:
    """Assert what every reading must keep: bounds, plain types, one-line details."""
    for mark in reading.watermarks:
        assert len(mark.value) <= WATERMARK_BYTES_MAX, f"watermark {mark.source} is too long"
    for one in reading.rejected:
        assert one.detail.isprintable(), f"detail of {one.reason} has control characters"
        assert one.device.isprintable(), "a device's id has control characters"
    for rows in reading.rows:
        assert rows.records, f"rows of {rows.resource} are empty"


def check_against_packs(reading: Reading, packs_of: dict[str, str]) -> None:
    """Assert that every record fits the domain pack of its resource."""
    packs = _packs()
    for rows in reading.rows:
        pack = packs[packs_of[rows.resource]]
        problems = check_columns(pack, to_columns(rows.records, pack.names, 0))
        assert not problems, f"{rows.resource}: {problems}"


def load(config: str, *, folder: Path = Path()) -> Loaded:
    """The tables of a configuration text, loaded against the delivered packs."""
    document = tomllib.loads(config)
    declared = {one["id"]: one["pack"] for one in document.get("resource", [])}
    return load_devices(document, _packs(), declared=declared, folder=folder)


def lines(reading: Reading, *, fresh: bool = True) -> list[dict[str, Any]]:
    """What a reading leads to, as `expected.jsonl` writes it: nulls left out, tokens in hex."""
    if not fresh:
        return [{"repeat": True}]
    found: list[dict[str, Any]] = []
    for rows in reading.rows:
        for record in rows.records:
            line: dict[str, Any] = {
                "resource": rows.resource,
                "device": record.device,
                "time": show_time(record.event_time_us),
                "values": {k: _plain(v) for k, v in record.values.items() if v is not None},
            }
            marks = [mark.name for mark in Quality(record.quality)]
            if marks:
                line["quality"] = marks
            if record.device_time_us is not None:
                line["device_time"] = show_time(record.device_time_us)
            found.append(line)
    found += [
        {"rejected": one.reason, "device": one.device, "detail": one.detail}
        for one in reading.rejected
    ]
    return found


#: One line of input through a driver: yields what comes of it. A reading is committed before the
#: feed goes on; a plain line (an answer that was sent, a counter) goes to `expected.jsonl` as is.
Feed = Callable[[Driver, Bench, dict[str, Any]], Iterable[Reading | dict[str, Any]]]


def run_case(folder: Path, feed: Feed) -> Iterator[dict[str, Any]]:
    """Run one case folder: each line of `input.jsonl` through `feed`, committed on a bench.

    A line may hold `at` (RFC 3339: the gateway's clock), `restart` (a new driver instance on the
    same bench) and `ack` (false: the crash comes before it). Yields lines for `expected.jsonl`.
    """
    loaded = load((folder / "config.toml").read_text("utf-8"), folder=folder)
    assert not loaded.problems, loaded.problems
    packs_of = {name: use.pack for name, use in loaded.resources.items()}
    bench = Bench()
    driver = loaded.drivers[0].make(bench)
    for text in (folder / "input.jsonl").read_text("utf-8").splitlines():
        order = json.loads(text)
        if "at" in order:
            bench.now_us = parse_rfc3339(order["at"])
        if order.get("restart"):
            driver = loaded.drivers[0].make(bench)
            continue
        for found in feed(driver, bench, order):
            if isinstance(found, dict):
                yield found
                continue
            check_against_packs(found, packs_of)
            fresh = bench.commit(found, ack=order.get("ack", True))
            yield from lines(found, fresh=fresh)


def problem_lines(folder: Path) -> list[str]:
    """The problems of a case's configuration, one a line, as `error.txt` writes them."""
    loaded = load((folder / "config.toml").read_text("utf-8"), folder=folder)
    return [
        f"{one.path}: {one.key}"
        + (f" = {one.value}" if one.value else "")
        + "".join(f"; {name}: {text}" for name, text in one.fields.items())
        for one in loaded.problems
    ]


@cache
def _packs() -> dict[str, Pack]:
    return load_packs()


async def _closing(readings: AsyncIterator[Reading]) -> AsyncIterator[Reading]:
    try:
        async for reading in readings:
            yield reading
    finally:
        close = getattr(readings, "aclose", None)
        if close is not None:
            await close()


def _plain(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else value


_: type[DriverContext] = Bench
