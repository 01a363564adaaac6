"""The first schema."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

#: SQLite's rowid, PostgreSQL's bigserial.
_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make every table, those first that others refer to."""
    _site()
    _principal()
    _key()
    _agent()
    _token()
    _read_token()
    _inbox()
    _resource()
    _entry()
    _object()
    _wrap()
    _stream()
    _segment()
    _pack()
    _row_range()
    _ledger()
    _leaf()
    _node()
    _nonce()
    _audit()
    _meta()


def _site() -> None:
    op.create_table(
        "site",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("region", sa.String(), nullable=False),
        sa.Column("owner", sa.LargeBinary(), nullable=True),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_site"),
    )


def _principal() -> None:
    op.create_table(
        "principal",
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("signing", sa.LargeBinary(), nullable=False),
        sa.Column("sealing", sa.LargeBinary(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("object", sa.LargeBinary(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_principal"),
    )


def _key() -> None:
    op.create_table(
        "key",
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("principal", sa.LargeBinary(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("public", sa.LargeBinary(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_key"),
    )


def _agent() -> None:
    op.create_table(
        "agent",
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("site", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("software", sa.String(), nullable=False),
        sa.Column("signing", sa.LargeBinary(), nullable=False),
        sa.Column("sealing", sa.LargeBinary(), nullable=False),
        sa.Column("owner", sa.LargeBinary(), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("enrolment", sa.LargeBinary(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("seen_us", sa.BigInteger(), nullable=False),
        sa.Column("inbox_generation", sa.BigInteger(), nullable=False),
        sa.Column("inbox_number", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["site"], ["site.id"], name="fk_agent_site"),
        sa.PrimaryKeyConstraint("id", name="pk_agent"),
    )


def _token() -> None:
    op.create_table(
        "token",
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("public", sa.LargeBinary(), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("site", sa.String(length=64), nullable=True),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("expires_us", sa.BigInteger(), nullable=False),
        sa.Column("request", sa.LargeBinary(), nullable=True),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["site"], ["site.id"], name="fk_token_site"),
        sa.PrimaryKeyConstraint("id", name="pk_token"),
    )


def _read_token() -> None:
    op.create_table(
        "read_token",
        sa.Column("id", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("revoked_us", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_read_token"),
        sa.UniqueConstraint("hash", name="uq_read_token_hash"),
    )


def _inbox() -> None:
    op.create_table(
        "inbox",
        sa.Column("agent", sa.LargeBinary(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("expires_us", sa.BigInteger(), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["agent"], ["agent.id"], name="fk_inbox_agent"),
        sa.PrimaryKeyConstraint("agent", "generation", "n", name="pk_inbox"),
    )


def _resource() -> None:
    op.create_table(
        "resource",
        sa.Column("n", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("agent", sa.LargeBinary(), nullable=False),
        sa.Column("site", sa.String(length=64), nullable=False),
        sa.Column("entry", sa.LargeBinary(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("grade", sa.Integer(), nullable=False),
        sa.Column("owner", sa.LargeBinary(), nullable=True),
        sa.Column("pack", sa.String(length=128), nullable=False),
        sa.Column("data_kind", sa.String(length=16), nullable=False),
        sa.Column("name_zh", sa.String(), nullable=False),
        sa.Column("name_en", sa.String(), nullable=False),
        sa.Column("region", sa.String(), nullable=False),
        sa.Column("code", sa.String(length=40), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.Column("changed_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["agent"], ["agent.id"], name="fk_resource_agent"),
        sa.ForeignKeyConstraint(["site"], ["site.id"], name="fk_resource_site"),
        sa.PrimaryKeyConstraint("n", name="pk_resource"),
        sa.UniqueConstraint("id", name="uq_resource_id"),
    )
    op.create_index("ix_resource_agent", "resource", ["agent"], unique=False)


def _entry() -> None:
    op.create_table(
        "entry",
        sa.Column("object", sa.LargeBinary(), nullable=False),
        sa.Column("resource", sa.LargeBinary(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("grade", sa.Integer(), nullable=False),
        sa.Column("suite", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("object", name="pk_entry"),
    )
    op.create_index("ix_entry_resource_version", "entry", ["resource", "version"], unique=False)


def _object() -> None:
    op.create_table(
        "object",
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("kind", sa.String(length=24), nullable=False),
        sa.Column("signer", sa.LargeBinary(), nullable=False),
        sa.Column("record_hash", sa.LargeBinary(), nullable=False),
        sa.Column("raw", sa.LargeBinary(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("leaf", sa.BigInteger(), nullable=False),
        sa.Column("accepted_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_object"),
    )
    op.create_index("ix_object_kind_signer", "object", ["kind", "signer"], unique=False)


def _wrap() -> None:
    op.create_table(
        "wrap",
        sa.Column("object", sa.LargeBinary(), nullable=False),
        sa.Column("resource", sa.LargeBinary(), nullable=False),
        sa.Column("recipient", sa.LargeBinary(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("grp", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["object"], ["object.id"], name="fk_wrap_object"),
        sa.PrimaryKeyConstraint("object", name="pk_wrap"),
    )
    op.create_index(
        "ix_wrap_recipient_resource_epoch", "wrap", ["recipient", "resource", "epoch"], unique=False
    )


def _stream() -> None:
    op.create_table(
        "stream",
        sa.Column("n", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("agent", sa.LargeBinary(), nullable=False),
        sa.Column("resource", sa.LargeBinary(), nullable=False),
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("head", sa.LargeBinary(), nullable=False),
        sa.Column("last_seq", sa.BigInteger(), nullable=True),
        sa.Column("run", sa.LargeBinary(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("n", name="pk_stream"),
        sa.UniqueConstraint("agent", "resource", "id", name="uq_stream_agent_resource_id"),
    )


def _segment() -> None:
    op.create_table(
        "segment",
        sa.Column("change", _SERIAL, autoincrement=False, nullable=False),
        sa.Column("id", sa.LargeBinary(), nullable=False),
        sa.Column("stream", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("resource", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Integer(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("first_us", sa.BigInteger(), nullable=False),
        sa.Column("last_us", sa.BigInteger(), nullable=False),
        sa.Column("accepted_us", sa.BigInteger(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("leaf", sa.BigInteger(), nullable=False),
        sa.Column("pack", sa.Integer(), nullable=True),
        sa.Column("offset", sa.Integer(), nullable=True),
        sa.Column("length", sa.Integer(), nullable=True),
        sa.Column("head", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("change", name="pk_segment"),
        sa.UniqueConstraint("id", name="uq_segment_id"),
        sa.UniqueConstraint("stream", "seq", name="uq_segment_stream_seq"),
    )
    op.create_index("ix_segment_pack", "segment", ["pack"], unique=False)
    op.create_index("ix_segment_resource_change", "segment", ["resource", "change"], unique=False)


def _pack() -> None:
    op.create_table(
        "pack",
        sa.Column("n", _SERIAL, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("created_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("n", name="pk_pack"),
        sa.UniqueConstraint("name", name="uq_pack_name"),
    )


def _row_range() -> None:
    op.create_table(
        "row_range",
        sa.Column("resource", sa.BigInteger(), nullable=False),
        sa.Column("run", sa.LargeBinary(), nullable=False),
        sa.Column("first", sa.BigInteger(), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.Column("stream", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("resource", "run", "first", name="pk_row_range"),
        sqlite_with_rowid=False,
    )


def _ledger() -> None:
    op.create_table(
        "ledger",
        sa.Column("generation", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("origin", sa.String(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("frontier", sa.LargeBinary(), nullable=False),
        sa.Column("changes", sa.BigInteger(), nullable=False),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("generation", name="pk_ledger"),
    )


def _leaf() -> None:
    op.create_table(
        "leaf",
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("idx", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("generation", "idx", name="pk_leaf"),
    )


def _node() -> None:
    op.create_table(
        "node",
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("level", sa.Integer(), nullable=False),
        sa.Column("idx", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("generation", "level", "idx", name="pk_node"),
        sqlite_with_rowid=False,
    )


def _nonce() -> None:
    op.create_table(
        "nonce",
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("nonce", sa.LargeBinary(), nullable=False),
        sa.Column("expires_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", "nonce", name="pk_nonce"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_nonce_expires_us", "nonce", ["expires_us"], unique=False)


def _audit() -> None:
    op.create_table(
        "audit",
        sa.Column("n", _SERIAL, autoincrement=False, nullable=False),
        sa.Column("at_us", sa.BigInteger(), nullable=False),
        sa.Column("who", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("action", sa.String(length=32), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("before", sa.String(), nullable=False),
        sa.Column("after", sa.String(), nullable=False),
        sa.Column("link", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("n", name="pk_audit"),
    )


def _meta() -> None:
    op.create_table(
        "meta",
        sa.Column("k", sa.String(length=32), nullable=False),
        sa.Column("v", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("k", name="pk_meta"),
    )
