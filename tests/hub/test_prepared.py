"""Statements that are compiled once: the same rows as SQLAlchemy's own way, on both engines' terms."""

import importlib
import pkgutil
from types import SimpleNamespace

import pytest
from sqlalchemy import bindparam, insert, select
from sqlalchemy.dialects.postgresql import asyncpg
from sqlalchemy.exc import IntegrityError
from sqlalchemy.schema import CreateIndex, CreateTable

import hub.store
from hub.store.engine import Store
from hub.store.prepared import IN_MAX, Prepared
from hub.store.tables import metadata, nonce


def all_prepared() -> list[tuple[str, Prepared]]:
    found = []
    for info in pkgutil.iter_modules(hub.store.__path__):
        module = importlib.import_module(f"hub.store.{info.name}")
        for name, value in vars(module).items():
            if isinstance(value, Prepared):
                found.append((f"{info.name}.{name}", value))
    return found


def test_every_statement_is_right_for_postgresql_too() -> None:
    """No driver is needed to see that it compiles, and that each parameter has its place."""
    there = SimpleNamespace(dialect=asyncpg.dialect())
    prepared = all_prepared()
    assert len(prepared) > 20
    for name, one in prepared:
        lengths = (4,) * len(one._lists)
        binds = list(one._statement.compile().params)
        values = {key: [] if key in one._lists else None for key in binds}
        form = one._form(there, lengths, values)
        assert form.sql.count("$") >= len(set(form.names)), name
        assert "?" not in form.sql, name


def test_every_table_is_right_for_postgresql_too() -> None:
    for table in metadata.sorted_tables:
        text = str(CreateTable(table).compile(dialect=asyncpg.dialect()))
        assert "BYTEA" in text or "VARCHAR" in text or "BIGINT" in text
        assert "BLOB" not in text
        for index in table.indexes:
            assert str(CreateIndex(index).compile(dialect=asyncpg.dialect()))


async def test_lists_of_any_length_find_the_same_rows(store: Store) -> None:
    every = [n.to_bytes(4, "big") for n in range(3000)]
    rows = [{"key": b"k", "nonce": one, "expires_us": n} for n, one in enumerate(every)]
    query = Prepared(
        select(nonce.c.nonce, nonce.c.expires_us).where(
            nonce.c.nonce.in_(bindparam("ids", expanding=True)),
            nonce.c.expires_us < bindparam("below"),
        ),
        lists=("ids",),
    )

    def look(tx) -> None:
        assert Prepared(insert(nonce)).many(tx, rows) == len(rows)
        for size in (1, 2, 3, 7, 8, 9, 255, IN_MAX, IN_MAX + 1, 2500):
            wanted = every[-size:]
            found = query.rows(tx, {"ids": wanted, "below": 2990})
            assert sorted(one for one, _n in found) == [
                one for one in wanted if int.from_bytes(one, "big") < 2990
            ]
        assert len(query._compiled) <= 11, "powers of two only"

    await store.write("look", look)


async def test_errors_are_those_of_sqlalchemy(store: Store) -> None:
    one = {"key": b"k", "nonce": b"n", "expires_us": 1}
    add = Prepared(insert(nonce))
    await store.write("add", add.run, one)
    for call in (add.run, lambda tx, row: add.many(tx, [row])):
        with pytest.raises(IntegrityError):
            await store.write("add", call, one)
    assert await store.write("none", add.many, []) == 0
