"""From database rows to frozen structs, in one place."""

from typing import TypeVar

import msgspec
from sqlalchemy import Row

S = TypeVar("S", bound=msgspec.Struct)


def one(kind: type[S], row: "Row[*tuple[object, ...]] | None") -> S | None:
    """The row as a struct whose fields have the columns' names, or None for no row."""
    return None if row is None else kind(**row._mapping)  # noqa: SLF001 documented, not private


def many(kind: type[S], rows: "list[Row[*tuple[object, ...]]]") -> list[S]:
    """All rows as structs, in the order that the query gave."""
    return [kind(**row._mapping) for row in rows]  # noqa: SLF001 documented, not private
