"""A pseudo-terminal behind a stable path: the other end of a line, in the test's hands.

What it leaves out: speed, parity and noise of a real line; a pty takes no parity at all.
"""

import asyncio
import os
import tty
from pathlib import Path

from devices.checksums import check_of


class Plug:
    """`plug_in` makes a new pty behind the same path, `pull` takes it away, as udev does."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "usb-1a86_test-if00"
        self._master = self._slave = -1

    def plug_in(self) -> None:
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.path.unlink(missing_ok=True)
        self.path.symlink_to(os.ttyname(self._slave))

    def pull(self) -> None:
        if self._master >= 0:
            self.path.unlink(missing_ok=True)
            os.close(self._slave)
            os.close(self._master)
            self._master = self._slave = -1

    def send(self, data: bytes) -> None:
        os.write(self._master, data)

    def received(self) -> bytes:
        try:
            return os.read(self._master, 4096)
        except BlockingIOError:
            return b""

    async def answer(self, size: int) -> bytes:
        """The next `size` bytes that the driver sends."""
        found = b""
        async with asyncio.timeout(10):
            while len(found) < size:
                loop = asyncio.get_running_loop()
                ready = loop.create_future()
                loop.add_reader(self._master, ready.set_result, None)
                try:
                    await ready
                finally:
                    loop.remove_reader(self._master)
                found += self.received()
        return found


def check(number: int, ticket: str, second: int, **more: object) -> bytes:
    """One check as the gate of profile `gate` sends it."""
    told = {"direction": "I", "result": "pass", "persons": 1} | more
    parts = [number, f"2026-09-21T14:13:{second:02d}+08:00", ticket, *told.values()]
    body = "|".join(map(str, parts)).encode("gb18030") + b"\x03"
    return b"\x02" + body + bytes([check_of("xor", body)])
