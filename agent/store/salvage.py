"""Read what can be read of a damaged SQLite file: by SQL where trees hold, else page by page.

Total: any bytes give some rows, often none, and never an exception but OSError. Values are as they
lie there; whether a journal body or a segment is whole, AEAD and hashes say later.

Record format (sqlite.org/fileformat2.html §2): a table leaf is 0x0d, cells = payload size, rowid,
header of serial types, values; what does not fit goes on in overflow pages.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from agent.store.schema import PAGE_BYTES

Value = int | bytes | str | None
Row = tuple[Value, ...]

_LEAF: Final = 0x0D
_PAYLOAD_MAX: Final = 8 << 20
_CHAIN_MAX: Final = _PAYLOAD_MAX // PAGE_BYTES + 2

#: Tables with a row id, and what each column of theirs looks like: i integer, b blob, t text, * any
#: of them or nothing. The first column of `id INTEGER PRIMARY KEY` lies there as nothing.
SHAPES: Final[dict[str, str]] = {
    "run": "bbibii",
    "stream": "bbibiiii**iiiiiiiiii",
    "journal": "*bbiiiiib",
    "seen": "*ib",
    "epoch_key": "bbiibiiii*ii",
    "body": "*biiiibi",
    "content": "*b",
    "outbox": "*tib****b",
    "quarantine": "*ttiib",
    "resource": "btibbiiib",
}
_ROWID_FIRST: Final = frozenset({"journal", "seen", "body", "content", "outbox", "quarantine"})
_SQL_SHAPES: Final[dict[str, str]] = SHAPES | {
    "meta": "t*",
    "watermark": "tbb",
    "chain": "bibbb*i",
    "unsynced": "bbiii",
    "receipt_day": "biiiii",
}
#: Tables without row ids are read by SQL only; what they say can be learnt again.
#: In the order of their worth: where the disk has no room for a second file, the last are cut off.
BY_SQL: Final = (
    "meta",
    "run",
    "stream",
    "resource",
    "epoch_key",
    "watermark",
    "chain",
    "outbox",
    "journal",
    "body",
    "unsynced",
    "receipt_day",
    "seen",
    "quarantine",
    "content",
)


@dataclass(frozen=True, slots=True)
class Found:
    """One row of a table; `exact` if its tree still led to it."""

    table: str
    row: Row
    exact: bool


def read(path: Path, template: Path) -> Iterator[Found]:
    """Every row that can still be read, each table by SQL first.

    path: a copy of the damaged file, which may be changed. template: an empty file of our schema,
    whose page 1 stands in where the damaged file's own is unusable.
    """
    if not _has_usable_head(path):
        _put_head(path, template)
    columns = _columns(template)
    broken: list[str] = []
    for table in BY_SQL:
        whole = True
        for row in _by_sql(path, table, columns[table]):
            if row is None:
                whole = False
                break
            yield Found(table, row, exact=True)
        if not whole and table in SHAPES:
            broken.append(table)
    if broken:
        for table, row in scan(path):
            if table in broken:
                yield Found(table, row, exact=False)


def _columns(template: Path) -> dict[str, str]:
    """The columns of each table, as this release knows them: a newer one's file has more."""
    with closing(sqlite3.connect(template)) as connection:
        return {
            table: ", ".join(row[1] for row in connection.execute(f"PRAGMA table_info({table})"))
            for table in BY_SQL
        }


def _by_sql(path: Path, table: str, columns: str) -> Iterator[Row | None]:
    """Rows in order; None at the end if the tree is broken somewhere."""
    strange = False
    try:
        with closing(sqlite3.connect(path)) as connection:
            connection.text_factory = _decoded
            query = f"SELECT {columns} FROM {table}"  # noqa: S608 - own names
            for row in connection.execute(query):
                if not _fits(_SQL_SHAPES[table], row):
                    strange = True  # a tree that leads to a page of another one
                    continue
                yield tuple(_text(value) for value in row)
        if strange:
            yield None
    except (sqlite3.Error, OverflowError, MemoryError):
        yield None


