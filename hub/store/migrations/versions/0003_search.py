"""The index of the catalog; `hub.store.search.fit` fills it from the entries in force."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the engine's own kind of index."""
    if op.get_context().dialect.name == "sqlite":
        op.execute(
            "CREATE VIRTUAL TABLE search USING fts5(tokens, tokenize = 'ascii', prefix = '1')"
        )
