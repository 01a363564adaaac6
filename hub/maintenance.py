"""Backup, the check at start, and restore: what keeps a hub honest over its own loss.

    backup:   packs ─▶ database copy ─▶ packs again ─▶ manifest ─▶ `backed_up_to` in the live hub
    start:    database ≥ last-checkpoint, and of the same history — else nothing is served
    restore:  staged copy ─▶ packs ─▶ [lost bodies, void tokens, new generation] ─▶ put in place

A hub put back in time has lost what it had signed. It says so: a new generation of the ledger, an
empty tree whose leaf 0 states what it follows; the old tree stays served, frozen. Agents send
again what they still hold.
"""

import asyncio
import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec
from sqlalchemy import Connection

from hub.files import save, sync_folder
from hub.ingest import BACKED_UP_KEY
from hub.ledger import Ledger
from hub.store import (
    audit,
    leaves,
    meta,
    migrate,
    packs,
    read_tokens,
    segments,
    sessions,
    summaries,
    tokens,
)
from hub.store.audit import Actor
from hub.store.bodies import Bodies
from hub.store.copy import copy_database
from hub.store.engine import Store, Tx, point
from hub.store.leaves import HeadRow
from protocol import merkle
from protocol.checkpoint import parse_note
from protocol.errors import Code, ConfigError, FatalError

DATABASE: Final = "hub.db"
PACKS: Final = "packs"
MANIFEST: Final = "backup.json"
ABOVE_MAX: Final = 15  #: numbers that may be skipped: agents and owners look so far ahead
RESTORED: Final = "restored.json"  #: which generation was opened from the backup last
_STAGED: Final = "hub.db.restoring"


