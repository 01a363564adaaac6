"""Tell systemd how the service is (sd_notify), without a library: one datagram a state."""

import os
import socket
import time
from collections.abc import MutableMapping

from program.messages import plain


class Notifier:
    """Sends states to the socket that systemd names; does nothing when there is none."""

    def __init__(self, env: MutableMapping[str, str] | None = None) -> None:
        environment = os.environ if env is None else env
        # Removed so that no child ever speaks for the service.
        address = environment.pop("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_s = _watchdog_s(environment)
        self._socket: socket.socket | None = None

    def send(self, **states: str | int) -> None:
        """Send `KEY=value` lines; a socket that is gone or full is not worth a failure."""
        if not self._address:
            return
        lines = "\n".join(f"{key}={plain(value)[:500]}" for key, value in states.items())
        try:
            if self._socket is None:
                kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
                self._socket = socket.socket(socket.AF_UNIX, kind)
                self._socket.setblocking(False)
            self._socket.sendto(lines.encode(), self._address)
        except OSError:
            self.close()

    def ready(self, status: str) -> None:
        """The service does its work from here on."""
        self.send(READY=1, STATUS=status)

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self.send(STATUS=text)

    def stopping(self) -> None:
        """SIGTERM was understood."""
        self.send(STOPPING=1)

    def reloading(self) -> None:
        """Settings are read again; systemd wants the monotonic time with it, and READY after."""
        self.send(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000)

    def alive(self) -> None:
        """Feed the watchdog; called only after progress was seen."""
        self.send(WATCHDOG=1)

    def close(self) -> None:
        """Let go of the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _watchdog_s(env: MutableMapping[str, str]) -> float | None:
    """The watchdog's patience in seconds if systemd set one for this process."""
    try:
        micro = int(env.pop("WATCHDOG_USEC", ""))
        pid = int(env.pop("WATCHDOG_PID", str(os.getpid())))
    except ValueError:
        return None
    return micro / 1e6 if micro > 0 and pid == os.getpid() else None
