"""The socket of `shanmen-agent watch`: a wish in, then a line of JSON for each record committed.

A unix socket in the data folder, mode 0600. Who may open it may read the keys beside it as well;
that somebody watches is logged all the same, with the user and whether personal values were asked.
"""

import asyncio
import logging
import socket
import struct
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final

import msgspec

from agent.commands.status import listener_at, short_path
from agent.host.faults import Exit, Fault
from agent.intake.tap import WATCHERS_MAX, Refusal, Shown, Tap, Watcher, Wish

_LOG: Final = logging.getLogger(__name__)

SOCKET: Final = "watch.sock"
LINE_BYTES_MAX: Final = 1 << 20  # of one record as JSON
_WISH_BYTES_MAX: Final = 65_536
_TIMEOUT_S: Final = 5.0  # for the wish, and for a terminal that takes nothing
_AT_ONCE: Final = 100  # lines of one write


class TapServer:
    """Shows commits to who connects."""

    def __init__(self, folder: Path, tap: Tap) -> None:
        self._path = folder / SOCKET
        self._tap = tap
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen; the caller holds the folder's lock, so an old socket is nobody's."""
        self._server = await asyncio.start_unix_server(
            self._met, sock=listener_at(self._path), limit=_WISH_BYTES_MAX
        )

    async def stop(self) -> None:
        """Leave everybody, close, and remove the socket."""
        if self._server is not None:
            self._server.close()
            self._server = None
        serving = tuple(self._serving)
        for task in serving:
            task.cancel()
        if serving:
            await asyncio.wait(serving)
        self._path.unlink(missing_ok=True)

    def _met(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer), name="tap")
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if len(self._serving) > WATCHERS_MAX:
                await _write(writer, [Refusal(why="busy")])
                return
            try:
                async with asyncio.timeout(_TIMEOUT_S):
                    wish = msgspec.json.decode(await reader.readline(), type=Wish)
            except (ValueError, msgspec.MsgspecError):  # a line that is too long is a ValueError
                await _write(writer, [Refusal(why="wish")])
                return
            _LOG.info("watched", extra={"user": _user(writer), "personal": wish.personal})
            await self._show(Watcher(wish), reader, writer)
        except (TimeoutError, OSError):
            pass  # whoever watched is gone, or does not read
        finally:
            writer.close()

    async def _show(
        self, watcher: Watcher, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Write what is committed until the other end hangs up; it says nothing more itself."""
        gone = asyncio.ensure_future(reader.read(1))
        self._tap.watchers.append(watcher)
        try:
            await _write(writer, [])
            while not gone.done():
                first = asyncio.ensure_future(watcher.waiting.get())
                await asyncio.wait((first, gone), return_when=asyncio.FIRST_COMPLETED)
                if not first.done():
                    first.cancel()
                    continue
                lines = [first.result()]
                while len(lines) < _AT_ONCE and not watcher.waiting.empty():
                    lines.append(watcher.waiting.get_nowait())
                await _write(writer, lines)
        finally:
            self._tap.watchers.remove(watcher)
            gone.cancel()
            if gone.done() and not gone.cancelled():
                gone.exception()  # a connection that was reset is one that is gone


async def _write(writer: asyncio.StreamWriter, lines: list[Shown] | list[Refusal]) -> None:
    """Write lines; none is an empty line, which says that what follows is shown."""
    writer.write(b"".join(msgspec.json.encode(one) + b"\n" for one in lines) or b"\n")
    async with asyncio.timeout(_TIMEOUT_S):
        await writer.drain()


def _user(writer: asyncio.StreamWriter) -> int:
    """The user id at the other end, as the kernel knows it."""
    peer = writer.get_extra_info("socket")
    raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", raw)[1])


async def watch(folder: Path, wish: Wish) -> AsyncGenerator[Shown | None, None]:
    """Show what the agent that runs on a data folder commits; None first: it does from now on.

    Ends with Fault when the agent ends; raises Fault as well if none runs, too many watch, or the
    agent cannot read the wish.
    """
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            with short_path(folder / SOCKET) as address:
                reader, writer = await asyncio.open_unix_connection(address, limit=LINE_BYTES_MAX)
            writer.write(msgspec.json.encode(wish) + b"\n")
            await writer.drain()
            first = await reader.readline()
    except (OSError, TimeoutError) as error:
        raise Fault(Exit.IN_USE, "not-running", folder=folder) from error
    try:
        if first != b"\n":
            raise _refused(first, folder)
        yield None
        while line := await reader.readline():
            yield msgspec.json.decode(line, type=Shown)
    except OSError:
        pass  # the agent was killed
    finally:
        writer.close()
    raise Fault(Exit.IN_USE, "watch-ended", folder=folder)


def _refused(first: bytes, folder: Path) -> Fault:
    """What a first line means that is not empty: nothing is shown."""
    if not first.endswith(b"\n"):  # the agent ended between the wish and its answer
        return Fault(Exit.IN_USE, "watch-ended", folder=folder)
    if msgspec.json.decode(first, type=Refusal).why == "busy":
        return Fault(Exit.IN_USE, "watch-busy", most=WATCHERS_MAX)
    return Fault(Exit.IN_USE, "watch-wish")
