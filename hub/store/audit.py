"""The audit trail: every change of registry, agents, sites, tokens and configuration.

Who, when, from where, before and after. Each row carries a hash over itself and the row before it,
so that a removed, altered or reordered row shows (`verify`); the ledger holds the signed objects
themselves.
"""

import hashlib
import json
from typing import Final

import msgspec
from sqlalchemy import insert, select

from hub.store import rows
from hub.store.engine import Tx
from hub.store.tables import audit, words

_FIRST: Final = b"\x00" * 32


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """Who changes something, and from where."""

    who: str  #: a principal's id as shown, "operator:<login>" at the console of the machine, "hub"
    source: str  #: network address, or "console"


HUB: Final = Actor(who="hub", source="hub")


class AuditRow(msgspec.Struct, frozen=True, kw_only=True):
    """One change, as it stands in the trail."""

    n: int
    at_us: int
    who: str
    source: str
    action: str
    subject: str
    before: str  #: JSON, empty where there was nothing
    after: str  #: JSON, empty where nothing is left
    link: bytes


def record(
    tx: Tx, by: Actor, now_us: int, action: str, subject: str, *, before: object, after: object
) -> None:
    """Write one change in the transaction that makes it. before, after: JSON values or None."""
    last = tx.execute(select(audit.c.n, audit.c.link).order_by(audit.c.n.desc()).limit(1)).first()
    n, link = (1, _FIRST) if last is None else (last.n + 1, last.link)
    row = {
        "n": n,
        "at_us": now_us,
        "who": words(by.who),
        "source": words(by.source),
        "action": action,
        "subject": words(subject),
        "before": _text(before),
        "after": _text(after),
    }
    tx.execute(insert(audit), row | {"link": _link(link, row)})


def page(tx: Tx, *, after: int = 0, limit: int = 100) -> list[AuditRow]:
    """Rows with a number above `after`, oldest first."""
    query = select(audit).where(audit.c.n > after).order_by(audit.c.n).limit(limit)
    return rows.many(AuditRow, list(tx.execute(query)))


def verify(tx: Tx) -> int | None:
    """The number of the first row that was altered, moved or follows a removed one, or None."""
    link, expected = _FIRST, 1
    while found := page(tx, after=expected - 1, limit=1000):
        for row in found:
            fields = msgspec.structs.asdict(row)
            del fields["link"]
            if row.n != expected or row.link != _link(link, fields):
                return expected
            link, expected = row.link, expected + 1
    return None


def _text(value: object) -> str:
    return "" if value is None else words(json.dumps(value, ensure_ascii=False, sort_keys=True))


def _link(previous: bytes, row: dict[str, object]) -> bytes:
    return hashlib.sha256(previous + msgspec.msgpack.encode(list(row.values()))).digest()
