"""People who log in, their sessions, what a live page has cost, and running totals of resources."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

#: SQLite's rowid, PostgreSQL's bigserial.
_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables; totals are summed up once from what was accepted before."""
    _user()
    _session()
    _live_use()
    _tally()
    op.execute(
        "INSERT INTO tally (resource, segments, records, bytes, first_us, last_us, accepted_us)"
        " SELECT resource.n, count(segment.id), coalesce(sum(segment.count), 0),"
        " coalesce(sum(segment.length), 0), min(segment.first_us), max(segment.last_us),"
        " max(segment.accepted_us)"
        " FROM resource LEFT JOIN segment ON segment.resource = resource.n GROUP BY resource.n"
    )


def _user() -> None:
    op.create_table(
        "user",
        sa.Column("id", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=8), nullable=False),
        sa.Column("hash", sa.String(length=256), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("changed_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_user"),
        sa.UniqueConstraint("name", name="uq_user_name"),
        sqlite_autoincrement=True,
    )


def _session() -> None:
    op.create_table(
        "session",
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("user", sa.BigInteger(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("seen_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["user"], ["user.id"], name="fk_session_user"),
        sa.PrimaryKeyConstraint("hash", name="pk_session"),
    )
    op.create_index("ix_session_user", "session", ["user"], unique=False)


def _live_use() -> None:
    op.create_table(
        "live_use",
        sa.Column("day", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("resource", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("seconds", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("day", "resource", name="pk_live_use"),
        sqlite_with_rowid=False,
    )


def _tally() -> None:
    op.create_table(
        "tally",
        sa.Column("resource", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("segments", sa.BigInteger(), nullable=False),
        sa.Column("records", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("first_us", sa.BigInteger(), nullable=True),
        sa.Column("last_us", sa.BigInteger(), nullable=True),
        sa.Column("accepted_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("resource", name="pk_tally"),
    )
