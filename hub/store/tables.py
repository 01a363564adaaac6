"""Every table of the hub, once: SQLAlchemy Core, the same for SQLite and PostgreSQL.

Ids are raw bytes as `protocol.ids` makes them; times are microseconds UTC (`_us`). Small integers
stand for rows of `stream` and `resource` inside the tables that grow with traffic, because a
segment's row is kept for ever. `raw` columns hold received bytes untouched: these were signed.
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
)
from sqlalchemy.types import TypeDecorator

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Bytes(LargeBinary):
    """Bytes without SQLAlchemy's wrapping of each value, which costs more than the insert."""

    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> None:
        """Both drivers take bytes as they are."""

    def result_processor(self, dialect: Dialect, coltype: object) -> None:
        """Both drivers give bytes."""


def words(text: str) -> str:
    """The text as both engines keep it: PostgreSQL has no NUL, and neither lone surrogates."""
    if "\x00" in text or not text.isascii():
        text = text.replace("\x00", "\ufffd").encode(errors="replace").decode()
    return text


class Words(TypeDecorator[str]):
    """Text that strangers wrote."""

    impl = String
    cache_ok = True

    def process_bind_param(
        self,
        value: str | None,
        dialect: Dialect,  # noqa: ARG002 SQLAlchemy's interface
    ) -> str | None:
        """See `words`."""
        return None if value is None else words(value)


#: Autoincrementing key that is SQLite's rowid and PostgreSQL's bigserial.
Serial = BigInteger().with_variant(Integer, "sqlite")

site = Table(
    "site",
    metadata,
    Column("id", Words(64), primary_key=True),  # the operator's short name, e.g. "xihu-east"
    Column("name", Words, nullable=False),
    Column("region", Words, nullable=False),  # GB/T 2260 code
    Column("owner", Bytes),  # principal id, or none yet
    Column("created_us", BigInteger, nullable=False),
)

principal = Table(
    "principal",
    metadata,
    Column("id", Bytes, primary_key=True),
    Column("kind", String(16), nullable=False),  # owner, agent, hub …
    Column("name", Words, nullable=False, default=""),
    Column("signing", Bytes, nullable=False),  # public keys
    Column("sealing", Bytes, nullable=False),
    Column("version", Integer, nullable=False),
    Column("object", Bytes, nullable=False),  # newest `principal` envelope
    Column("created_us", BigInteger, nullable=False),
)

key = Table(
    "key",
    metadata,
    Column("id", Bytes, primary_key=True),  # key id of a signing key
    Column("principal", Bytes, nullable=False),
    Column("kind", String(16), nullable=False),  # of the principal: agent, owner
    Column("public", Bytes, nullable=False),
    Column("created_us", BigInteger, nullable=False),
)

agent = Table(
    "agent",
    metadata,
    Column("id", Bytes, primary_key=True),
    Column("site", Words(64), ForeignKey("site.id"), nullable=False),
    Column("name", Words, nullable=False),
    Column("software", Words, nullable=False),
    Column("signing", Bytes, nullable=False),
    Column("sealing", Bytes, nullable=False),
    Column("owner", Bytes),  # as pinned at the gateway, or none
    Column("state", String(16), nullable=False),  # domain.agents.AgentState
    Column("reason", Words, nullable=False, default=""),  # why suspended
    Column("enrolment", Bytes, nullable=False),  # object id of its enrolment
    Column("created_us", BigInteger, nullable=False),
    Column("seen_us", BigInteger, nullable=False, default=0),
    Column("inbox_generation", BigInteger, nullable=False, default=0),
    Column("inbox_number", BigInteger, nullable=False, default=0),  # last acknowledged
)

token = Table(
    "token",
    metadata,
    Column("id", Bytes, primary_key=True),
    Column("public", Bytes, nullable=False),  # the secret is never stored
    Column("kind", String(8), nullable=False),  # site, owner
    Column("site", Words(64), ForeignKey("site.id")),
    Column("state", String(8), nullable=False),  # new, used, void
    Column("expires_us", BigInteger, nullable=False),
    Column("request", Bytes),  # object id that used it
    Column("created_us", BigInteger, nullable=False),
)

