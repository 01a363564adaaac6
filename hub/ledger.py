"""The ledger (存证账本): leaves, the checkpoint over them, and proofs in O(log n).

    accept:   lock head ─▶ append leaves, completed subtree hashes, new head ─▶ COMMIT
    answer:   committed head ─▶ sign checkpoint ─▶ proofs from stored hashes ─▶ out

**The law of this file: a checkpoint is signed only over a head that was read after its COMMIT.**
Ed25519 is deterministic, so any process signs the same bytes; there is no sequencer to lose.
A generation is one life of the ledger. A restore from a backup freezes it and begins the next,
whose leaf 0 states what it follows.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from hub.ahead import Ahead
from hub.store import leaves
from hub.store.engine import Tx, point
from hub.store.leaves import HeadRow
from protocol import checkpoint, leaf, merkle, tiles
from protocol.envelope import SigningKey
from protocol.errors import Code, FatalError, RefusedError

FIRST_GENERATION: Final = 1
NODES_CACHED: Final = 16_384  # ≈ 3 MB: the right edge of the tree, which every proof touches


class Appended(msgspec.Struct, frozen=True, kw_only=True):
    """Leaves that a transaction has appended; they count once it has committed."""

    generation: int
    first: int  #: index of the first of them
    size: int  #: of the tree with them
    nodes: list[tuple[int, int, bytes]]  #: hashes that became complete


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """A leaf and its way to a checkpoint's root."""

    index: int
    leaf: bytes
    path: list[bytes]


