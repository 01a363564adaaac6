"""One open serial line, and every way in which there is none: the only file that knows pyserial.

Measured of pyserial 3.5 and pyserial-asyncio-fast 0.16, and relied upon (tests hold it): a pulled
plug arrives once, as `connection_lost` with a SerialException; `exclusive` is flock(2), so only
programs that ask for it, too, are kept out; settings that a port cannot do come as termios.error,
which is no OSError; a pseudo-terminal takes no parity. `abort` is used and not `close`, which waits
for output that a stopped reader may never take.
"""

import asyncio
import errno
import os
import random
import termios
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Protocol

from serial.tools import list_ports
from serial_asyncio_fast import SerialTransport, create_serial_connection

from devices.driver import DriverError
from devices.serial_line.source import Settings
from protocol.errors import Code

#: Bytes read and not yet taken at which reading pauses; the kernel and flow control hold the rest.
BUFFER_BYTES_MAX: Final = 4096
#: How often a missing port is looked for, in seconds; a third of it is jitter.
LOOK_EVERY_S: Final = 1.0
_CLOSE_S: Final = 5.0
_BY_ID: Final = "/dev/serial/by-id/"


class UsbPort(Protocol):
    """What is read of `serial.tools.list_ports`' entries."""

    device: str
    vid: int | None
    pid: int | None
    serial_number: str | None


class Line(asyncio.Protocol):
    """An open port. Use `open_line`; every wait has a bound or ends with the line."""

    def __init__(self, port: str) -> None:
        self._port = port
        self._loop = asyncio.get_running_loop()
        self._data = bytearray()
        self._arrived = asyncio.Event()
        self._lost: asyncio.Future[Exception | None] = self._loop.create_future()
        self._transport: SerialTransport | None = None
        self._is_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        assert isinstance(transport, SerialTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._data += data
        self._arrived.set()
        if len(self._data) >= BUFFER_BYTES_MAX and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._transport = None
        if not self._lost.done():
            self._lost.set_result(exc)
        self._arrived.set()

    @property
    def is_open(self) -> bool:
        """Whether something can still be sent."""
        return self._transport is not None and not self._transport.is_closing()

    async def read(self, wait_s: float) -> bytes:
        """What has arrived; empty if nothing did for `wait_s`. Raises DriverError when it is lost.

        What arrived before the loss is given first.
        """
        if not self._data and not self._lost.done():
            try:
                async with asyncio.timeout(wait_s):
                    await self._arrived.wait()
            except TimeoutError:
                pass  # looked at below: a busy loop may have been late, not the line quiet
        self._arrived.clear()
        data = bytes(self._data)
        self._data.clear()
        if not data and self._lost.done():
            raise trouble("port-lost", self._port, was_read=True)
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()
        return data

    def write(self, data: bytes) -> bool:
        """Send; False if the line is gone."""
        if self._transport is None or self._transport.is_closing():
            return False
        self._transport.write(data)
        return True

    async def close(self) -> None:
        """Close at once; what was not sent is not sent any more. Idempotent."""
        if self._transport is not None:
            self._transport.abort()
        try:
            async with asyncio.timeout(_CLOSE_S):
                await asyncio.shield(self._lost)
        except TimeoutError:
            pass  # a driver of the kernel hangs; its thread keeps the port, and opening says so


async def open_line(settings: Settings) -> Line:
    """Open a port for us alone. Raises DriverError that says why it cannot be."""
    port = settings.port
    loop = asyncio.get_running_loop()
    if port.startswith(_BY_ID):
        twins = await loop.run_in_executor(None, twins_of, port, None)
        if twins:
            raise trouble("port-ambiguous", port, ", ".join(twins))
    try:
        transport, line = await create_serial_connection(
            loop,
            lambda: Line(port),
            port,
            baudrate=settings.baud,
            bytesize=settings.bits,
            parity=settings.parity,
            stopbits=settings.stop_bits,
            xonxoff=settings.flow == "xonxoff",
            rtscts=settings.flow == "rtscts",
            dsrdtr=settings.flow == "dsrdtr",
            exclusive=True,
        )
    except (OSError, termios.error, ValueError) as error:
        raise trouble(_reason_of(error), port, str(error)[:80]) from error
    assert isinstance(line, Line)
    line.connection_made(transport)  # the library's own call comes a turn of the loop later
    try:
        _keep_dtr(transport)
    except (OSError, termios.error) as error:
        await line.close()
        raise trouble("port-lost", port) from error
    return line


def _keep_dtr(transport: SerialTransport) -> None:
    """Closing must not drop DTR: many readers restart then (R51)."""
    assert transport.serial is not None
    descriptor = transport.serial.fileno()
    settings = termios.tcgetattr(descriptor)
    settings[2] &= ~termios.HUPCL
    termios.tcsetattr(descriptor, termios.TCSANOW, settings)


def is_there(port: str) -> bool:
    """Whether the path exists: the plug is in. One stat(2)."""
    return Path(port).exists()


async def wait_for(port: str) -> None:
    """Wait until the plug is in again."""
    while not is_there(port):  # noqa: ASYNC110 - nothing of ours is told when a device appears
        await asyncio.sleep(LOOK_EVERY_S * (0.7 + 0.3 * random.random()))  # noqa: S311 - jitter


def trouble(reason: str, port: str, more: str = "", *, was_read: bool = False) -> DriverError:
    """A line that cannot be read now; `reason` is a message key under `probe.`."""
    return DriverError(Code.UNREACHABLE, field=reason, value=port, expected=more, was_read=was_read)


def _reason_of(error: Exception) -> str:
    """The key of what an attempt to open says."""
    number = getattr(error, "errno", None)
    if number is None:  # pyserial puts only the text of a termios.error into its own
        cause = error if isinstance(error, termios.error) else error.__context__
        number = cause.args[0] if isinstance(cause, termios.error) else None
    if number in {errno.ENOENT, errno.ENXIO, errno.ENODEV}:
        return "port-missing"
    if number in {errno.EACCES, errno.EPERM}:
        return "port-denied"
    if number in {errno.EBUSY, errno.EAGAIN}:
        return "port-busy"
    if number == errno.ENOTTY:
        return "port-not-serial"
    return "port-settings" if number in {errno.EINVAL, None} else "port-fails"


def twins_of(port: str, ports: Iterable[UsbPort] | None = None) -> list[str]:
    """Adapters that a by-id path cannot tell apart: same model, same or no serial number (R50)."""
    known = list(list_ports.comports() if ports is None else ports)
    own = next((one for one in known if one.device == os.path.realpath(port)), None)
    if own is None or own.vid is None:
        return []
    return sorted(
        one.device
        for one in known
        if one.device != own.device
        and (one.vid, one.pid, one.serial_number) == (own.vid, own.pid, own.serial_number)
    )
