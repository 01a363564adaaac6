"""Records: one observation or event of one resource (记录), row by row and as columns.

Drivers give rows; from the hand-over on everything is columns, because a loop per value in Python
costs more than all of the cryptography.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import Any, TypeAlias, TypeVar

import msgspec
from msgspec import Struct

from protocol.errors import Code, DecodeError

Value: TypeAlias = int | float | bool | str | bytes | None

_T = TypeVar("_T")


class Record(Struct, frozen=True, kw_only=True, gc=False):
    """One observation or event (记录). A field that is absent and one that is None are the same."""

    event_time_us: int  # when it happened: the device's time, else the gateway's (marked)
    device: str  # which device of the resource, as its site names it
    values: dict[str, Value]  # fields of the resource's domain pack
    quality: int = 0  # marks, see times.Quality
    device_time_us: int | None = None  # what the device's clock said, where that differs


@dataclass(slots=True)
class Columns:
    """The same observations, column by column; every list has `count` elements."""

    count: int
    event_time: list[int]  # µs UTC
    gateway_time: list[int]  # µs UTC, when the gateway had it
    device_time: list[int | None]  # µs UTC
    device: list[str]
    quality: list[int]
    fields: dict[str, list[Value]]

    def slice(self, start: int, stop: int) -> "Columns":
        """Give rows start..stop−1 as columns of their own."""
        return Columns(
            count=len(self.event_time[start:stop]),
            event_time=self.event_time[start:stop],
            gateway_time=self.gateway_time[start:stop],
            device_time=self.device_time[start:stop],
            device=self.device[start:stop],
            quality=self.quality[start:stop],
            fields={name: column[start:stop] for name, column in self.fields.items()},
        )

    def keep(self, rows: Sequence[int]) -> "Columns":
        """Give the named rows, in that order, as columns of their own."""

        def pick(column: list[_T]) -> list[_T]:
            return [column[row] for row in rows]

        return Columns(
            count=len(rows),
            event_time=pick(self.event_time),
            gateway_time=pick(self.gateway_time),
            device_time=pick(self.device_time),
            device=pick(self.device),
            quality=pick(self.quality),
            fields={name: pick(column) for name, column in self.fields.items()},
        )


_event_time = attrgetter("event_time_us")
_device_time = attrgetter("device_time_us")
_device = attrgetter("device")
_quality = attrgetter("quality")
_values = attrgetter("values")


def to_columns(records: Sequence[Record], names: Sequence[str], gateway_time_us: int) -> Columns:
    """Turn one hand-over's records into columns of the pack's fields `names`.

    A field that no pack declares is kept as a column behind the declared ones, so that
    `packs.check_columns` finds it; nothing is dropped here.
    """
    values: list[dict[str, Value]] = list(map(_values, records))
    quality: list[int] = list(map(_quality, records))
    if set(map(type, quality)) - {int}:  # a driver used times.Quality itself
        quality = list(map(int, quality))
    return Columns(
        count=len(values),
        event_time=list(map(_event_time, records)),
        gateway_time=[gateway_time_us] * len(values),
        device_time=list(map(_device_time, records)),
        device=list(map(_device, records)),
        quality=quality,
        fields=_by_field(values, names),
    )


def _by_field(values: list[dict[str, Value]], names: Sequence[str]) -> dict[str, list[Value]]:
    if len(names) > 1 and set(map(len, values)) == {len(names)}:
        # The usual case: each record has exactly the declared fields.
        pick: Callable[[dict[str, Value]], tuple[Value, ...]] = itemgetter(*names)
        try:
            columns = list(map(list, zip(*map(pick, values), strict=True)))
        except KeyError:
            pass
        else:
            return dict(zip(names, columns, strict=True))
    present: set[str] = set().union(*values)
    order = (*names, *sorted(present.difference(names)))
    return {
        name: [row.get(name) for row in values] if name in present else [None] * len(values)
        for name in order
    }


def concat(parts: Sequence[Columns]) -> Columns:
    """Join columns in order; a field that one part lacks is None there."""
    if len(parts) == 1:
        return parts[0]
    joined = Columns(0, [], [], [], [], [], {})
    for part in parts:
        for name in part.fields:
            if name not in joined.fields:
                joined.fields[name] = [None] * joined.count
        for name, column in joined.fields.items():
            column.extend(part.fields.get(name) or [None] * part.count)
        joined.event_time += part.event_time
        joined.gateway_time += part.gateway_time
        joined.device_time += part.device_time
        joined.device += part.device
        joined.quality += part.quality
        joined.count += part.count
    return joined


def to_records(columns: Columns) -> Iterator[Record]:
    """Give the rows again; a field without a value is absent. Gateway times are not in a row."""
    names = tuple(columns.fields)
    cells = zip(*columns.fields.values(), strict=True) if names else iter([()] * columns.count)
    rows = zip(
        columns.event_time,
        columns.device,
        columns.quality,
        columns.device_time,
        cells,
        strict=True,
    )
    for event_time, device, quality, device_time, row in rows:
        yield Record(
            event_time_us=event_time,
            device=device,
            values={
                name: value for name, value in zip(names, row, strict=True) if value is not None
            },
            quality=quality,
            device_time_us=device_time,
        )


# --- journal body --------------------------------------------------------------------------------


class _Body(Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Columns in a journal row: a column of one repeated value is a list of one."""

    count: int
    event_time: list[int]
    gateway_time: list[int]
    device_time: list[int | None]
    device: list[str]
    quality: list[int]
    fields: dict[str, list[Any]]


_encode_body = msgspec.msgpack.Encoder().encode
_decode_body = msgspec.msgpack.Decoder(_Body).decode


def _folded(column: list[_T]) -> list[_T]:
    # Times and texts only: 1 == True would merge values of a field column.
    if len(column) > 1 and column[0] == column[-1] and column.count(column[0]) == len(column):
        return column[:1]
    return column


def _unfolded(column: list[_T], count: int) -> list[_T]:
    return column * count if len(column) == 1 else column


def dump_columns(columns: Columns) -> bytes:
    """Give columns as plain msgpack lists, about 0.5 µs a record: the journal's body.

    Raises DecodeError for a value that msgpack does not have; `packs.check_columns` finds it first.
    """
    try:
        return _encode_body(
            _Body(
                columns.count,
                columns.event_time,
                _folded(columns.gateway_time),
                _folded(columns.device_time),
                _folded(columns.device),
                _folded(columns.quality),
                columns.fields,
            )
        )
    except (OverflowError, TypeError, ValueError) as error:
        raise DecodeError(Code.MALFORMED, field="columns", expected=str(error)) from error


def load_columns(data: bytes) -> Columns:
    """Read what `dump_columns` wrote (a journal row, opened and authenticated before).

    Raises DecodeError if it is anything else.
    """
    try:
        body = _decode_body(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(Code.MALFORMED, field="columns", expected="a journal body") from error
    count = body.count
    columns = Columns(
        count,
        body.event_time,
        _unfolded(body.gateway_time, count),
        _unfolded(body.device_time, count),
        _unfolded(body.device, count),
        _unfolded(body.quality, count),
        body.fields,
    )
    lengths = {
        len(columns.event_time),
        len(columns.gateway_time),
        len(columns.device_time),
        len(columns.device),
        len(columns.quality),
        *map(len, columns.fields.values()),
    }
    if lengths != {count}:
        raise DecodeError(Code.MALFORMED, field="columns", value=sorted(lengths), expected="count")
    return columns
