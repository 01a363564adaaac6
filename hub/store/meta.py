"""Single values of the hub that are not rows of anything: `backed_up_to`, the schema's release."""

from sqlalchemy import delete, insert, select

from hub.store.engine import Tx
from hub.store.tables import meta


def get(tx: Tx, key: str) -> str | None:
    """The value, or None."""
    return tx.execute(select(meta.c.v).where(meta.c.k == key)).scalar()


def put(tx: Tx, key: str, value: str) -> None:
    """Set the value."""
    tx.execute(delete(meta).where(meta.c.k == key))
    tx.execute(insert(meta), {"k": key, "v": value})
