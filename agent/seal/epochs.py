"""Epoch keys (周期密钥) by event time, wrapped at rest, wrapped to the owner at birth.

An epoch is an interval of *event time*, a day by default. The open epoch takes what is not older
than its start - `lateness`; older records go to a backfill epoch with its own number, keys and
interval, so that a year of history read today is not under today's key. What claims to come from
the far future gets an epoch of its own and never becomes the open one while the clock is trusted.
"""

import contextlib
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from agent.intake.outbox import queue_object
from agent.store.database import Database
from agent.store.ports import DAY_US, Clock, Identity, Randomness
from agent.store.resources import Bound
from agent.store.rest import KEY_BYTES, RootKey
from agent.store.schema import BodyState, OutboxState
from protocol.errors import DecodeError
from protocol.ids import ResourceId
from protocol.keys import EpochKey
from protocol.limits import NONCE_BYTES
from protocol.times import ClockSource
from protocol.wraps import Seen, make_wrap

FUTURE_US: Final = DAY_US  # event times further ahead of a trusted clock are not believed
LIVE_EPOCHS_MAX: Final = 64  # keys of one resource held in memory

Keys = Mapping[int, EpochKey]  # by column group


@dataclass(slots=True)
class Epoch:
    """One interval of event time of one resource, with a key for each column group."""

    number: int
    from_us: int
    to_us: int
    keys: dict[int, EpochKey]
    is_open: bool


