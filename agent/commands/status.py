"""`status`: the running agent tells how it does, over a unix socket in its data folder.

The socket is the lock of the data folder as well: who can connect to it finds the agent that holds
it. One connection, one JSON object, closed. Nothing is read from the spool's file by others.
"""

import asyncio
import contextlib
import fcntl
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from agent.host.faults import Exit, Fault, reason_of
from agent.host.messages import Messages
from protocol.times import show_time

SOCKET: Final = "status.sock"
LOCK: Final = "lock"
ANSWER_BYTES_MAX: Final = 4 << 20
_TIMEOUT_S: Final = 5.0
_CONNECTIONS_MAX: Final = 8


class FolderLock:
    """Holds the data folder: two agents on one spool would fork its streams."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / LOCK
        self._descriptor = -1

    def take(self) -> None:
        """Take the lock or raise Fault IN_USE; the kernel lets go of it if the process dies."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise Fault(
                Exit.IN_USE, "in-use", folder=self._path.parent, process=holder or "?"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Let go."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class StatusServer:
    """Answers every connection with one snapshot."""

    def __init__(self, folder: Path, snapshot: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        self._folder = folder
        self._snapshot = snapshot
        self._server: asyncio.Server | None = None
        self._open = 0

    async def start(self) -> None:
        """Listen; the caller holds the folder's lock, so an old socket is nobody's."""
        listener = listener_at(self._folder / SOCKET)
        self._server = await asyncio.start_unix_server(self._answer, sock=listener)

    async def stop(self) -> None:
        """Close and remove the socket."""
        if self._server is not None:
            self._server.close()
            self._server = None
        (self._folder / SOCKET).unlink(missing_ok=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del reader  # nothing that is sent to it means anything
        self._open += 1
        try:
            if self._open <= _CONNECTIONS_MAX:
                async with asyncio.timeout(_TIMEOUT_S):
                    writer.write(msgspec.json.encode(await self._snapshot()))
                    await writer.drain()
        except (TimeoutError, OSError):
            pass  # whoever asked is gone or does not read
        finally:
            self._open -= 1
            writer.close()


def listener_at(path: Path) -> socket.socket:
    """A socket of ours alone in the data folder, whose lock the caller holds; bound, not served."""
    path.unlink(missing_ok=True)
    with short_path(path) as address:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        listener.bind(address)
    path.chmod(0o600)
    listener.setblocking(False)
    return listener


@contextlib.contextmanager
def short_path(path: Path) -> Iterator[str]:
    """A socket's address; the kernel allows 107 characters, a data folder may have more."""
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{path.name}"
    finally:
        os.close(descriptor)


async def ask(folder: Path) -> dict[str, Any]:
    """Ask the agent that runs on a data folder. Raises Fault if none does."""
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            with short_path(folder / SOCKET) as address:
                reader, writer = await asyncio.open_unix_connection(address)
            raw = await reader.read(ANSWER_BYTES_MAX)
            while piece := await reader.read(ANSWER_BYTES_MAX):
                raw += piece
            writer.close()
    except (OSError, TimeoutError) as error:
        raise Fault(Exit.IN_USE, "not-running", folder=folder) from error
    snapshot: dict[str, Any] = msgspec.json.decode(raw)
    return snapshot


def lines(snapshot: dict[str, Any], say: Messages) -> list[str]:
    """The snapshot for a person, most urgent first."""
    out = [say("status.head", name=snapshot["name"], state=say(f"state.{snapshot['state']}"))]
    out += [say("status.alarm", text=alarm_text(alarm, say)) for alarm in snapshot["alarms"]]
    hub, clock, spool = snapshot["hub"], snapshot["clock"], snapshot["spool"]
    out.append(say("status.hub", url=hub["url"], link=say(f"link.{hub['link']}")))
    if hub["last_receipt_us"]:
        out.append(say("status.receipt", time=show_time(hub["last_receipt_us"])))
    out.append(say("status.owner", owner=snapshot["owner"] or say("status.nobody")))
    out.append(say("status.clock", source=say(f"clock.{clock['source']}"), **_ms(clock)))
    out.append(say("status.spool", **spool))
    out += [say("status.resource", **one) for one in snapshot["resources"]]
    for name, grade in snapshot["grades_kept"].items():
        out.append(say("config.grade-kept", name=name, grade=grade))
    out += [_driver_line(driver, say) for driver in snapshot["drivers"]]
    out += [_device_line(device, say) for device in snapshot["devices"]]
    return out


def _driver_line(driver: dict[str, Any], say: Messages) -> str:
    return say(
        "status.driver",
        name=driver["name"],
        promise=driver["promise"],
        meaning=say(f"promise.{driver['promise']}"),
        state=say("driver.running" if driver["running"] else "driver.waiting"),
        error=driver["last_error"],
    ).rstrip()


def _device_line(device: dict[str, Any], say: Messages) -> str:
    seen = device["last_seen_us"]
    state = say(f"device.{device['state']}")
    if why := _why(device["detail"], say):
        state = say("device.why", state=state, why=why)
    return say(
        "status.device",
        name=device["name"],
        state=state,
        seen=show_time(seen) if seen else "–",
        messages=device["counters"].get("messages", 0),
    )


def _why(detail: str, say: Messages) -> str:
    """Why a device is as it is: a reason, or `reason: port` with what to do about the port."""
    reason, _, port = detail.partition(": ")
    found = [f"reject.{reason}"] if say.has(f"reject.{reason}") else []
    found += [f"probe.{reason}", f"probe.{reason}.remedy"] if port else []
    about = {"port": port}
    return "; ".join(say(key, **about) for key in found if say.fits(key, about))


def alarm_text(alarm: dict[str, Any], say: Messages) -> str:
    """One alarm in words."""
    since = show_time(alarm["since_us"])
    fields = dict(alarm["fields"])
    code = str(fields.get("reason", "")).partition(":")[0]  # `code: at field, expected …`
    if say.has(f"code.{code}"):
        fields["reason"] = reason_of({"code": code, "reason": fields["reason"]}, say)
    return say(f"alarm.{alarm['key']}", since=since, **fields)


def _ms(clock: dict[str, Any]) -> dict[str, str]:
    return {
        "offset": f"{clock['offset_us'] / 1000:.0f}",
        "error": f"{clock['error_us'] / 1000:.0f}",
    }
