"""Statements of the accepting transaction, compiled once.

A group of one segment runs some twenty statements; SQLAlchemy's own way from expression to cursor
costs 50–100 µs for each (measured), more than the engine's work. So the statements of this path
are written in SQLAlchemy like all others, compiled once for each dialect, and handed to the
driver's cursor. Elsewhere statements are executed the ordinary way.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from sqlalchemy import Select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.dml import UpdateBase

from hub.store.engine import Tx

S = TypeVar("S", bound=msgspec.Struct)

#: Longest list of one `IN`; longer ones are asked in pieces (SQLite's bound is 32,766 variables).
IN_MAX: Final = 1024


class _Form(NamedTuple):
    """A statement as the driver takes it."""

    sql: str
    names: tuple[str, ...]  # of its parameters, in the driver's order
    constants: dict[str, Any]  # parameters that stand in the statement itself


class Prepared:
    """One statement with named parameters; those named in `lists` are `IN` lists.

    Lists are filled up to a power of two with their last value, so that a handful of compiled forms
    serves every length.
    """

    def __init__(self, statement: Select[Any] | UpdateBase, *, lists: Sequence[str] = ()) -> None:
        self._statement = statement
        self._lists = tuple(lists)
        self._compiled: dict[tuple[object, ...], _Form] = {}

    def rows(self, tx: Tx, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Run a query; every row as a tuple in the order of its columns.

        A first list longer than IN_MAX is asked in pieces, so the statement must not order rows.
        """
        first = self._lists[0] if self._lists else None
        if first is not None and len(values[first]) > IN_MAX:
            whole = list(values[first])
            pieces = (whole[i : i + IN_MAX] for i in range(0, len(whole), IN_MAX))
            return [row for one in pieces for row in self._rows(tx, {**values, first: one})]
        return self._rows(tx, values)

    def _rows(self, tx: Tx, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        lengths = tuple(_padded(len(values[name])) for name in self._lists)
        form = self._form(tx, lengths, values)
        flat = {**form.constants, **values}
        for name, length in zip(self._lists, lengths, strict=True):
            given = list(values[name])
            given += given[-1:] * (length - len(given))
            flat |= {f"{name}_{number}": one for number, one in enumerate(given, 1)}
        cursor = self._execute(tx, form.sql, tuple([flat[name] for name in form.names]))
        found = list(cursor.fetchall())
        cursor.close()
        return found

    def structs(self, kind: type[S], tx: Tx, values: Mapping[str, Any]) -> list[S]:
        """Run a query; every row as a struct whose fields have the columns' names."""
        assert isinstance(self._statement, Select)
        names = [str(one.key) for one in self._statement.selected_columns]
        return [kind(**dict(zip(names, row, strict=True))) for row in self.rows(tx, values)]

    def run(self, tx: Tx, values: Mapping[str, Any]) -> int:
        """Run a change; returns the number of rows changed. Raises IntegrityError."""
        form = self._form(tx)
        cursor = self._execute(tx, form.sql, tuple([values[name] for name in form.names]))
        count = int(cursor.rowcount)
        cursor.close()
        return count

    def many(self, tx: Tx, values: Sequence[Mapping[str, Any]]) -> int:
        """Run a change for each set of values; returns the rows changed in all."""
        if not values:
            return 0
        form = self._form(tx)
        given = [tuple([one[name] for name in form.names]) for one in values]
        cursor = tx.connection.cursor()
        try:
            cursor.executemany(form.sql, given)
        except tx.dialect.loaded_dbapi.Error as error:
            raise _translated(tx, form.sql, error) from error
        count = int(cursor.rowcount)
        cursor.close()
        return count

    @staticmethod
    def _execute(tx: Tx, sql: str, given: tuple[Any, ...]) -> Any:
        cursor = tx.connection.cursor()
        try:
            cursor.execute(sql, given)
        except tx.dialect.loaded_dbapi.Error as error:
            raise _translated(tx, sql, error) from error
        return cursor

    def _form(
        self, tx: Tx, lengths: tuple[int, ...] = (), values: Mapping[str, Any] | None = None
    ) -> _Form:
        key = (tx.dialect.name, *lengths)
        form = self._compiled.get(key)
        if form is None:
            if lengths and isinstance(self._statement, Select):
                lists = zip(self._lists, lengths, strict=True)
                filled = {name: [None] * length for name, length in lists}
                compiled = self._statement.params({**(values or {}), **filled}).compile(
                    dialect=tx.dialect, compile_kwargs={"render_postcompile": True}
                )
            else:
                compiled = self._statement.compile(dialect=tx.dialect)
            names: Any = compiled.positiontup
            constants = {
                name: one.value
                for one, name in compiled.bind_names.items()
                if one.value is not None
            }
            form = self._compiled[key] = _Form(str(compiled), tuple(names), constants)
        return form


def _padded(length: int) -> int:
    assert 0 < length <= IN_MAX
    return 1 << (length - 1).bit_length()


def _translated(tx: Tx, sql: str, error: Exception) -> Exception:
    """The driver's error as SQLAlchemy's, so that callers know one kind."""
    return DBAPIError.instance(sql, None, error, tx.dialect.loaded_dbapi.Error, dialect=tx.dialect)