class Backup(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup holds; also its manifest, written last: without it a backup is not one."""

    generation: int
    size: int  #: leaves: what agents are told as `backed_up_to`
    root: str  #: hex
    packs: int  #: in the backup
    copied: int  #: by this run; the others were there before
    made_us: int
    revision: str  #: of the database's schema


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What a restore did."""

    generation: int  #: the new one
    previous_size: int  #: leaves that the backup had
    lost_bodies: int  #: segments that are header-only now, because their pack is missing
    void_tokens: int
    noted: bool = True  #: the number stands in the backup's folder, so that it is not used again


async def backup(
    store: Store, bodies: Bodies, into: Path, *, now_us: int, also: Sequence[Path] = ()
) -> Backup:
    """Copy a running hub into a folder; run again into the same folder, it copies what is new.

    also: further files of the data folder (keys, configuration), copied under their names. At
    return everything is durable, and answers carry the new `backed_up_to`. Raises
    UnavailableError; a backup that was cut off has no manifest, or its old one.
    """
    manifest = await asyncio.to_thread(_copy, store, bodies, into, now_us, also)
    await store.write("backup", _note_backup, manifest)
    return manifest


def _copy(store: Store, bodies: Bodies, into: Path, now_us: int, also: Sequence[Path]) -> Backup:
    into.mkdir(mode=0o700, parents=True, exist_ok=True)
    point("backup.before")
    target = Bodies(into / PACKS)
    # Most packs first, so that the snapshot is as new as it can be when the rest is copied.
    copied = _copy_packs(bodies, target, store.read_now(packs.names))
    staged = into / f"{DATABASE}.new"
    copy_database(store.path, staged)
    point("backup.database")
    head, sizes = _inspect(staged)
    copied += _copy_packs(bodies, target, sizes)
    point("backup.packs")
    for path in also:
        save(into / path.name, path.read_bytes())
    staged.rename(into / DATABASE)
    sync_folder(into)
    made = Backup(
        generation=head.generation,
        size=head.size,
        root=merkle.Frontier.load(head.frontier).root().hex(),
        packs=len(sizes),
        copied=copied,
        made_us=now_us,
        revision=migrate.HEAD,
    )
    save(into / MANIFEST, json.dumps(msgspec.structs.asdict(made), indent=1).encode())
    point("backup.after")
    return made


def _copy_packs(source: Bodies, target: Bodies, names: Iterable[str]) -> int:
    return sum(source.copy_to(name, target) for name in sorted(names))


def _inspect(database: Path) -> tuple[HeadRow, dict[str, int]]:
    """The head and the packs of a database that nobody writes."""

    def look(tx: Connection) -> tuple[HeadRow | None, dict[str, int]]:
        return leaves.live(tx), packs.sizes(tx)

    copy = Store(database)
    try:
        head, sizes = copy.read_now(look)
    finally:
        copy.close_now()
    if head is None:
        raise FatalError(Code.STORAGE_DAMAGED, field="backup", expected="a live generation")
    return head, sizes


def _note_backup(tx: Tx, made: Backup) -> None:
    head = leaves.live(tx)
    if head is not None and head.generation == made.generation:
        meta.put(tx, BACKED_UP_KEY, str(made.size))


# --- start ---------------------------------------------------------------------------------------


def check_start(tx: Tx, ledger: Ledger, notes: Iterable[str]) -> None:
    """Hold the database against the checkpoints outside it (`LastCheckpoint.read`).

    Raises FatalError TREE_SMALLER if the database is behind one of them, CONSISTENCY_INVALID if it
    is another history: the hub must serve nothing until `restore` has opened a new generation.
    """
    head = leaves.live(tx)
    if head is None:
        raise FatalError(Code.STORAGE_DAMAGED, field="ledger", expected="a live generation")
    for note in notes:
        known = parse_note(note)
        place = (known.generation, known.size)
        if place > (head.generation, head.size):
            raise FatalError(
                Code.TREE_SMALLER,
                field="ledger",
                value=f"{head.generation}/{head.size}",
                expected=f"at least {known.generation}/{known.size}, which was signed",
            )
        if known.generation == head.generation and known.size:
            root = ledger.root(tx, head.generation, known.size)
            if known.origin != head.origin or root != known.root:
                raise FatalError(
                    Code.CONSISTENCY_INVALID,
                    field="ledger",
                    value=known.size,
                    expected="the root that was signed",
                )


# --- restore -------------------------------------------------------------------------------------


def stage(from_folder: Path, data: Path) -> Path:
    """Bring a backup's database and packs into the data folder, not yet in place. Blocks.

    Returns the staged database, for a Store on which `begin_generation` is run before
    `put_in_place`. Killed anywhere before that, the data folder is as it was. Raises ConfigError
    if the folder holds no complete backup.
    """
    try:
        said = msgspec.json.decode((from_folder / MANIFEST).read_bytes(), type=Backup)
    except (FileNotFoundError, msgspec.DecodeError) as error:
        raise ConfigError(
            Code.COMMAND_INVALID,
            field="backup",
            value=str(from_folder),
            expected=f"a folder with {MANIFEST}",
        ) from error
    staged = data / _STAGED
    for old in (staged, *_beside(staged)):
        old.unlink(missing_ok=True)
    copy_database(from_folder / DATABASE, staged)
    sync_folder(data)
    point("restore.staged")
    head, sizes = _inspect(staged)
    if (head.generation, head.size) < (said.generation, said.size):
        raise ConfigError(Code.COMMAND_INVALID, field="backup", value=said.size)
    source, target = Bodies(from_folder / PACKS), Bodies(data / PACKS)
    have = {name for name in sizes if source.size_of(name) is not None}
    _copy_packs(source, target, have)
    point("restore.packs")
    return staged


async def begin_generation(
    store: Store,
    bodies: Bodies,
    ledger: Ledger,
    notes: Sequence[str],
    *,
    by: Actor,
    now_us: int,
    noted: int = 0,
    above: int = 0,
) -> Restored:
    """Open the next generation on a database that was put back (staged, or by other means).

    notes: of `LastCheckpoint.read`; noted: of `opened_before`; above: the highest generation that
    an operator knows of: so that no generation's number is used twice. One transaction:
    segments whose pack is missing become header-only, unused enrolment tokens, all read tokens
    and all sessions end (they may have been used or revoked in the lost time), `backed_up_to`
    starts at 0, leaf 0 is written, the audit trail says so.
    """
    sizes = await store.read(packs.sizes)
    missing = [name for name, size in sizes.items() if bodies.size_of(name) != size]
    known = max([noted, *(parse_note(note).generation for note in notes)])
    lost_at = max((parse_note(note).size for note in notes), default=0)

    def begin(tx: Tx) -> Restored:
        old = leaves.live(tx)
        if old is None:
            raise FatalError(Code.STORAGE_DAMAGED, field="ledger", expected="a live generation")
        lost = sum(segments.lose_bodies(tx, name) for name in missing)
        for name in missing:
            packs.forget(tx, name)
        void = tokens.void_all(tx, by, now_us)
        for one in read_tokens.all_of(tx):
            read_tokens.revoke(tx, one.id, by, now_us)
        sessions.end_all(tx)
        if missing:
            summaries.recount(tx)
        meta.put(tx, BACKED_UP_KEY, "0")
        if above > max(old.generation, known) + ABOVE_MAX:
            raise ConfigError(
                Code.COMMAND_INVALID,
                field="--above",
                value=above,
                expected=f"at most {max(old.generation, known) + ABOVE_MAX}",
            )
        reason = f"restored from a backup of {old.size} leaves; {lost_at} had been signed"
        new = ledger.begin(tx, now_us, reason=reason, above=max(above, known))
        audit.record(
            tx,
            by,
            now_us,
            "hub.restore",
            new.origin,
            before={"generation": old.generation, "size": old.size},
            after={"generation": new.generation, "lost_bodies": lost, "signed": lost_at},
        )
        return Restored(
            generation=new.generation, previous_size=old.size, lost_bodies=lost, void_tokens=void
        )

    restored = await store.write("restore", begin)
    ledger.forget()
    return restored


def opened_before(backup: Path) -> int:
    """The highest generation that a restore from this backup has opened; 0 if none is noted."""
    try:
        noted = msgspec.json.decode((backup / RESTORED).read_bytes(), type=dict[str, int])
    except (FileNotFoundError, msgspec.DecodeError):
        return 0
    return noted.get("generation", 0)


def note_opened(backup: Path, generation: int) -> bool:
    """Note durably beside a backup which generation is opened from it; False if it is read-only.

    A second restore on another machine has nothing else to know it by: the file `last-checkpoint`
    stayed on the first. Written before the database is put in place.
    """
    try:
        save(backup / RESTORED, json.dumps({"generation": generation}).encode())
    except OSError:
        return False
    return True


def put_in_place(data: Path) -> Path | None:
    """Make the staged database the hub's; the one before is kept beside it. Blocks.

    Renames, each with its WAL (an old WAL beside a new database would be replayed into it), then
    fsync of the folder. Killed between, there is no database: the start refuses, because the file
    `last-checkpoint` is ahead of an empty ledger, and `restore` is run again. Returns where the
    old database went, or None if there was none.
    """
    place = data / DATABASE
    kept: Path | None = None
    if place.exists():
        kept = data / f"{DATABASE}.before-{time.time_ns() // 1_000_000_000}"
        for old in _beside(place):
            if old.exists():
                old.rename(kept.with_name(kept.name + old.name.removeprefix(DATABASE)))
        place.rename(kept)
    else:
        for old in _beside(place):
            old.unlink(missing_ok=True)
    sync_folder(data)
    point("restore.moved")
    (data / _STAGED).rename(place)
    sync_folder(data)
    point("restore.after")
    return kept


def _beside(database: Path) -> list[Path]:
    """The files that SQLite keeps beside a database."""
    return [database.with_name(database.name + end) for end in ("-wal", "-shm", "-journal")]
