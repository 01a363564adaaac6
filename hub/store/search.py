"""The index of the catalog: which entries a question finds (检索, T/ADEDS 02-2023 §6.2, §6.3).

The entry in force of every catalogued resource is in the index, in the transaction that puts it in
force: what can be found is never older or newer than what is shown. Which tokens a text has and
what a question means is `hub.domain.search`; here they only meet an engine. An engine is one class;
the same questions must have the same answers on each.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final, Protocol

from sqlalchemy import (
    ColumnElement,
    MetaData,
    Select,
    bindparam,
    column,
    event,
    select,
    table,
    text,
)

from hub.domain import classes
from hub.domain import search as words
from hub.domain.search import Phrase
from hub.store import meta
from hub.store.engine import Tx
from hub.store.tables import metadata, object_, principal, resource, site
from protocol import envelope
from protocol.grades import rules
from protocol.registration import Registration
from protocol.schema import open_schema

_VERSION_KEY: Final = "search-tokens"
_PIECE: Final = 500  # entries that are read and indexed at a time

#: Every token is made by us: `ascii` takes what is not ASCII, and ASCII letters and digits, as they
#: are. The prefix index is for single characters, which are beginnings of half of all tokens.
CREATE_SQLITE: Final = (
    "CREATE VIRTUAL TABLE search USING fts5(tokens, tokenize = 'ascii', prefix = '1')"
)


@event.listens_for(metadata, "after_create")
def _make(_target: MetaData, tx: Tx, **_how: object) -> None:
    """Tables that are made without migrations have their index too."""
    if tx.dialect.name == "sqlite":
        tx.exec_driver_sql(CREATE_SQLITE)


def is_index(name: str | None) -> bool:
    """Tell whether a table belongs to the index, which the engine keeps in tables of its own."""
    return name is not None and (name == "search" or name.startswith("search_"))


class TextIndex(Protocol):
    """What an engine does. `n` is ResourceRow.n; the caller's transaction makes it durable."""

    @property
    def order(self) -> ColumnElement[int]:
        """What a narrowed query is put in order by; equals resource.n."""
        ...

    def put(self, tx: Tx, entries: Iterable[tuple[int, list[str]]]) -> None:
        """Index entries by their tokens, in place of what was indexed of them before."""
        ...

    def remove(self, tx: Tx, n: int) -> None:
        """Take an entry out; one that is not there is no error."""
        ...

    def clear(self, tx: Tx) -> None:
        """Take everything out."""
        ...

    def narrow(self, query: Select[Any], asked: tuple[Phrase, ...]) -> Select[Any]:
        """Return a query over `resource` with nothing left but entries with all phrases (≥ 1)."""
        ...


class Fts5:
    """SQLite's full-text index."""

    _table = table("search", column("rowid"), column("tokens"))

    @property
    def order(self) -> ColumnElement[int]:
        """The index gives its rows in this order, so a page costs as much as it is long."""
        return self._table.c.rowid

    def put(self, tx: Tx, entries: Iterable[tuple[int, list[str]]]) -> None:
        """See TextIndex."""
        rows = [{"n": n, "tokens": " ".join(tokens)} for n, tokens in entries]
        if rows:
            tx.execute(text("DELETE FROM search WHERE rowid = :n"), rows)
            tx.execute(text("INSERT INTO search (rowid, tokens) VALUES (:n, :tokens)"), rows)

    def remove(self, tx: Tx, n: int) -> None:
        """See TextIndex."""
        tx.execute(text("DELETE FROM search WHERE rowid = :n"), {"n": n})

    def clear(self, tx: Tx) -> None:
        """See TextIndex."""
        tx.execute(text("DELETE FROM search"))

    def narrow(self, query: Select[Any], asked: tuple[Phrase, ...]) -> Select[Any]:
        """See TextIndex. Tokens hold no quotation mark, so a quoted phrase stays one."""
        said = " AND ".join(
            f'"{" ".join(one.tokens)}"{" *" if one.is_open else ""}' for one in asked
        )
        return query.join(self._table, self._table.c.rowid == resource.c.n).where(
            text("search MATCH :asked").bindparams(bindparam("asked", said))
        )


_ENGINES: Final[dict[str, TextIndex]] = {"sqlite": Fts5()}


def index_of(tx: Tx) -> TextIndex:
    """The index of the engine under a transaction."""
    return _ENGINES[tx.dialect.name]


# --- what of an entry is searched -----------------------------------------------------------------


def refresh(tx: Tx, numbers: Iterable[int]) -> None:
    """Index these resources as their entries in force say; what is in no catalog leaves the index.

    numbers: ResourceRow.n, of resources whose entry is recorded.
    """
    index = index_of(tx)
    wanted = sorted(set(numbers))
    for at in range(0, len(wanted), _PIECE):
        piece = wanted[at : at + _PIECE]
        found = dict(_documents(tx, piece))
        for n in set(piece) - found.keys():
            index.remove(tx, n)
        index.put(tx, found.items())


def refresh_owner(tx: Tx, owner: bytes) -> None:
    """As `refresh`, for every resource of an owner, whose name is searched with them."""
    refresh(tx, tx.execute(select(resource.c.n).where(resource.c.owner == owner)).scalars())


def fit(tx: Tx) -> None:
    """Index everything anew if the index was made by other rules, or never."""
    if meta.get(tx, _VERSION_KEY) == str(words.TOKENS_VERSION):
        return
    index_of(tx).clear(tx)
    refresh(tx, tx.execute(select(resource.c.n)).scalars())
    meta.put(tx, _VERSION_KEY, str(words.TOKENS_VERSION))


def _documents(tx: Tx, numbers: list[int]) -> Iterator[tuple[int, list[str]]]:
    """Yield number and tokens of those that are registered; fully open ones are in no catalog."""
    query = (
        select(
            resource.c.n,
            resource.c.code,
            object_.c.raw,
            site.c.name.label("site_name"),
            principal.c.name.label("owner_name"),
        )
        .join(object_, object_.c.id == resource.c.entry)
        .join(site, site.c.id == resource.c.site)
        .outerjoin(principal, principal.c.id == resource.c.owner)
        .where(resource.c.kind == "registration", resource.c.n.in_(numbers))
    )
    for row in tx.execute(query):
        entry = envelope.decode_payload(envelope.parse(row.raw), Registration)
        fields = [row.code, row.site_name, row.owner_name or "", *_texts(entry)]
        yield row.n, words.document(fields)


def _texts(entry: Registration) -> Iterator[str]:
    """Yield what people may remember of an entry."""
    yield from (entry.name_zh, entry.name_en, entry.description, entry.place, entry.local_name)
    yield from (entry.pack, entry.region)
    for field in open_schema(entry.schema):
        yield from (field.zh, field.en, field.name)
    yield from classes.searched_words(entry.classification)
    rule = rules(entry.grade)
    yield from (rule.name_zh, rule.name_en)
