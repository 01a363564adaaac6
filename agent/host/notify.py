"""Tell systemd how the service is (`protocol.program.systemd`), without a library."""

import os
import socket
from collections.abc import MutableMapping

from protocol.program import systemd


class Notifier(systemd.Service):
    """Sends states to the socket that systemd names; does nothing when there is none."""

    def __init__(self, env: MutableMapping[str, str] | None = None) -> None:
        environment = os.environ if env is None else env
        told = {name: environment.pop(name, "") for name in systemd.NAMES}
        self._address = systemd.address(told)
        self.watchdog_s = systemd.watchdog_s(told, os.getpid())
        self._socket: socket.socket | None = None

    def send(self, **states: str | int) -> None:
        """Send `KEY=value` lines; a socket that is gone or full is not worth a failure."""
        if not self._address:
            return
        try:
            if self._socket is None:
                kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
                self._socket = socket.socket(socket.AF_UNIX, kind)
                self._socket.setblocking(False)
            self._socket.sendto(systemd.datagram(states), self._address)
        except OSError:
            self.close()

    def close(self) -> None:
        """Let go of the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
