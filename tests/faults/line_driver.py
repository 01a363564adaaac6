"""A driver for a device of the harness's own, as a plug-in author would write one.

The device connects to a port of the gateway, sends JSON lines and waits for `ok <key>` lines:

    {"key": "A17", "at": µs, "gate": "E1", "nth": 3}     a ticket check with an id: class A, sealed
    {"key": "D9", "at": µs, "total": 41}                 a cumulative total: class D, open
    {"key": "E5", "at": µs, "n": 5}                      row 5 of a numbered table: class E, sealed
    {"key": "J1", "at": µs, "pad": 60000}                a record that no pack takes: quarantine

After connecting it is told `from <n>`: the first row of class E that is not committed here.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from devices.driver import (
    DriverContext,
    DriverError,
    Promise,
    Reading,
    Rows,
    Watermark,
)
from devices.loader import DriverPlan, Request, ResourceUse
from protocol.errors import Code
from protocol.records import Record

CHECKS, PASSAGES, TABLE = "line-checks", "line-passages", "line-table"
PACKS = {CHECKS: "ticket.check", PASSAGES: "visitor.passage", TABLE: "parking.passage"}
PENDING_MAX = 500


@dataclass(frozen=True)
class LineConfig:
    """Where the device finds its driver."""

    port: int


class LineDriver:
    """Serves one device; keeps its source waiting until the agent calls `ack`."""

    promise = Promise.E

    def __init__(self, config: LineConfig, context: DriverContext) -> None:
        self._config = config
        self._context = context
        self._queue: asyncio.Queue[Reading] = asyncio.Queue(PENDING_MAX)
        total = context.watermark("total")
        self._total = int(total) if total else 0
        row = context.watermark("row")
        self._row = int(row) if row else 0
        self._open: set[asyncio.StreamWriter] = set()
        #: Not committed yet: who is to be told when it is. A device that comes back asks again.
        self._waiting: dict[str, list[Callable[[], None]]] = {}

    async def run(self) -> AsyncIterator[Reading]:
        try:
            server = await asyncio.start_server(self._serve, "127.0.0.1", self._config.port)
        except OSError as error:
            raise DriverError(Code.BUSY, field="port", value=self._config.port) from error
        try:
            while True:
                yield await self._queue.get()
        finally:
            server.close()
            for writer in list(self._open):
                writer.close()  # a device must not talk to an instance that nobody reads

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"from {self._row + 1}\n".encode())
        self._open.add(writer)
        try:
            while line := await reader.readline():
                message = json.loads(line)

                def ack(key: str = message["key"]) -> None:
                    if not writer.is_closing():
                        writer.write(f"ok {key}\n".encode())

                await self._take(message, ack)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()

    async def _take(self, message: Mapping[str, Any], ack: Callable[[], None]) -> None:
        key = message["key"]
        if key in self._waiting:
            self._waiting[key].append(ack)
            return

        def committed() -> None:
            for tell in self._waiting.pop(key):
                tell()

        reading = self._reading(message, committed)
        if reading is None:
            ack()
        else:
            self._waiting[key] = [ack]
            await self._queue.put(reading)

    def _reading(self, message: Mapping[str, Any], ack: Callable[[], None]) -> Reading | None:
        at, key = message["at"], message["key"]
        if key[0] == "A":
            values = {
                "ticket_ref": key.encode(),
                "gate_no": message["gate"],
                "nth_check": message["nth"],
            }
            record = Record(event_time_us=at, device="line-gate", values=values)
            return Reading(
                rows=[Rows(resource=CHECKS, records=[record])],
                identity=key.encode(),
                promise=Promise.A,
                ack=ack,
            )
        if key[0] == "J":
            values = {"lane": "x" * message["pad"], "direction": "in"}
            record = Record(event_time_us=at, device="line-table", values=values)
            rows = [Rows(resource=TABLE, records=[record])]
            return Reading(rows=rows, identity=key.encode(), promise=Promise.A, ack=ack)
        if key[0] == "D":
            return self._increment(at, message["total"], ack)
        return self._row_of(at, message["n"], ack)

    def _increment(self, at: int, total: int, ack: Callable[[], None]) -> Reading | None:
        if total <= self._total:
            return None
        step, self._total = total - self._total, total
        values = {"in_count": step, "out_count": 0, "window_s": 0}
        record = Record(event_time_us=at, device="line-counter", values=values)
        return Reading(
            rows=[Rows(resource=PASSAGES, records=[record])],
            watermarks=[Watermark(source="total", value=str(total).encode())],
            promise=Promise.D,
            ack=ack,
        )

    def _row_of(self, at: int, n: int, ack: Callable[[], None]) -> Reading | None:
        if n <= self._row:
            return None
        self._row = n
        values = {"lane": f"row-{n}", "direction": "in"}
        record = Record(event_time_us=at, device="line-table", values=values)
        return Reading(
            rows=[Rows(resource=TABLE, records=[record])],
            watermarks=[Watermark(source="row", value=str(n).encode())],
            promise=Promise.E,
            ack=ack,
        )


class LinePlugin:
    """What the entry point names."""

    prefix = "line/"
    tables: tuple[str, ...] = ()

    def __call__(
        self, devices: list[tuple[str, Mapping[str, Any]]], request: Request
    ) -> Iterable[DriverPlan]:
        for path, table in devices:
            config = LineConfig(port=int(table["port"]))
            uses = {
                name: ResourceUse(name, pack, (str(table["id"]),), Promise.E)
                for name, pack in PACKS.items()
            }
            yield DriverPlan(
                name=f"line/{path}",
                make=lambda context, config=config: LineDriver(config, context),
                config=config,
                devices=("line-gate", "line-counter", "line-table"),
                resources=uses,
            )


PLUGIN = LinePlugin()
