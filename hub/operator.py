"""Commands of the operator to a running hub: a unix socket in the data folder, mode 0600.

One JSON object a connection: `{"command": …, "by": …}` in, `{"answer": …}` or `{"error": …}` out.
Who may open the socket may also read the keys beside it, so it asks for nothing else.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final

import msgspec

from hub.admin import Admin, Answer
from hub.commands import BackupMake, Command
from hub.faults import Exit, Fault
from hub.store.audit import Actor
from protocol.errors import Code, RefusedError, ShanmenError

log = logging.getLogger(__name__)

_BYTES_MAX: Final = 65_536
_ANSWER_BYTES_MAX: Final = 256 * 1024 * 1024  # a list of every agent of a province
_WAIT_S: Final = 60.0
_LONG_S: Final = 24 * 3600.0  # a backup copies every pack


class Ask(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What goes in."""

    command: Command
    by: str


class Tell(msgspec.Struct, frozen=True, kw_only=True):
    """What comes out; one of the two is there."""

    answer: Answer | None = None
    error: str = ""  #: key of a code
    field: str = ""
    value: str = ""
    expected: str = ""


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """Give a socket's path that fits the 107 bytes of the system, however deep the folder lies."""
    handle = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{handle}/{path.name}"
    finally:
        os.close(handle)


async def _serve_one(
    admin: Admin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    try:
        async with asyncio.timeout(_WAIT_S):
            line = await reader.readline()
        try:
            tell = await _do(admin, msgspec.json.decode(line, type=Ask))
        except msgspec.ValidationError as error:
            tell = Tell(error=Code.OUT_OF_BOUNDS.key, field="command", expected=str(error))
        writer.write(msgspec.json.encode(tell) + b"\n")
        async with asyncio.timeout(_WAIT_S):
            await writer.drain()
    except (TimeoutError, ValueError, ConnectionError, msgspec.MsgspecError) as error:
        log.warning("operator request not done", extra={"why": type(error).__name__})
    finally:
        writer.close()


async def _do(admin: Admin, asked: Ask) -> Tell:
    try:
        answer = await admin.do(asked.command, Actor(who=asked.by, source="console"))
    except ShanmenError as error:
        return Tell(
            error=error.code.key, field=error.field, value=error.value, expected=error.expected
        )
    except OSError as error:  # the folder of a backup
        return Tell(error=Code.DISK_FULL.key, field="folder", value=str(error.strerror))
    log.info("operator command done", extra={"command": type(asked.command).__name__})
    return Tell(answer=answer)


@asynccontextmanager
async def listening(admin: Admin, path: Path) -> AsyncIterator[None]:
    """Take commands on a socket at `path` while the block runs; the caller holds the lock."""
    path.unlink(missing_ok=True)  # noqa: ASYNC240  # one system call, before anything is served
    with _short(path) as short:
        before = os.umask(0o177)
        try:
            server = await asyncio.start_unix_server(
                lambda reader, writer: _serve_one(admin, reader, writer), short, limit=_BYTES_MAX
            )
        finally:
            os.umask(before)
        try:
            yield
        finally:
            server.close()
            await server.wait_closed()
            path.unlink(missing_ok=True)  # noqa: ASYNC240  # as above, after all is served


async def ask(path: Path, command: Command, by: str) -> Answer:
    """Let the running hub do a command. Raises RefusedError, Fault if it does not answer."""
    try:
        async with asyncio.timeout(_LONG_S if isinstance(command, BackupMake) else _WAIT_S):
            with _short(path) as short:
                reader, writer = await asyncio.open_unix_connection(short, limit=_ANSWER_BYTES_MAX)
            writer.write(msgspec.json.encode(Ask(command=command, by=by)) + b"\n")
            line = await reader.readline()
            writer.close()
            await writer.wait_closed()
            told = msgspec.json.decode(line, type=Tell)
    except (TimeoutError, OSError, ValueError, msgspec.MsgspecError) as error:
        raise Fault(Exit.UNAVAILABLE, "no-answer", socket=path) from error
    if told.answer is None:
        raise RefusedError(
            Code.from_key(told.error), field=told.field, value=told.value, expected=told.expected
        )
    return told.answer
