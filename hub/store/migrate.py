"""Bringing the database to this release's schema: Alembic, from the installed package.

No `alembic.ini` and no command line: the hub migrates by itself at start, in one transaction,
before it serves. A database of a *newer* release is refused rather than guessed at.
"""

from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from hub.store import search
from hub.store.engine import Tx
from protocol.errors import Code, FatalError

_SCRIPTS: Final = Path(__file__).with_name("migrations")


def upgrade(tx: Tx) -> None:
    """Run every migration that the database lacks, in the caller's transaction.

    The search index follows: made by other rules than this release's, it is made anew.

    Raises FatalError VERSION_UNSUPPORTED, naming both, if the database is from a newer release.
    """
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = tx
    scripts = ScriptDirectory.from_config(config)
    current = MigrationContext.configure(tx).get_current_revision()
    if current is not None and current not in {one.revision for one in scripts.walk_revisions()}:
        raise FatalError(
            Code.VERSION_UNSUPPORTED,
            field="database",
            value=current,
            expected=f"at most {scripts.get_current_head()}: a newer hub wrote this database",
        )
    if current != scripts.get_current_head():
        command.upgrade(config, "head")
    search.fit(tx)


def head() -> str:
    """The revision that this release writes."""
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    return str(ScriptDirectory.from_config(config).get_current_head())