class Ledger:
    """Appends and proves; keeps nothing in memory that a restart would miss.

    All methods that take a transaction run on the store's threads. The cache of subtree hashes is
    filled only from committed rows, and those never change.
    """

    def __init__(self, *, name: str, key: SigningKey) -> None:
        """name: the origins' first part (no blank, no plus sign). key: the hub's log key."""
        self._name = name
        self._key = key
        self._cache: dict[tuple[int, int, int], bytes] = {}
        self.ahead = Ahead()  #: what agents show that this ledger does not have

    @property
    def key(self) -> SigningKey:
        """The log key, for those who publish its verifier form."""
        return self._key

    def origin(self, generation: int) -> str:
        """The checkpoint's first line: its last component is the generation."""
        return f"{self._name}/{generation}"

    def vkey(self, generation: int) -> str:
        """The verifier key of a generation's checkpoints (signed-note form)."""
        return checkpoint.vkey_text(self.origin(generation), self._key.public)

    def begin(self, tx: Tx, now_us: int, *, reason: str, above: int = 0) -> HeadRow:
        """Open a generation, whose leaf 0 is the statement of what it follows and why.

        The statement names origin, size and root of the present one as this database has it. The
        first generation of a hub follows nothing and has no statement. above: the highest
        generation that a checkpoint is known of; no number is ever used twice.
        """
        old = leaves.live(tx)
        generation = FIRST_GENERATION if old is None else max(old.generation, above) + 1
        row = HeadRow(
            generation=generation,
            origin=self.origin(generation),
            size=0,
            frontier=merkle.Frontier().dump(),
            changes=0 if old is None else old.changes,
            live=True,
        )
        leaves.begin(tx, row)
        if old is not None:
            root = merkle.Frontier.load(old.frontier).root()
            self.append(tx, [leaf.generation_leaf(old.origin, old.size, root, reason, now_us)])
        return row

    def lock(self, tx: Tx) -> HeadRow:
        """The live head, held until the transaction ends. Raises FatalError before `begin`."""
        head = leaves.lock(tx)
        if head is None:
            raise FatalError(Code.STORAGE_DAMAGED, field="ledger", expected="a live generation")
        return head

    def append(
        self, tx: Tx, data: Sequence[bytes], *, head: HeadRow | None = None, changes: int = 0
    ) -> Appended:
        """Add leaves in order, as the last step of a transaction.

        head: as `lock` gave it, or None to take it now. changes: how many numbers of the change
        counter the transaction used. Nothing is signed here.
        """
        head = head or self.lock(tx)
        frontier = merkle.Frontier.load(head.frontier)
        nodes: list[tuple[int, int, bytes]] = []
        for one in data:
            nodes += frontier.append(merkle.leaf_hash(one))
        leaves.append(tx, head.generation, enumerate(data, head.size), nodes)
        moved = leaves.move(
            tx,
            head,
            size=frontier.size,
            frontier=frontier.dump(),
            changes=head.changes + changes,
        )
        if not moved:
            raise FatalError(Code.STORAGE_UNKNOWN, field="ledger", expected="a locked head")
        return Appended(
            generation=head.generation, first=head.size, size=frontier.size, nodes=nodes
        )

    def committed(self, appended: Appended) -> None:
        """Remember the hashes of a transaction that has committed."""
        for level, index, digest in appended.nodes:
            self._remember((appended.generation, level, index), digest)

    def forget(self) -> None:
        """Empty the cache: after a COMMIT whose outcome is unknown."""
        self._cache.clear()

    def sign(self, head: HeadRow) -> str:
        """The checkpoint over a *committed* head: a signed note, the same bytes in any process."""
        root = merkle.Frontier.load(head.frontier).root()
        note = checkpoint.make_note(head.origin, head.size, root, self._key)
        point("checkpoint.signed")
        return note

    def inclusion(
        self, tx: Tx, generation: int, indexes: Iterable[int], size: int
    ) -> dict[int, Proof]:
        """Proofs of leaves to the root of the first `size` leaves, with few queries for all."""
        wanted = sorted(set(indexes))
        if not wanted:
            return {}
        data = leaves.data(tx, generation, wanted)
        read = self._reader(
            tx, generation, lambda read: [merkle.inclusion_path(read, i, size) for i in wanted]
        )
        return {
            index: Proof(
                index=index, leaf=data[index], path=merkle.inclusion_path(read, index, size)
            )
            for index in wanted
        }

    def consistency(self, tx: Tx, generation: int, old: int, new: int) -> list[bytes]:
        """Proof that the tree of `new` leaves begins with that of `old` ones (empty from none)."""
        if old == 0:
            return []
        read = self._reader(tx, generation, lambda read: merkle.consistency_path(read, old, new))
        return merkle.consistency_path(read, old, new)

    def root(self, tx: Tx, generation: int, size: int) -> bytes:
        """Root of the first `size` leaves of a generation."""
        read = self._reader(tx, generation, lambda read: merkle.root_at(read, size))
        return merkle.root_at(read, size)

    def tile(self, tx: Tx, generation: int, level: int, index: int, width: int) -> bytes:
        """A C2SP tile: `width` hashes (256 if whole) of tile level `level`, from committed rows.

        Raises RefusedError NOT_FOUND if the tree is not that large yet.
        """
        start = index * tiles.WIDTH
        found = leaves.nodes_between(tx, generation, level * tiles.HEIGHT, start, start + width)
        if len(found) != width:
            raise RefusedError(Code.NOT_FOUND, field="tile", value=f"{level}/{index}")
        return b"".join(found)

    def entries(self, tx: Tx, generation: int, index: int, width: int) -> bytes:
        """A C2SP entry bundle: leaves as u16 length ‖ data. Raises RefusedError NOT_FOUND."""
        start = index * tiles.WIDTH
        found = leaves.data_between(tx, generation, start, start + width)
        if len(found) != width:
            raise RefusedError(Code.NOT_FOUND, field="entries", value=index)
        return tiles.bundle_bytes(found)

    def _reader(
        self, tx: Tx, generation: int, run: Callable[[merkle.HashReader], object]
    ) -> merkle.HashReader:
        """Find out which hashes `run` will ask for, fetch those not cached in one query."""
        wanted: set[tuple[int, int]] = set()

        def note(level: int, index: int) -> bytes:
            wanted.add((level, index))
            return b"\x00" * merkle.HASH_BYTES

        run(note)
        have: dict[tuple[int, int], bytes] = {}
        for key in wanted:
            cached = self._cache.get((generation, *key))
            if cached is not None:
                have[key] = cached
        missing = wanted - have.keys()
        if missing:
            found = leaves.nodes(tx, generation, missing)
            for key, digest in found.items():
                self._remember((generation, *key), digest)
            have |= found

        def read(level: int, index: int) -> bytes:
            try:
                return have[level, index]
            except KeyError as error:
                raise FatalError(
                    Code.STORAGE_DAMAGED, field="node", value=f"{generation}/{level}/{index}"
                ) from error

        return read

    def _remember(self, key: tuple[int, int, int], digest: bytes) -> None:
        if len(self._cache) >= NODES_CACHED:
            for old in list(self._cache)[: NODES_CACHED // 2]:
                self._cache.pop(old, None)  # another thread may have been here first
        self._cache[key] = digest
