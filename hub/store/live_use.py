"""How long a day each resource was watched live: small segments cost rows for ever."""

from collections.abc import Collection, Mapping

from sqlalchemy import and_, bindparam, delete, insert, select, update

from hub.store.engine import Tx
from hub.store.prepared import Prepared
from hub.store.tables import live_use

_OF = Prepared(
    select(live_use.c.resource, live_use.c.seconds).where(
        and_(
            live_use.c.day == bindparam("day"),
            live_use.c.resource.in_(bindparam("resources", expanding=True)),
        )
    ),
    lists=("resources",),
)


def of(tx: Tx, day: int, resources: Collection[int]) -> dict[int, int]:
    """Seconds that were used on a day, by ResourceRow.n; the absent used none."""
    if not resources:
        return {}
    return dict(_OF.rows(tx, {"day": day, "resources": list(resources)}))


def add(tx: Tx, day: int, seconds: Mapping[int, int]) -> None:
    """Count more seconds; days before are forgotten."""
    tx.execute(delete(live_use).where(live_use.c.day < day))
    known = of(tx, day, seconds.keys())
    for n, more in seconds.items():
        if n in known:
            row = and_(live_use.c.day == day, live_use.c.resource == n)
            tx.execute(update(live_use).where(row), {"seconds": known[n] + more})
        else:
            tx.execute(insert(live_use), {"day": day, "resource": n, "seconds": more})
