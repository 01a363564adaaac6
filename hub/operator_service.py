"""Doing an operator's command that came by the socket of `hub.operator`."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from hub.admin import Admin
from hub.operator import BYTES_MAX, WAIT_S, Ask, Tell, short_path
from hub.store.audit import Actor
from protocol.errors import Code, ShanmenError

log = logging.getLogger(__name__)


async def _serve_one(
    admin: Admin, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    try:
        async with asyncio.timeout(WAIT_S):
            line = await reader.readline()
        try:
            tell = await _do(admin, msgspec.json.decode(line, type=Ask))
        except msgspec.ValidationError as error:
            tell = Tell(error=Code.OUT_OF_BOUNDS.key, field="command", expected=str(error))
        writer.write(msgspec.json.encode(tell) + b"\n")
        async with asyncio.timeout(WAIT_S):
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
    with short_path(path) as short:
        before = os.umask(0o177)
        try:
            server = await asyncio.start_unix_server(
                lambda reader, writer: _serve_one(admin, reader, writer), short, limit=BYTES_MAX
            )
        finally:
            os.umask(before)
        try:
            yield
        finally:
            server.close()
            await server.wait_closed()
            path.unlink(missing_ok=True)  # noqa: ASYNC240  # as above, after all is served
