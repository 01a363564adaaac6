"""A simulator's own books: what it produced, what it sent, what was acknowledged to it.

One JSON array a line, appended with one write(2) each, so that a killed simulator leaves whole
lines. Nothing here knows agent or hub: whoever reconciles compares these lines with what the owner
reads back, by identity (resource, device, event time) and content.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

#: What a record may hold, as JSON carries it.
Fact = int | float | bool | str | None


@dataclass(frozen=True, slots=True)
class Content:
    """One form in which an observation went out: its event time (µs UTC) and its fields."""

    time_us: int
    values: Mapping[str, Fact]


@dataclass(slots=True)
class Made:
    """One observation of one resource, as its device believes it.

    forms has several members where the same observation went out more than once with different
    surroundings (two gateways hearing one uplink): any one of them, once, is right.
    """

    key: str  # identity within the book: frame counter and session, event id, running number
    resource: str  # local name of the resource
    promise: str  # class of the source, A … E (promise of delivery)
    device: str
    forms: list[Content] = field(default_factory=list)
    sent: int = 0  # publishes handed to the broker
    acked: int = 0  # publishes that the broker acknowledged


class Book:
    """The append-only file of one simulator. Not for two processes at once."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def made(
        self, key: str, promise: str, device: str, content: Iterable[tuple[str, Content]]
    ) -> None:
        """Note one message's observations before it is sent: (resource, content) each.

        Called again with the same key it adds another form of the same observation.
        """
        rows = [[resource, form.time_us, form.values] for resource, form in content]
        self._write(["made", key, promise, device, rows])

    def sent(self, key: str) -> None:
        """Note that the message of this key is being handed to the broker."""
        self._write(["sent", key])

    def acked(self, key: str) -> None:
        """Note that the broker acknowledged one publish of this key."""
        self._write(["acked", key])

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _write(self, row: list[object]) -> None:
        line = json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n"
        os.write(self._fd, line.encode())


def read_books(paths: Iterable[Path]) -> dict[str, list[Made]]:
    """What all the books say, by resource; a torn last line is left out.

    Raises ValueError if a line that is not the last cannot be read, or names an unknown key.
    """
    found: dict[str, list[Made]] = {}
    for path in paths:
        for made in _read_book(path):
            found.setdefault(made.resource, []).append(made)
    return found


def _read_book(path: Path) -> list[Made]:
    by_key: dict[str, dict[str, Made]] = {}
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], 1):  # after the last newline: nothing, or a torn line
        row = json.loads(line)
        match row:
            case ["made", key, promise, device, rows]:
                group = by_key.setdefault(key, {})
                for resource, time_us, values in rows:
                    made = group.setdefault(resource, Made(key, resource, promise, device))
                    made.forms.append(Content(time_us, values))
            case ["sent", key]:
                for made in by_key[key].values():
                    made.sent += 1
            case ["acked", key]:
                for made in by_key[key].values():
                    made.acked += 1
            case _:
                raise ValueError(f"{path}:{number}: not a line of a book")
    return [made for group in by_key.values() for made in group.values()]
