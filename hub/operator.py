"""Asking a running hub to do an operator's command: a unix socket in its data folder, mode 0600.

One JSON object a connection: `{"command": …, "by": …}` in, `{"answer": …}` or `{"error": …}` out.
Who may open the socket may also read the keys beside it, so it asks for nothing else. The other end
is `hub.operator_service`, apart so that a command does not load the whole hub to ask it.
"""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from hub.commands import Answer, BackupMake, Command
from hub.faults import Exit, Fault
from protocol.errors import Code, RefusedError

BYTES_MAX: Final = 65_536  #: of a command
_ANSWER_BYTES_MAX: Final = 256 * 1024 * 1024  # a list of every agent of a province
WAIT_S: Final = 60.0
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
def short_path(path: Path) -> Iterator[str]:
    """Give a socket's path that fits the 107 bytes of the system, however deep the folder lies."""
    handle = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{handle}/{path.name}"
    finally:
        os.close(handle)


async def ask(path: Path, command: Command, by: str) -> Answer:
    """Let the running hub do a command. Raises RefusedError, Fault if it does not answer."""
    try:
        async with asyncio.timeout(_LONG_S if isinstance(command, BackupMake) else WAIT_S):
            with short_path(path) as short:
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