class Epochs:
    """The epochs of one file's resources."""

    def __init__(
        self,
        *,
        database: Database,
        root: RootKey,
        identity: Identity,
        clock: Clock,
        random: Randomness,
        epoch_us: int,
        lateness_us: int,
    ) -> None:
        self.identity = identity
        self.seen: Seen | None = None  # the last verified checkpoint, for wraps
        self.unreadable = 0  # keys that changed on the disk, as they were loaded
        self._database = database
        self._root = root
        self._clock = clock
        self._random = random
        self.epoch_us = epoch_us
        self._lateness_us = lateness_us
        self._live: dict[ResourceId, list[Epoch]] = {}

    def choose(self, bound: Bound, event_us: int) -> Epoch | None:
        """The live epoch that takes a record of this event time; None: one must be made."""
        opened = self._open(bound)
        if opened is not None and opened.from_us - self._lateness_us <= event_us < opened.to_us:
            return opened
        for epoch in reversed(self._live.get(bound.id, [])):
            if epoch.from_us <= event_us < epoch.to_us:
                return epoch
        return None

    def interval(self, bound: Bound) -> tuple[int, int]:
        """Event times that the open epoch takes, [from, to); empty where none is open."""
        opened = self._open(bound)
        return (0, 0) if opened is None else (opened.from_us - self._lateness_us, opened.to_us)

    async def make(self, bound: Bound, event_us: int) -> Epoch:
        """Draw the keys of a new epoch; they and the owner's wraps are durable at return."""
        from_us = event_us // self.epoch_us * self.epoch_us
        to_us = from_us + self.epoch_us
        opened = self._open(bound)
        is_open = self._may_open(opened, from_us)
        number = bound.epoch + 1
        keys = {
            group: EpochKey(
                resource=bound.id,
                epoch=number,
                group=group,
                key=self._random(KEY_BYTES),
                from_us=from_us,
                to_us=to_us,
            )
            for group in range(len(bound.layout.groups))
        }
        epoch = Epoch(number, from_us, to_us, keys, is_open)
        now_us = self._clock.now_us()

        def work(connection: sqlite3.Connection) -> None:
            if is_open:
                connection.execute(
                    "UPDATE epoch_key SET open = 0 WHERE resource = ? AND open = 1", (bound.id,)
                )
            for key in keys.values():
                self._insert(connection, key, is_open=is_open, now_us=now_us)
            connection.execute("UPDATE resource SET epoch = ? WHERE id = ?", (number, bound.id))

        def then(_: None) -> None:
            bound.epoch = number
            live = self._live.setdefault(bound.id, [])
            if is_open and opened is not None:
                opened.is_open = False
            live.append(epoch)
            if len(live) > LIVE_EPOCHS_MAX:
                live.pop(0 if not live[0].is_open else 1)

        await self._database.write("epoch", work, then=then)
        return epoch

    def close(self, bound: Bound) -> None:
        """End all live epochs: a new stream, another grade or owner begins with new keys."""
        self._live.pop(bound.id, None)

    def forget(self, gone: Iterable[tuple[bytes, int]]) -> None:
        """Drop keys from memory whose rows are gone."""
        for resource, number in gone:
            live = self._live.get(ResourceId(resource), [])
            live[:] = [epoch for epoch in live if epoch.number != number]

    def keys_of(
        self, connection: sqlite3.Connection, resource: bytes, number: int
    ) -> dict[int, EpochKey]:
        """The keys of an epoch, by column group, on the database's thread; lost ones are absent."""
        rows = connection.execute(
            "SELECT grp, wrapped, from_us, to_us, commitment FROM epoch_key"
            " WHERE resource = ? AND epoch = ?",
            (resource, number),
        ).fetchall()
        found: dict[int, EpochKey] = {}
        for group, *row in rows:
            key = self._unwrapped(resource, (number, group, *row))
            if key is not None:
                found[group] = key
        return found

    def _unwrapped(
        self, resource: bytes, row: tuple[int, int, bytes, int, int, bytes]
    ) -> EpochKey | None:
        """The key of a row (epoch, group, wrapped, from, to, commitment); None: it is damaged."""
        number, group, wrapped, from_us, to_us, commitment = row
        with contextlib.suppress(DecodeError):
            return EpochKey(
                resource=ResourceId(resource),
                epoch=number,
                group=group,
                key=self._root.unwrap(b"epoch" + commitment, wrapped),
                from_us=from_us,
                to_us=to_us,
            )
        return None

    async def load(self, bound: Bound) -> None:
        """Take back the live epochs of a resource after a start."""
        rows = await self._database.read(
            lambda c: c.execute(
                "SELECT epoch, grp, wrapped, from_us, to_us, commitment, open FROM epoch_key"
                " WHERE resource = ? ORDER BY epoch DESC, grp LIMIT ?",
                (bound.id, LIVE_EPOCHS_MAX * max(1, len(bound.layout.groups))),
            ).fetchall()
        )
        epochs: dict[int, Epoch] = {}
        for *row, is_open in rows:
            number, group, _, from_us, to_us, _ = row
            bound.epoch = max(bound.epoch, number)
            key = self._unwrapped(bound.id, (*row,))
            if key is None:
                self.unreadable += 1  # an epoch that lacks a key is not gone on with
                continue
            epoch = epochs.setdefault(number, Epoch(number, from_us, to_us, {}, bool(is_open)))
            epoch.keys[group] = key
        whole = [e for e in epochs.values() if len(e.keys) == len(bound.layout.groups)]
        self._live[bound.id] = sorted(whole, key=lambda e: e.number)

    async def confirm_owner(self, identity: Identity) -> None:
        """Wrap to the owner what has no wrap; let go what was held until the owner was known."""
        self.identity = identity

        def work(connection: sqlite3.Connection) -> None:
            if identity.owner is None or not identity.owner_confirmed:
                return
            self._wrap_held(connection, all_of_them=False)
            connection.execute(
                "UPDATE outbox SET state = ? WHERE state = ?",
                (int(OutboxState.DUE), int(OutboxState.HELD)),
            )
            connection.execute(
                "UPDATE body SET state = ? WHERE state = ?",
                (int(BodyState.DUE), int(BodyState.HELD)),
            )

        await self._database.write("owner", work)

    def wrap_again(self, connection: sqlite3.Connection) -> None:
        """Wrap all keys that are held once more: of a damaged wrap nobody knows whose it was."""
        self._wrap_held(connection, all_of_them=True)

    def _wrap_held(self, connection: sqlite3.Connection, *, all_of_them: bool) -> None:
        rows = connection.execute(
            "SELECT resource, epoch, grp, wrapped, from_us, to_us, commitment FROM epoch_key"
            " WHERE wrap_sent = 0 OR ?",
            (all_of_them,),
        ).fetchall()
        for resource, *row, commitment in rows:
            key = self._unwrapped(resource, (*row, commitment))
            if key is not None:
                self._wrap(connection, key)
            connection.execute(
                "UPDATE epoch_key SET wrap_sent = 1 WHERE commitment = ?", (commitment,)
            )

    async def has_unwrapped(self) -> bool:
        """Whether keys wait for an owner's wrap, or bodies for being let go."""

        def work(connection: sqlite3.Connection) -> bool:
            row = connection.execute(
                "SELECT EXISTS(SELECT 1 FROM epoch_key WHERE wrap_sent = 0)"
                " OR EXISTS(SELECT 1 FROM body WHERE state = ?)"
                " OR EXISTS(SELECT 1 FROM outbox WHERE state = ?)",
                (int(BodyState.HELD), int(OutboxState.HELD)),
            ).fetchone()
            return bool(row[0])

        return await self._database.read(work)

    def _open(self, bound: Bound) -> Epoch | None:
        for epoch in reversed(self._live.get(bound.id, [])):
            if epoch.is_open:
                return epoch
        return None

    def _may_open(self, opened: Epoch | None, from_us: int) -> bool:
        mark = self._clock.mark()
        if mark.source is ClockSource.NONE:
            return opened is None or from_us > opened.from_us
        now_us = self._clock.now_us() + mark.offset_us
        if from_us > now_us + FUTURE_US:
            return False
        if opened is None:
            return from_us >= now_us - self.epoch_us - self._lateness_us
        return from_us > opened.from_us or opened.from_us > now_us + FUTURE_US

    def _insert(
        self, connection: sqlite3.Connection, key: EpochKey, *, is_open: bool, now_us: int
    ) -> None:
        commitment = key.commitment()
        has_owner = self.identity.owner is not None and self.identity.owner_confirmed
        connection.execute(
            "INSERT INTO epoch_key(commitment, resource, epoch, grp, wrapped, from_us, to_us,"
            " wrap_sent, open, last_seq, used_at) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, -1, ?)",
            (
                commitment, key.resource, key.epoch, key.group,
                self._root.wrap(b"epoch" + commitment, key.key),
                key.from_us, key.to_us, int(has_owner), int(is_open), now_us,
            ),
        )  # fmt: skip
        if has_owner:
            self._wrap(connection, key)

    def _wrap(self, connection: sqlite3.Connection, key: EpochKey) -> None:
        owner = self.identity.owner
        if owner is None:
            return
        wrap = make_wrap(
            key,
            recipient=owner.principal,
            recipient_sealing=owner.sealing_key,
            maker=self.identity.signing,
            maker_principal=self.identity.agent,
            seen=self.seen,
            nonce=self._random(NONCE_BYTES),
            box_seed=self._random(32),
        )
        queue_object(connection, wrap)
