"""Born registration (天生注册, T/ADEDS 02-2023 §6.2): made in the first record's commit.

The entry is signed by the agent, travels before the resource's first segment, and is made again
when anything that it says changes. A resource that is key-protected (重点保护级) has none: its
schema stays beside its data, for the owner who exports the vault.
"""

import hashlib
import sqlite3
import unicodedata
from dataclasses import dataclass
from typing import Final

import msgspec

from agent.intake.outbox import queue_object
from agent.store.ports import Clock, Identity, Randomness
from agent.store.resources import NO_ENTRY, Bound, Stream
from agent.store.rest import RootKey
from agent.store.schema import OutboxState, StreamState
from protocol import ids
from protocol.envelope import Envelope
from protocol.errors import Code, ConfigError
from protocol.grades import rules
from protocol.ids import ObjectId, PrincipalId, StreamId
from protocol.limits import NONCE_BYTES, REASON_CHARS_MAX
from protocol.packs import Pack
from protocol.registration import (
    Classification,
    Coordinates,
    Encryption,
    OwnerBasis,
    Registration,
    classify,
    make_registration,
)
from protocol.times import ClockReading, ClockSource

STREAM_ID_BYTES: Final = 16
STORAGE_ADDRESS: Final = "hub:/v1/resources/{resource}/segments"
ACCESS_METHOD: Final = "GET, RFC 9421 signature or bearer token; shanmen read"


@dataclass(frozen=True, slots=True)
class Birth:
    """A registration entry that a transaction wrote.

    stream: new with a first record, and where the grade changed; it stands in the file then.
    """

    entry: ObjectId
    version: int
    hash: bytes
    stream: Stream | None


