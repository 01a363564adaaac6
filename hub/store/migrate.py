"""Bringing the database to this release's schema: Alembic, from the installed package.

No `alembic.ini` and no command line: the hub migrates by itself at start, in one transaction,
before it serves. A database of a *newer* release is refused rather than guessed at. Alembic is
imported where there is something to do: a start costs a quarter less without it.
"""

from pathlib import Path
from typing import Final

from sqlalchemy import inspect, text

from hub.store import search
from hub.store.engine import Tx
from protocol.errors import Code, FatalError

#: The revision that this release writes: the newest script's, as a test holds it.
HEAD: Final = "0003"

_SCRIPTS: Final = Path(__file__).with_name("migrations")


def upgrade(tx: Tx) -> None:
    """Run every migration that the database lacks, in the caller's transaction.

    The search index follows: made by other rules than this release's, it is made anew.

    Raises FatalError VERSION_UNSUPPORTED, naming both, if the database is from a newer release.
    """
    current = _revision(tx)
    if current != HEAD:
        _run_scripts(tx, current)
    search.fit(tx)


def _revision(tx: Tx) -> str | None:
    """What stands in the database; None in an empty one."""
    if not inspect(tx).has_table("alembic_version"):
        return None
    found: str | None = tx.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return found


def _run_scripts(tx: Tx, current: str | None) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = tx
    scripts = ScriptDirectory.from_config(config)
    if current is not None and current not in {one.revision for one in scripts.walk_revisions()}:
        raise FatalError(
            Code.VERSION_UNSUPPORTED,
            field="database",
            value=current,
            expected=f"at most {HEAD}: a newer hub wrote this database",
        )
    command.upgrade(config, "head")
