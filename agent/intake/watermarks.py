"""Where each source stands: one memory for both files, and which file said it last.

A source whose resource became key-protected (重点保护级) has an old position in the main file and a
newer one in the vault. Read again from the old one, its counts would come twice. So where there is
a vault each commit that moves a source takes a turn, and the position with the highest turn stands.
A source that was set back to its beginning has a row too: without one an older position in the
other file would stand again after a restart.
"""

import sqlite3
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from agent.intake.covered import Key
from agent.store.rest import RootKey
from protocol.errors import DecodeError

_TURN: Final = "turn/"  # keys of `meta`; "0" follows "/"
_TURN_END: Final = "turn0"
_NEVER_READ: Final = b""  # in place of a wrapped position, which is longer


@dataclass(slots=True)
class _Shared:
    """What is known of every source, whichever file says it."""

    values: dict[Key, bytes] = field(default_factory=dict)
    turns: dict[Key, int] = field(default_factory=dict)  # of `values`, as they were loaded
    files: dict[Key, "Watermarks"] = field(default_factory=dict)  # who said it last
    last: int = 0  # turn


class Watermarks:
    """The newest committed watermark of every source, in the hands of one file."""

    def __init__(self, *, is_shared: bool, shared: _Shared | None = None) -> None:
        """is_shared: there are two files, whose positions must be told apart after a start."""
        self._shared = shared or _Shared()
        self.values = self._shared.values
        self._is_shared = is_shared
        self.unreadable = 0  # positions that changed on the disk, as this file was loaded

    def of_vault(self) -> "Watermarks":
        """The same memory in the hands of the other file."""
        return Watermarks(is_shared=self._is_shared, shared=self._shared)

    def load(self, connection: sqlite3.Connection, root: RootKey) -> None:
        """Take in what a file knows; of equal turns the file that is loaded later is right."""
        turns = {
            name: int(turn)
            for name, turn in connection.execute(
                "SELECT k, v FROM meta WHERE k >= ? AND k < ?", (_TURN, _TURN_END)
            )
        }
        shared = self._shared
        shared.last = max(shared.last, *turns.values(), 0)
        for driver, source, sealed in connection.execute(
            "SELECT driver, source, value FROM watermark"
        ).fetchall():
            key = (driver, source.decode())
            turn = turns.get(_name(key), 0)
            if turn >= shared.turns.get(key, 0):
                shared.turns[key] = turn
                try:
                    is_known = sealed != _NEVER_READ
                    self.move({key: root.unwrap(_place(key), sealed) if is_known else None})
                except DecodeError:
                    self.unreadable += 1  # its source begins anew; the others do not wait for it

    def turn(self) -> int:
        """The turn of the next commit; 0 where nothing is to be told apart. For the loop only."""
        if self._is_shared:
            self._shared.last += 1
        return self._shared.last if self._is_shared else 0

    def move(self, watermarks: Mapping[Key, bytes | None]) -> None:
        """After a commit: they stand so from now on; None: as if the source were never read."""
        for key, value in watermarks.items():
            self._shared.files[key] = self
            if value is None:
                self.values.pop(key, None)
            else:
                self.values[key] = value

    def changed(
        self, watermarks: Mapping[Key, bytes | None], *, dropped: Collection[Key]
    ) -> dict[Key, bytes | None]:
        """Those of a fork in this file that differ from what is known now.

        dropped: sources whose rows go, to be read again. Any other that the other file moved last
        stays where it is: its resource moved there, and what that file has would come twice.
        """
        return {
            key: value
            for key, value in watermarks.items()
            if self.values.get(key) != value
            and (key in dropped or self._shared.files.get(key, self) is self)
        }


def put_watermarks(
    connection: sqlite3.Connection,
    root: RootKey,
    watermarks: Mapping[Key, bytes | None],
    *,
    turn: int,
) -> None:
    """Write watermarks as they stand from now on, inside the caller's transaction."""
    for key, value in watermarks.items():
        driver, source = key
        sealed = _NEVER_READ if value is None else root.wrap(_place(key), value)
        connection.execute(
            "INSERT OR REPLACE INTO watermark(driver, source, value) VALUES(?, ?, ?)",
            (driver, source.encode(), sealed),
        )
        if turn:
            connection.execute("INSERT OR REPLACE INTO meta(k, v) VALUES(?, ?)", (_name(key), turn))


def _place(key: Key) -> bytes:
    return b"watermark" + key[0].encode() + b"\0" + key[1].encode()


def _name(key: Key) -> str:
    return f"{_TURN}{key[0]}/{key[1]}"