class Register:
    """Makes entries and streams; its writing methods run inside the caller's transaction."""

    def __init__(
        self,
        identity: Identity,
        root: RootKey,
        clock: Clock,
        random: Randomness,
        *,
        epoch_us: int,
    ) -> None:
        self.identity = identity
        self.root = root
        self._clock = clock
        self._random = random
        self.epoch_us = epoch_us

    def new_stream(self) -> Stream:
        """A stream with an id of its own; its numbers count from 0."""
        return Stream(id=StreamId(self._random(STREAM_ID_BYTES)))

    def birth(self, connection: sqlite3.Connection, bound: Bound) -> Birth:
        """Write the entry of a resource; its first record begins a stream, as does a re-grading.

        Nothing of before may wait in the journal any more: it belongs to the stream of before.
        """
        content = self.content_hash(bound)
        version = bound.entry_version + 1
        envelope = self._envelope(bound, version)
        if envelope is None:
            entry = NO_ENTRY
            data = schema_row(bound)
            self._keep_schema(connection, bound, data)
        else:
            entry, data = envelope.object_id, envelope.raw
            queue_object(connection, envelope)
        connection.execute(
            "INSERT INTO resource(id, local, version, entry, hash, grade, epoch, decision, data)"
            " VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT(id) DO UPDATE SET"
            " local = excluded.local, version = excluded.version, entry = excluded.entry,"
            " hash = excluded.hash, grade = excluded.grade, data = excluded.data",
            (
                bound.id, bound.local, version, entry, content, int(bound.grade),
                bound.epoch, bound.decision, data,
            ),
        )  # fmt: skip
        return Birth(entry, version, content, self._begun(connection, bound))

    def _begun(self, connection: sqlite3.Connection, bound: Bound) -> Stream | None:
        if bound.stream is None:
            first = self.new_stream()
            self.insert_stream(connection, bound, first)
            return first
        if bound.is_regraded and bound.stream.next_seq and not bound.stream.rows:
            return self.follow(connection, bound, bound.stream, reason="re-grade")
        return None

    @staticmethod
    def born(bound: Bound, birth: Birth) -> None:
        """Move memory after the commit of a birth."""
        bound.entry, bound.entry_version = birth.entry, birth.version
        bound.entry_hash = birth.hash
        bound.must_register = bound.is_regraded = False

    @staticmethod
    def insert_stream(connection: sqlite3.Connection, bound: Bound, stream: Stream) -> None:
        """Write the row of a new live stream."""
        connection.execute(
            "INSERT INTO stream(id, resource, next_seq, head, next_row, acked_seq, state,"
            " sealed, continues, records, duplicates, maybe_repeat, quarantined, accepted,"
            " lost, due_n, due_bytes, grace_n, grace_bytes)"
            " VALUES(?, ?, 0, ?, ?, -1, ?, 0, ?, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)",
            (
                stream.id, bound.id, stream.head, stream.next_row, int(StreamState.LIVE),
                stream.continues,
            ),
        )  # fmt: skip

    def follow(
        self, connection: sqlite3.Connection, bound: Bound, old: Stream, *, reason: str
    ) -> Stream:
        """End a stream, write the one that continues it: row numbers go on, epochs begin anew."""
        new = self.new_stream()
        new.next_row = old.next_row
        new.continues = msgspec.msgpack.encode(
            [old.id, max(0, old.next_seq - 1), old.head, reason[:REASON_CHARS_MAX]]
        )
        self.insert_stream(connection, bound, new)
        connection.execute(
            "UPDATE stream SET state = ? WHERE id = ?", (int(StreamState.ENDED), old.id)
        )
        connection.execute(
            "UPDATE epoch_key SET open = 0 WHERE resource = ? AND open = 1", (bound.id,)
        )
        return new

    def content_hash(self, bound: Bound) -> bytes:
        """Hash of everything an entry says but version, time and nonce: to see a change."""
        entry = self._entry(bound, version=1, previous=None, nonce=bytes(NONCE_BYTES))
        fixed = msgspec.structs.replace(
            entry,
            registered_at=ClockReading(wall_us=0, offset_us=0, error_us=0, source=ClockSource.NONE),
        )
        return hashlib.blake2b(msgspec.msgpack.encode(fixed), digest_size=32).digest()

    def _envelope(self, bound: Bound, version: int) -> Envelope | None:
        if not rules(bound.grade).leaves:
            return None
        previous = bound.entry if version > 1 else None
        entry = self._entry(
            bound, version=version, previous=previous, nonce=self._random(NONCE_BYTES)
        )
        return make_registration(entry, self.identity.signing)

    def _keep_schema(self, connection: sqlite3.Connection, bound: Bound, data: bytes) -> None:
        connection.execute(
            "INSERT INTO outbox(kind, state, object, data) VALUES('schema', ?, ?, ?)",
            (int(OutboxState.SENT), bound.id, data),
        )

    def _entry(
        self, bound: Bound, *, version: int, previous: ObjectId | None, nonce: bytes
    ) -> Registration:
        identity, settings, pack = self.identity, bound.settings, bound.pack
        mark = self._clock.mark()
        return Registration(
            resource=bound.id,
            agent=identity.agent,
            local_name=unicodedata.normalize("NFC", bound.local),
            version=version,
            previous=previous,
            kind=pack.kind,
            name_zh=settings.name_zh or pack.zh,
            name_en=settings.name_en or pack.en,
            description=settings.description,
            pack=pack.id,
            pack_version=pack.version,
            schema=pack.schema_bytes,
            schema_hash=pack.schema_hash,
            record_index=pack.record_index,
            storage_address=STORAGE_ADDRESS.format(resource=ids.show(bound.id)),
            access_method=ACCESS_METHOD,
            rhythm=pack.rhythm,
            extent=None,
            owner=identity.owner.principal if identity.owner else None,
            owner_basis=self._basis(),
            producer=_principal(settings.producer) or identity.agent,
            provider=_principal(settings.provider),
            users=(),
            user_policy=settings.user_policy,
            data_type=settings.data_type or pack.zh,
            registered_at=ClockReading(
                wall_us=self._clock.now_us(),
                offset_us=mark.offset_us,
                error_us=mark.error_us,
                source=mark.source,
            ),
            region=settings.region or identity.region,
            place=settings.place,
            coordinates=_coordinates(settings.coordinates),
            classification=_classification(bound),
            grade=bound.grade,
            secrecy=settings.secrecy,
            encryption=Encryption(
                suite=1,
                epoch_s=self.epoch_us // 1_000_000 if bound.is_sealed else 0,
                groups=pack.groups,
            ),
            owner_key=_owner_key(identity),
            agent_key=identity.signing.key_id,
            nonce=nonce,
        )

    def _basis(self) -> OwnerBasis:
        return self.identity.owner_basis if self.identity.owner else "none"


def schema_row(bound: Bound) -> bytes:
    """What stands in the vault in the place of an entry: msgpack of [local name, pack]."""
    return msgspec.msgpack.encode([bound.local, bound.pack])


def open_schema_row(data: bytes) -> Pack:
    """The pack of a schema that `schema_row` made. Raises msgspec.DecodeError."""
    return msgspec.msgpack.decode(data, type=tuple[str, Pack])[1]


def _principal(text: str) -> PrincipalId | None:
    return PrincipalId(ids.parse(text)) if text else None


def _coordinates(given: tuple[float, float] | None) -> Coordinates | None:
    if given is None:
        return None
    return Coordinates(longitude=given[0], latitude=given[1], system="WGS-84")


def _owner_key(identity: Identity) -> ids.KeyId | None:
    if identity.owner is None:
        return None
    return ids.key_id(identity.owner.sealing_key, use=ids.Use.SEALING)


def _classification(bound: Bound) -> Classification:
    """The twelve dimensions of §6.5: six may be stated by the configuration, the others follow."""
    derived = classify(bound.grade, bound.pack.kind)
    typed = ("relation", "age", "change", "origin", "domain", "use")
    stated = {k: v for k, v in bound.settings.classification.items() if k in typed}
    try:
        return msgspec.convert(msgspec.to_builtins(derived) | stated, Classification)
    except msgspec.ValidationError as error:
        where = f"resource.{bound.local}.classification"
        raise ConfigError(Code.CONFIG_INVALID, field=where, expected=str(error)) from error
