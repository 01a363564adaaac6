"""Reading the shim's trace, and marking the harness's own events in it."""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

HEAD = struct.Struct("<BBHIQI")


class Op(IntEnum):
    """What a process did to its folder; EVENT is written by the harness."""

    CREATE = 1
    WRITE = 2
    TRUNCATE = 3
    SYNC = 4
    RENAME = 5
    UNLINK = 6
    MKDIR = 7
    DIRSYNC = 8
    EVENT = 100


@dataclass(frozen=True, slots=True)
class Effect:
    """One record: `path` is relative to the watched root ("" is the root itself)."""

    op: int
    path: str
    pid: int
    offset: int
    data: bytes


def read(path: Path) -> Iterator[Effect]:
    """Every effect in the order in which the kernel took them (one O_APPEND file for all)."""
    raw = memoryview(path.read_bytes())
    at = 0
    while at + HEAD.size <= len(raw):
        op, _, name, pid, offset, length = HEAD.unpack_from(raw, at)
        at += HEAD.size
        text = bytes(raw[at : at + name]).decode()
        at += name
        yield Effect(op, text, pid, offset, bytes(raw[at : at + length]))
        at += length


class Marker:
    """Writes events of the harness (what a device was told) into the same trace."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def event(self, name: str, data: bytes = b"") -> None:
        text = name.encode()
        head = HEAD.pack(Op.EVENT, 0, len(text), os.getpid(), 0, len(data))
        os.write(self._fd, head + text + data)

    def close(self) -> None:
        os.close(self._fd)
