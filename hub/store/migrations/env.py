"""Alembic's entry: runs the migrations on the connection that `hub.store.migrate` hands over."""

from alembic import context

from hub.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=False,  # the caller's transaction is the only one
)
context.run_migrations()
