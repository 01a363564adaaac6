"""The wires under the Modbus simulators: RTU frames on a pty, and MBAP frames over TCP.

Written from the standard (V1.1b3, serial line V1.02) and nothing of the driver's: two programs that
share their framing cannot find each other's mistakes.
"""

import asyncio
import os
import pty
import tty
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

#: Start bit, eight data bits, stop bit.
_BITS = 10
_REQUEST_BYTES = 8


class Power(Protocol):
    """What the wire knows of one unit."""

    think_s: float


class Units(Protocol):
    """Who answers on a wire."""

    @property
    def units(self) -> "Mapping[int, Power]":
        """Who hangs on the wire, by number."""

    def answer(self, unit: int, function: int, start: int, count: int) -> list[int] | int | None:
        """Registers or bits, a Modbus exception code, or None for silence."""

    def answered(self, unit: int) -> None:
        """The last byte of a good answer went out."""


def crc(data: bytes) -> bytes:
    """CRC-16 of a serial frame, low byte first."""
    value = 0xFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ 0xA001 if value & 1 else value >> 1
    return value.to_bytes(2, "little")


def pdu(function: int, found: list[int] | int) -> bytes:
    """The answer to a reading function: data, or an exception."""
    if isinstance(found, int):
        return bytes([function | 0x80, found])
    if function in {1, 2}:
        data = bytearray(-(-len(found) // 8))
        for at, bit in enumerate(found):
            data[at // 8] |= bit << at % 8
    else:
        data = bytearray(b"".join(one.to_bytes(2, "big") for one in found))
    return bytes([function, len(data)]) + data


class Bus:
    """One RS-485 line as a pty; use as a context. Its end is linked under `port`."""

    def __init__(self, port: Path, baud: int, units: Units) -> None:
        self._port = port
        self._byte_s = _BITS / baud
        self._units = units
        self._ours = self._theirs = -1
        self._buffer = b""
        self._task: asyncio.Task[None] | None = None
        self._arrived = asyncio.Event()
        self.requests: list[int] = []  # the unit of every request that was whole

    async def __aenter__(self) -> Self:
        self._ours, self._theirs = pty.openpty()
        tty.setraw(self._ours)
        tty.setraw(self._theirs)
        os.set_blocking(self._ours, False)
        self._port.unlink(missing_ok=True)
        self._port.symlink_to(os.ttyname(self._theirs))
        asyncio.get_running_loop().add_reader(self._ours, self._receive)
        self._task = asyncio.create_task(self._serve(), name=f"bus {self._port.name}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        asyncio.get_running_loop().remove_reader(self._ours)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self._port.unlink(missing_ok=True)
        os.close(self._ours)
        os.close(self._theirs)

    def noise(self, data: bytes) -> None:
        """Something on the line that nobody sent."""
        os.write(self._ours, data)

    def _receive(self) -> None:
        self._buffer += os.read(self._ours, 1024)
        self._arrived.set()

    async def _serve(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while (frame := self._frame()) is not None:
                await self._answer(frame)

    def _frame(self) -> bytes | None:
        """The next whole request; bytes before it that are none are skipped, as units do."""
        while len(self._buffer) >= _REQUEST_BYTES:
            frame = self._buffer[:_REQUEST_BYTES]
            if crc(frame[:-2]) == frame[-2:]:
                self._buffer = self._buffer[_REQUEST_BYTES:]
                return frame
            self._buffer = self._buffer[1:]
        return None

    async def _answer(self, frame: bytes) -> None:
        unit, function = frame[0], frame[1]
        start, count = int.from_bytes(frame[2:4], "big"), int.from_bytes(frame[4:6], "big")
        self.requests.append(unit)
        power = self._units.units.get(unit)
        if unit == 0 or power is None:
            return
        # The request itself takes its time on the line, then the end of the frame, then the unit.
        await asyncio.sleep((_REQUEST_BYTES + 3.5) * self._byte_s + power.think_s)
        found = self._units.answer(unit, function, start, count)
        if found is None:
            return
        answer = bytes([unit]) + pdu(function, found)
        answer += crc(answer)
        for at in range(0, len(answer), 16):
            chunk = answer[at : at + 16]
            await asyncio.sleep(len(chunk) * self._byte_s)
            os.write(self._ours, chunk)
        if not isinstance(found, int):
            self._units.answered(unit)


class TcpUnit:
    """The counter with number 0 as a unit of its own over TCP; use as a context."""

    def __init__(self, port: int, units: Units) -> None:
        self._port = port
        self._units = units
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._open.values():
            writer.close()
        if self._open:
            await asyncio.wait(self._open)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = writer
        try:
            while True:
                header = await reader.readexactly(7)
                request = await reader.readexactly(int.from_bytes(header[4:6], "big") - 1)
                start, count = (int.from_bytes(request[at : at + 2], "big") for at in (1, 3))
                found = self._units.answer(0, request[0], start, count)
                if found is None:
                    continue
                body = pdu(request[0], found)
                length = (len(body) + 1).to_bytes(2, "big")
                writer.write(header[:4] + length + header[6:7] + body)
                await writer.drain()
                if not isinstance(found, int):
                    self._units.answered(0)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            del self._open[task]
            writer.close()
