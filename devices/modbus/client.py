"""The one place that wraps pymodbus: one connection, one request at a time, no surprises.

Its client is used without its retries, its reconnecting and its time-out, because each of them
belongs to the line and not to a unit: 3 s × (3 + 1) tries for a dead unit are 12 s of everybody's
time, and after three of those a TCP connection is closed. What is relied upon of its internals
stands here, and the version is pinned exactly:

- `ctx.callback_data` gets what arrived; an exception in it would end a TCP connection, so noise
  that no PDU can be made of is counted and thrown away;
- a cancelled request leaves the client usable, and what arrives later for it is ignored;
- an RTU answer names its unit and nothing else, so a late one could be taken for the answer of the
  next request to the same unit (R18): its length is compared, and a line on which an answer is
  missing is listened to until it is silent.
"""

import asyncio
import fcntl
import logging
import os
import termios
from types import TracebackType
from typing import Final, Self

from pymodbus import FramerType, ModbusException
from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient, ModbusBaseClient
from pymodbus.pdu import ModbusPDU

from devices.driver import DriverError
from devices.modbus.plan import Block
from devices.modbus.registers import Area
from devices.modbus.source import LineSource
from protocol.errors import Code

#: After its time-out a request may use what has arrived but was not looked at: a stalled loop.
_GRACE_S: Final = 0.005
#: Longest time that a line is listened to after a missing answer, in seconds.
_QUIET_MAX_S: Final = 0.25
#: An answer that began may pause for so long: USB adapters hand on what they have every 16 ms.
_CHUNK_S: Final = 0.05
#: Unit, function, address, count, CRC.
_REQUEST_BYTES: Final = 8
#: Bits on the wire for one byte: start, eight, stop; parity or a second stop bit is the eleventh.
_BITS: Final = 11


class NoAnswerError(Exception):
    """The unit did not answer in time. `heard`: bytes came that are no answer: garbled."""

    def __init__(self, *, heard: bool) -> None:
        super().__init__("garbled" if heard else "silent")
        self.heard = heard


class RefusedError(Exception):
    """The unit answered with a Modbus exception."""

    def __init__(self, code: int) -> None:
        super().__init__(str(code))
        self.code = code


