"""The service manager's ear: `sd_notify` without a library.

systemd gives a datagram socket in NOTIFY_SOCKET (`Type=notify`); READY, STOPPING, RELOADING and
WATCHDOG go there. Nothing happens where there is none.
"""

import os
import socket
import time


def notify(*states: str) -> bool:
    """Send states such as `READY=1`; True if somebody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as ear:
        try:
            ear.connect(address)
            ear.sendall("\n".join(states).encode())
        except OSError:
            return False
    return True


def reloading() -> bool:
    """Say that settings are read again; systemd wants the monotonic time with it."""
    return notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def watchdog_interval_s() -> float | None:
    """Return how often the watchdog wants to be fed (half its limit), None where there is none."""
    limit = os.environ.get("WATCHDOG_USEC", "")
    wanted = os.environ.get("WATCHDOG_PID", "")
    if not limit.isdigit() or (wanted and wanted != str(os.getpid())):
        return None
    return int(limit) / 2_000_000
