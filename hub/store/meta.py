"""Single values of the hub that are not rows of anything: `backed_up_to`, the schema's release."""

from sqlalchemy import bindparam, delete, insert, select

from hub.store.engine import Tx
from hub.store.prepared import Prepared
from hub.store.tables import meta

_GET = Prepared(select(meta.c.v).where(meta.c.k == bindparam("k")))


def get(tx: Tx, key: str) -> str | None:
    """The value, or None."""
    found = _GET.rows(tx, {"k": key})
    return str(found[0][0]) if found else None


def put(tx: Tx, key: str, value: str) -> None:
    """Set the value."""
    tx.execute(delete(meta).where(meta.c.k == key))
    tx.execute(insert(meta), {"k": key, "v": value})