class Line:
    """One connection. Use as a context; raises DriverError when it cannot be, or is lost."""

    def __init__(self, source: LineSource) -> None:
        self.source = source
        self._client: ModbusBaseClient | None = None
        self._byte_s = _BITS / source.baud if source.baud else 0.0
        self._heard = 0  # bytes since the last request
        self._active_s = 0.0  # loop time of the last byte in either direction
        self._first_s = 0.0  # of the answer's first byte

    async def __aenter__(self) -> Self:
        # It writes a line and the last 20 frames for each unanswered request.
        logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)
        source = self.source
        client = self._make()
        problem, is_open = "", False
        try:
            async with asyncio.timeout(source.connect_timeout_us / 1e6):
                is_open = await client.connect()
        except TimeoutError:
            problem = "no answer"
        except (OSError, ValueError, termios.error) as error:
            problem = str(error)
        finally:
            if not is_open:
                client.close()
        if not is_open:
            problem = problem or (port_problem(source.port) if source.port else None) or ""
            raise DriverError(Code.UNREACHABLE, field="port", value=source.place, expected=problem)
        self._guard(client)
        self._client = client
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    async def read(self, unit: int, block: Block, timeout_us: int) -> tuple[list[int], int]:
        """Ask one unit for one block: its words or bits, and how long it thought in µs.

        timeout_us: until its answer begins; transmission is added.
        Raises NoAnswerError, RefusedError; DriverError when the line is gone.
        """
        client = self._client
        assert client is not None, "use the line as a context"
        loop = asyncio.get_running_loop()
        await self._silence()
        self._heard = 0
        began_s = self._active_s = self._first_s = loop.time()
        asking = asyncio.ensure_future(_ask(client, unit, block))
        try:
            await self._wait(asking, timeout_us / 1e6, block)
        finally:
            if not asking.done():
                asking.cancel()
                await asyncio.wait({asking})
        if asking.cancelled():
            return await self._unanswered(client)
        try:
            answer = asking.result()
        except (ModbusException, OSError) as error:
            if not client.connected:
                raise self._lost() from error
            return await self._unanswered(client)
        thought_us = int((self._first_s - began_s - _REQUEST_BYTES * self._byte_s) * 1e6)
        if answer.isError():
            raise RefusedError(answer.exception_code)
        values = [int(one) for one in (answer.bits if block.area.is_bits else answer.registers)]
        wanted = -(-block.count // 8) * 8 if block.area.is_bits else block.count
        if len(values) != wanted or answer.function_code != block.area.value:
            # The answer of a request before: nothing of this poll can be believed.
            return await self._unanswered(client)
        return values[: block.count], max(0, thought_us)

    async def _wait(
        self, asking: "asyncio.Future[ModbusPDU]", limit_s: float, block: Block
    ) -> None:
        """Wait for the answer to begin, and while it comes, until it must be over."""
        rest_s = block.answer_bytes * self._byte_s
        for wait_s in (_REQUEST_BYTES * self._byte_s + limit_s, _GRACE_S):
            if (await asyncio.wait({asking}, timeout=wait_s))[0]:
                return
        if self._heard:
            await asyncio.wait({asking}, timeout=rest_s + _CHUNK_S)

    async def _unanswered(self, client: ModbusBaseClient) -> tuple[list[int], int]:
        """Let the line fall silent, then say that there was no answer."""
        if not client.connected:
            raise self._lost()
        heard = bool(self._heard)
        if heard and not self.source.host:
            loop = asyncio.get_running_loop()
            until_s = loop.time() + _QUIET_MAX_S
            # Silence is what does not come: there is no event for it.
            while loop.time() < until_s and self._pause_s() > 0:  # noqa: ASYNC110
                await asyncio.sleep(self._pause_s())
        raise NoAnswerError(heard=heard)

    async def _silence(self) -> None:
        """Leave the line silent for the turn-around: units listen for it to find the frame."""
        pause_s = self._pause_s()
        if pause_s > 0:
            await asyncio.sleep(pause_s)

    def _pause_s(self) -> float:
        # 3.5 characters end a frame; slower units and adapters want more.
        least_s = max(self.source.turnaround_us / 1e6, 3.5 * self._byte_s)
        return self._active_s + least_s - asyncio.get_running_loop().time()

    def _lost(self) -> DriverError:
        return DriverError(Code.UNREACHABLE, field="port", value=self.source.place)

    def _make(self) -> ModbusBaseClient:
        source = self.source
        # Longer than any time-out of ours: pymodbus' own must never be first.
        timeout_s = 60 + source.limits.timeout_us / 1e6
        if source.host:
            framer = FramerType.RTU if source.framer == "rtu" else FramerType.SOCKET
            return AsyncModbusTcpClient(
                source.host,
                port=source.tcp_port,
                framer=framer,
                timeout=timeout_s,
                retries=0,
                reconnect_delay=0,
                trace_packet=self._trace,
            )
        return AsyncModbusSerialClient(
            source.port,
            baudrate=source.baud,
            parity=source.format[1],
            stopbits=int(source.format[2]),
            handle_local_echo=source.echo,
            timeout=timeout_s,
            retries=0,
            reconnect_delay=0,
            trace_packet=self._trace,
        )

    def _trace(self, sending: bool, data: bytes) -> bytes:  # noqa: FBT001 — pymodbus' signature
        self._active_s = asyncio.get_running_loop().time()
        if sending:
            self._active_s += len(data) * self._byte_s
        else:
            if not self._heard:
                self._first_s = self._active_s
            self._heard += len(data)
        return data

    @staticmethod
    def _guard(client: ModbusBaseClient) -> None:
        inner = client.ctx.callback_data

        def guarded(data: bytes, addr: tuple[str, int] | None = None) -> int:
            try:
                return inner(data, addr)
            except (ModbusException, ValueError, IndexError):
                return len(data)

        client.ctx.callback_data = guarded  # type: ignore[method-assign]


async def _ask(client: ModbusBaseClient, unit: int, block: Block) -> ModbusPDU:
    ask = {
        Area.COIL: client.read_coils,
        Area.DISCRETE: client.read_discrete_inputs,
        Area.HOLDING: client.read_holding_registers,
        Area.INPUT: client.read_input_registers,
    }[block.area]
    return await ask(block.start.at, count=block.count, device_id=unit)


def port_problem(path: str) -> str | None:
    """Why a serial port cannot be opened: a key under `probe.`; None if nothing is to be seen."""
    try:
        port = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    except PermissionError:
        return "line-permission"
    except OSError:
        return "line-missing"
    try:
        # As pyserial does it: whoever has the port open holds this lock.
        fcntl.flock(port, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return "line-busy"
    finally:
        os.close(port)
    return None
