"""What systemd tells a service by its environment, and what the service says back (sd_notify)."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Final

from protocol.program.messages import plain

#: What systemd sets; a program takes them out, so that no child ever speaks for the service.
NAMES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
_STATE_CHARS_MAX: Final = 500


def address(told: Mapping[str, str]) -> str:
    """The datagram socket that listens, abstract ones with their zero; empty if there is none."""
    name = told.get("NOTIFY_SOCKET", "")
    return "\0" + name[1:] if name.startswith("@") else name


def watchdog_s(told: Mapping[str, str], pid: int) -> float | None:
    """The watchdog's patience in seconds if systemd set one for this process."""
    try:
        micro = int(told.get("WATCHDOG_USEC", ""))
        meant = int(told.get("WATCHDOG_PID") or pid)
    except ValueError:
        return None
    return micro / 1e6 if micro > 0 and meant == pid else None


def datagram(states: Mapping[str, str | int]) -> bytes:
    """States as `KEY=value` lines; no value makes a line of its own."""
    lines = (f"{key}={plain(value)[:_STATE_CHARS_MAX]}" for key, value in states.items())
    return "\n".join(lines).encode()


class Service(ABC):
    """What a service says of itself; the shells know where to."""

    @abstractmethod
    def send(self, **states: str | int) -> None:
        """Send states in one datagram; one that nobody takes is not worth a failure."""

    def ready(self, status: str) -> None:
        """The service does its work from here on; status: for `systemctl status`."""
        self.send(READY=1, STATUS=status)

    def reloading(self, now_us: int) -> None:
        """Settings are read again; systemd wants the monotonic time with it, and READY after."""
        self.send(RELOADING=1, MONOTONIC_USEC=now_us)

    def alive(self) -> None:
        """Feed the watchdog; called only after progress was seen."""
        self.send(WATCHDOG=1)

    def stopping(self) -> None:
        """SIGTERM was understood."""
        self.send(STOPPING=1)