read_token = Table(
    "read_token",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("hash", Bytes, nullable=False, unique=True),
    Column("name", Words, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("revoked_us", BigInteger),
)

resource = Table(
    "resource",
    metadata,
    Column("n", Serial, primary_key=True, autoincrement=True),
    Column("id", Bytes, nullable=False, unique=True),
    Column("agent", Bytes, ForeignKey("agent.id"), nullable=False),
    Column("site", Words(64), ForeignKey("site.id"), nullable=False),
    Column("entry", Bytes, nullable=False),  # object id of the entry in force
    Column("kind", String(16), nullable=False),  # registration, description
    Column("version", Integer, nullable=False),
    Column("grade", Integer, nullable=False),
    Column("owner", Bytes),
    Column("pack", Words(128), nullable=False),
    Column("data_kind", String(16), nullable=False),
    Column("name_zh", Words, nullable=False),
    Column("name_en", Words, nullable=False),
    Column("region", Words, nullable=False),
    Column("code", String(40), nullable=False),  # catalog code, given by the hub
    Column("created_us", BigInteger, nullable=False),
    Column("changed_us", BigInteger, nullable=False),
    Index("ix_resource_agent", "agent"),
)

entry = Table(
    "entry",
    metadata,
    Column("object", Bytes, primary_key=True),
    Column("resource", Bytes, nullable=False),
    Column("version", Integer, nullable=False),
    Column("grade", Integer, nullable=False),
    Column("suite", Integer, nullable=False),
    Index("ix_entry_resource_version", "resource", "version"),  # a restored image counts again
)

object_ = Table(
    "object",
    metadata,
    Column("id", Bytes, primary_key=True),
    Column("kind", String(24), nullable=False),
    Column("signer", Bytes, nullable=False),  # principal
    Column("record_hash", Bytes, nullable=False),
    Column("raw", Bytes, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("leaf", BigInteger, nullable=False),
    Column("accepted_us", BigInteger, nullable=False),
    Index("ix_object_kind_signer", "kind", "signer"),
)

wrap = Table(
    "wrap",
    metadata,
    Column("object", Bytes, ForeignKey("object.id"), primary_key=True),
    Column("resource", Bytes, nullable=False),
    Column("recipient", Bytes, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("grp", Integer, nullable=False),
    Index("ix_wrap_recipient_resource_epoch", "recipient", "resource", "epoch"),
)

stream = Table(
    "stream",
    metadata,
    Column("n", Serial, primary_key=True, autoincrement=True),
    Column("agent", Bytes, nullable=False),
    Column("resource", Bytes, nullable=False),
    Column("id", Bytes, nullable=False),
    Column("seq", BigInteger, nullable=False),  # of the last accepted segment
    Column("head", Bytes, nullable=False),  # its id
    Column("last_seq", BigInteger),  # set when another stream continues this one
    Column("run", Bytes, nullable=False),  # the newest run in its first segment, or empty
    Column("created_us", BigInteger, nullable=False),
    UniqueConstraint("agent", "resource", "id"),
)

segment = Table(
    "segment",
    metadata,
    Column("change", Serial, primary_key=True, autoincrement=False),  # order of last change
    Column("id", Bytes, nullable=False, unique=True),
    Column("stream", BigInteger, nullable=False),  # stream.n
    Column("seq", BigInteger, nullable=False),
    Column("resource", BigInteger, nullable=False),  # resource.n
    Column("state", Integer, nullable=False),  # protocol.leaf.State
    Column("count", Integer, nullable=False),
    Column("first_us", BigInteger, nullable=False),
    Column("last_us", BigInteger, nullable=False),
    Column("accepted_us", BigInteger, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("leaf", BigInteger, nullable=False),
    Column("pack", Integer),  # pack.n where state is BODY
    Column("offset", Integer),
    Column("length", Integer),
    Column("head", Bytes, nullable=False),  # prelude ‖ header ‖ signature, as received
    UniqueConstraint("stream", "seq"),
    Index("ix_segment_resource_change", "resource", "change"),
    Index("ix_segment_pack", "pack"),
)

pack = Table(
    "pack",
    metadata,
    Column("n", Serial, primary_key=True, autoincrement=True),
    Column("name", String(64), nullable=False, unique=True),  # hex SHA-256 of its bytes
    Column("size", BigInteger, nullable=False),
    Column("created_us", BigInteger, nullable=False),
)

row_range = Table(
    "row_range",
    metadata,
    Column("resource", BigInteger, primary_key=True),  # resource.n
    Column("run", Bytes, primary_key=True),
    Column("first", BigInteger, primary_key=True),
    Column("last", BigInteger, nullable=False),
    Column("stream", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

nonce = Table(
    "nonce",
    metadata,
    Column("key", Bytes, primary_key=True),
    Column("nonce", Bytes, primary_key=True),
    Column("expires_us", BigInteger, nullable=False),
    Index("ix_nonce_expires_us", "expires_us"),
    sqlite_with_rowid=False,
)

ledger = Table(
    "ledger",
    metadata,
    Column("generation", Integer, primary_key=True, autoincrement=False),
    Column("origin", Words, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("frontier", Bytes, nullable=False),  # hashes of the complete subtrees, largest first
    Column("changes", BigInteger, nullable=False),  # counter of segment.change
    Column("live", Boolean, nullable=False),
)

leaf = Table(
    "leaf",
    metadata,
    Column("generation", Integer, primary_key=True),
    Column("idx", BigInteger, primary_key=True),
    Column("data", Bytes, nullable=False),
)

node = Table(
    "node",
    metadata,
    Column("generation", Integer, primary_key=True),
    Column("level", Integer, primary_key=True),
    Column("idx", BigInteger, primary_key=True),
    Column("hash", Bytes, nullable=False),
    sqlite_with_rowid=False,
)

inbox = Table(
    "inbox",
    metadata,
    Column("agent", Bytes, ForeignKey("agent.id"), primary_key=True),
    Column("generation", Integer, primary_key=True),
    Column("n", BigInteger, primary_key=True),
    Column("expires_us", BigInteger, nullable=False),
    Column("raw", Bytes, nullable=False),  # hub envelope `inbox`
)

audit = Table(
    "audit",
    metadata,
    Column("n", Serial, primary_key=True, autoincrement=False),
    Column("at_us", BigInteger, nullable=False),
    Column("who", Words, nullable=False),  # principal id as shown, "operator:<name>", "hub"
    Column("source", Words, nullable=False),  # network address or "console"
    Column("action", String(32), nullable=False),
    Column("subject", Words, nullable=False),
    Column("before", Words, nullable=False),  # JSON, "" where there was nothing
    Column("after", Words, nullable=False),
    Column("link", Bytes, nullable=False),  # hash over the row and the link before it
)

user = Table(
    "user",
    metadata,
    Column("id", Serial, primary_key=True, autoincrement=True),
    Column("name", Words(64), nullable=False, unique=True),  # what is typed at login
    Column("role", String(8), nullable=False),  # domain.users.Role
    Column("hash", String(256), nullable=False),  # Argon2id with its parameters and salt
    Column("disabled", Boolean, nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("changed_us", BigInteger, nullable=False),
    sqlite_autoincrement=True,  # a number stands in the audit trail: never given twice
)

session = Table(
    "session",
    metadata,
    Column("hash", Bytes, primary_key=True),  # of the cookie's token, which is never stored
    Column("user", BigInteger, ForeignKey("user.id"), nullable=False),
    Column("created_us", BigInteger, nullable=False),
    Column("seen_us", BigInteger, nullable=False),  # of its last request, coarse
    Index("ix_session_user", "user"),
)

live_use = Table(
    "live_use",
    metadata,
    Column("day", BigInteger, primary_key=True, autoincrement=False),  # since 1970, China's time
    Column("resource", BigInteger, primary_key=True, autoincrement=False),  # resource.n
    Column("seconds", Integer, nullable=False),
    sqlite_with_rowid=False,
)

tally = Table(
    "tally",
    metadata,
    Column("resource", BigInteger, primary_key=True, autoincrement=False),  # resource.n
    Column("segments", BigInteger, nullable=False),
    Column("records", BigInteger, nullable=False),
    Column("bytes", BigInteger, nullable=False),  # of bodies that are kept
    Column("first_us", BigInteger),  # event time of the earliest record
    Column("last_us", BigInteger),
    Column("accepted_us", BigInteger),  # when the newest segment was accepted
)

meta = Table(
    "meta",
    metadata,
    Column("k", String(32), primary_key=True),
    Column("v", Words, nullable=False),
)
