"""Alembic's scripts, run by `hub.store.migrate`."""
