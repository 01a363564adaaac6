"""The hub's ledger as its owner's tool sees it: tiles, judged against a verified checkpoint.

Tiles are believed only as far as they lead to the root of a checkpoint that the pinned log key
signed and that continues the last one seen.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, TypeVar

import msgspec

from hub.owner.client import Client
from hub.owner.state import Known
from protocol import tiles
from protocol.checkpoint import Checkpoint, LogKey, generation_of, verify_note
from protocol.errors import Code, RefusedError, VerifyError
from protocol.leaf import GenerationLeaf, Leaf, parse_leaf
from protocol.limits import LEAF_BYTES_MAX, NOTE_BYTES_MAX
from protocol.merkle import (
    HashReader,
    consistency_path,
    inclusion_path,
    leaf_hash,
    root_at,
    verify_inclusion,
)
from protocol.receipt import verify_continues
from protocol.tiles import Tile

T = TypeVar("T")

_BUNDLE_BYTES_MAX: Final = tiles.WIDTH * (LEAF_BYTES_MAX + 2)
_TILE_BYTES: Final = tiles.WIDTH * 32


#: Numbers that `restore --above` may skip (`maintenance.ABOVE_MAX`), and the one it opens.
_SKIPPED_MAX: Final = 16


class _WantedError(Exception):
    """A computation needs a tile that was not fetched yet."""

    def __init__(self, tile: Tile) -> None:
        super().__init__()
        self.tile = tile


class Ledger:
    """One generation of one hub's log under one verified checkpoint."""

    def __init__(self, client: Client, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self._client = client
        self._tiles: dict[Tile, bytes] = {}
        self._bundles: dict[int, list[bytes]] = {}
        self._proven: dict[int, Leaf] = {}

    async def leaf(self, index: int) -> Leaf:
        """The leaf at `index`, proven to stand under the checkpoint. Raises VerifyError."""
        if index in self._proven:
            return self._proven[index]
        size, root = self.checkpoint.size, self.checkpoint.root
        if not 0 <= index < size:
            raise VerifyError(
                Code.PROOF_INVALID, field="leaf", value=index, expected=f"below {size}"
            )
        raw = await self._raw(index)
        path = await self._computed(lambda read: inclusion_path(read, index, size))
        verify_inclusion(leaf_hash(raw), index, size, path, root)
        self._proven[index] = parse_leaf(raw)
        return self._proven[index]

    async def leaves(self, first: int, end: int) -> AsyncIterator[Leaf]:
        """Leaves from `first` up to `end`, exclusive, each proven. Raises VerifyError.

        One path a bundle: that of its first leaf is computed from the hashes of all the others,
        so it proves the tile, and the tile's hashes prove the bundle's leaves.
        """
        at = first
        while at < end:
            number = at // tiles.WIDTH
            start = number * tiles.WIDTH
            width = min(tiles.WIDTH, self.checkpoint.size - start)
            await self.leaf(start)
            hashes = self._tiles.get(Tile(0, number, width), b"")
            for index in range(at, min(end, start + width)):
                raw = await self._raw(index)
                place = 32 * (index - start)
                if hashes and hashes[place : place + 32] != leaf_hash(raw):
                    raise VerifyError(Code.PROOF_INVALID, field="entry bundle", value=index)
                yield parse_leaf(raw) if hashes else await self.leaf(index)
            at = start + width
            self._bundles.pop(number, None)

    async def check_continues(self, old: Checkpoint) -> None:
        """Check that this checkpoint continues an older one. Raises VerifyError."""
        new = self.checkpoint
        path: list[bytes] = []
        if 0 < old.size < new.size:
            path = await self._computed(lambda read: consistency_path(read, old.size, new.size))
        verify_continues(new, old, path)

    async def root_of(self, size: int) -> bytes:
        """The root that this log had at `size` leaves, if its tiles are those of the checkpoint."""
        if size == self.checkpoint.size:
            return self.checkpoint.root
        root = await self._computed(lambda read: root_at(read, size))
        path = await self._computed(lambda read: consistency_path(read, size, self.checkpoint.size))
        was = Checkpoint(
            origin=self.checkpoint.origin,
            size=size,
            root=root,
            generation=self.checkpoint.generation,
            text="",
        )
        verify_continues(self.checkpoint, was, path)
        return root

    async def _computed(self, compute: Callable[[HashReader], T]) -> T:
        """Compute over tiles, fetching each that turns out to be needed."""

        def held(tile: Tile) -> bytes:
            if tile not in self._tiles:
                raise _WantedError(tile)
            return self._tiles[tile]

        read = tiles.tile_reader(held, self.checkpoint.size)
        while True:
            try:
                return compute(read)
            except _WantedError as wanted:
                self._tiles[wanted.tile] = await self._fetch(wanted.tile, _TILE_BYTES)

    async def _raw(self, index: int) -> bytes:
        number, place = divmod(index, tiles.WIDTH)
        if number not in self._bundles:
            width = min(tiles.WIDTH, self.checkpoint.size - number * tiles.WIDTH)
            bundle = await self._fetch(Tile(None, number, width), _BUNDLE_BYTES_MAX)
            self._bundles[number] = tiles.parse_bundle(bundle)
        leaves = self._bundles[number]
        if place >= len(leaves):
            raise VerifyError(Code.PROOF_INVALID, field="entry bundle", value=len(leaves))
        return leaves[place]

    async def _fetch(self, tile: Tile, limit: int) -> bytes:
        path = f"/log/{self.checkpoint.generation}/{tiles.tile_path(tile)}"
        return await self._client.get(path, limit=limit, signed=False)


@dataclass(frozen=True, slots=True)
class SetBack:
    """A hub that was restored from a backup, by its own statement: what we saw and it lacks."""

    generation: int
    seen: int  # leaves that we saw of that generation
    kept: int  # leaves that the hub still has of it


async def open_log(client: Client, known: Known) -> tuple[list[Ledger], Known, list[SetBack]]:
    """The hub's ledger, newest generation first, what to remember of it, and what it lost.

    The pinned generation must continue the checkpoint last seen, and every later one must begin
    with a statement about the one before it. A tree that became shorter is believed only under
    such a statement, and told. Raises VerifyError for a ledger that went back or was rewritten.
    """
    later = await _later(client, known)
    found = await _generation(client, known.log(known.generation))
    last = known.last()
    if found is None and last is None and later:  # nothing was seen yet: any first number is right
        found = later.pop()
    lost = await _compare(found, last, restored=bool(later))
    if found is None and last is None:
        raise VerifyError(Code.GENERATION_UNKNOWN, field="generation", value=known.generation)
    ledgers = [*later, *([found] if found is not None else [])]
    for newer, older in pairwise(ledgers):
        await _check_statement(newer, older.checkpoint)
    while (before := await _before(client, known, ledgers[-1])) is not None:
        ledgers.append(before)
    newest = ledgers[0].checkpoint
    return (
        ledgers,
        msgspec.structs.replace(known, generation=newest.generation, checkpoint=newest.text),
        lost,
    )


async def _compare(
    found: Ledger | None, last: Checkpoint | None, *, restored: bool
) -> list[SetBack]:
    """Hold the pinned generation against the checkpoint last seen of it."""
    if last is None:
        return []
    kept = 0 if found is None else found.checkpoint.size
    if kept < last.size and restored:
        return [SetBack(last.generation, last.size, kept)]
    if found is None:
        raise VerifyError(Code.GENERATION_UNKNOWN, field="generation", value=last.generation)
    await found.check_continues(last)
    return []


async def _later(client: Client, known: Known) -> list[Ledger]:
    """Generations after the pinned one, newest first; numbers may have been skipped."""
    found: list[Ledger] = []
    number = known.generation
    while True:
        ahead = range(number + 1, number + 1 + _SKIPPED_MAX)
        tried = await asyncio.gather(*(_generation(client, known.log(n)) for n in ahead))
        hits = [one for one in tried if one is not None]
        if not hits:
            return found
        found[:0] = reversed(hits)
        number = hits[-1].checkpoint.generation


async def _before(client: Client, known: Known, ledger: Ledger) -> Ledger | None:
    """The generation that this one says it follows; None for the first."""
    if ledger.checkpoint.size == 0:
        return None
    statement = await ledger.leaf(0)
    if not isinstance(statement, GenerationLeaf):
        return None
    number = generation_of(statement.previous_origin)
    if number >= ledger.checkpoint.generation:
        raise VerifyError(Code.GENERATION_UNKNOWN, field="generation statement", value=number)
    before = await _generation(client, known.log(number))
    if before is not None:
        await _check_statement(ledger, before.checkpoint)
    return before


async def _check_statement(later: Ledger, before: Checkpoint) -> None:
    """Leaf 0 of a later generation must speak of the one before, as it stands frozen."""
    statement = await later.leaf(0)
    told = (
        isinstance(statement, GenerationLeaf)
        and statement.previous_origin == before.origin
        and (statement.size, statement.root) == (before.size, before.root)
    )
    if not told:
        raise VerifyError(
            Code.GENERATION_UNKNOWN,
            field="generation statement",
            value=later.checkpoint.generation,
            expected=f"about {before.origin} with {before.size} leaves",
        )


async def _generation(client: Client, key: LogKey) -> Ledger | None:
    generation = key.name.rpartition("/")[2]
    try:
        note = await client.get(f"/log/{generation}/checkpoint", limit=NOTE_BYTES_MAX, signed=False)
    except RefusedError as error:
        if error.code is Code.NOT_FOUND:
            return None
        raise
    try:
        text = note.decode()
    except UnicodeDecodeError as error:
        raise VerifyError(Code.CHECKPOINT_INVALID, field="note") from error
    return Ledger(client, verify_note(text, key))