def _decoded(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _text(value: object) -> Value:
    return value if isinstance(value, int | bytes | str) else None


def _has_usable_head(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(path)) as connection:
            names = connection.execute("SELECT name FROM sqlite_schema WHERE type='table'")
            return {"journal", "body", "stream"} <= {row[0] for row in names}
    except sqlite3.Error:
        return False


def _put_head(path: Path, template: Path) -> None:
    """Page 1 of an empty file of ours: tables are made in one order, so their roots are known."""
    with template.open("rb") as source:
        head = bytearray(source.read(PAGE_BYTES))
    pages = max(1, path.stat().st_size // PAGE_BYTES)
    head[28:32] = pages.to_bytes(4, "big")  # size of the file
    head[32:40] = bytes(8)  # no free list
    head[92:96] = head[24:28]  # the size is valid for this change counter
    with path.open("r+b") as file:
        file.write(head)
        file.truncate(pages * PAGE_BYTES)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def scan(path: Path) -> Iterator[tuple[str, Row]]:
    """Rows of every table leaf in the file, also of pages that no tree leads to any more."""
    with path.open("rb") as file:
        number = 0
        while len(page := _page(file, number)) == PAGE_BYTES:
            start = 100 if number == 0 else 0
            if page[start] == _LEAF:
                yield from _leaf(file, page, start)
            number += 1


def _page(file: BinaryIO, number: int) -> bytes:
    file.seek(number * PAGE_BYTES)
    return file.read(PAGE_BYTES)


def _leaf(file: BinaryIO, page: bytes, start: int) -> Iterator[tuple[str, Row]]:
    count = int.from_bytes(page[start + 3 : start + 5], "big")
    for index in range(min(count, PAGE_BYTES // 4)):
        at = start + 8 + 2 * index
        pointer = int.from_bytes(page[at : at + 2], "big")
        try:
            found = _cell(file, page, pointer)
        except (IndexError, ValueError):
            continue
        if found is not None:
            yield found


def _cell(file: BinaryIO, page: bytes, at: int) -> tuple[str, Row] | None:
    size, at = _varint(page, at)
    rowid, at = _varint(page, at)
    if not 0 < size <= _PAYLOAD_MAX:
        return None
    payload = _payload(file, page, at, size)
    values = _record(payload)
    if values is None:
        return None
    for table, shape in SHAPES.items():
        if _fits(shape, values):
            if table in _ROWID_FIRST:
                values = [rowid, *values[1:]]
            return table, tuple(values)
    return None


def _payload(file: BinaryIO, page: bytes, at: int, size: int) -> bytes:
    most = PAGE_BYTES - 35
    if size <= most:
        return page[at : at + size]
    least = (PAGE_BYTES - 12) * 32 // 255 - 23
    local = least + (size - least) % (PAGE_BYTES - 4)
    local = local if local <= most else least
    parts = [page[at : at + local]]
    following = int.from_bytes(page[at + local : at + local + 4], "big")
    left = size - local
    for _ in range(_CHAIN_MAX):
        if left <= 0 or following == 0:
            break
        more = _page(file, following - 1)
        following = int.from_bytes(more[:4], "big")
        parts.append(more[4 : 4 + left])
        left -= PAGE_BYTES - 4
    return b"".join(parts)


def _record(payload: bytes) -> list[Value] | None:
    header, at = _varint(payload, 0)
    if header > len(payload) or header > 512:
        return None
    types: list[int] = []
    while at < header:
        kind, at = _varint(payload, at)
        types.append(kind)
    values: list[Value] = []
    for kind in types:
        value, at = _value(payload, at, kind)
        values.append(value)
    return values if at <= len(payload) else None


_SIZES: Final = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}


def _value(payload: bytes, at: int, kind: int) -> tuple[Value, int]:
    if kind in _SIZES:
        size = _SIZES[kind]
        return int.from_bytes(payload[at : at + size], "big", signed=True), at + size
    if kind in {8, 9}:
        return kind - 8, at
    if kind >= 12:
        size = (kind - 12) // 2
        raw = payload[at : at + size]
        return (raw if kind % 2 == 0 else raw.decode("utf-8", "replace")), at + size
    return None, at + (8 if kind == 7 else 0)


def _fits(shape: str, values: Sequence[Value]) -> bool:
    if len(shape) != len(values):
        return False
    kinds = {"i": int, "b": bytes, "t": str}
    return all(
        letter == "*" or isinstance(value, kinds[letter])
        for letter, value in zip(shape, values, strict=True)
    )


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(9):
        byte = data[at + index]
        if index == 8:
            return (value << 8) | byte, at + 9
        value = (value << 7) | (byte & 0x7F)
        if byte < 0x80:
            return value, at + index + 1
    raise ValueError("varint")
