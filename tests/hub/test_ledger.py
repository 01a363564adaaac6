"""The ledger from rows: roots, proofs and tiles, against the tree that is computed from leaves."""

import pytest

from hub.ledger import Ledger
from hub.store import leaves
from hub.store.engine import Store
from protocol import merkle, tiles
from protocol.checkpoint import verify_note
from protocol.errors import FatalError, RefusedError
from tests.hub.kit import LOG_KEY, T0

SIZES = (1, 2, 3, 7, 8, 9, 255, 256, 257, 300, 511, 513, 600)


def new_ledger() -> Ledger:
    return Ledger(name="shanmen-hub/test", key=LOG_KEY)


async def grown(store: Store, size: int) -> tuple[Ledger, list[bytes]]:
    """A ledger of that many leaves, written in groups of uneven size."""
    ledger = new_ledger()
    data = [b"leaf %d" % n for n in range(size)]
    await store.write("begin", lambda tx: ledger.begin(tx, T0, reason="test"))
    at, step = 0, 1
    while at < size:
        some = data[at : at + step]
        appended = await store.write("append", lambda tx, some=some: ledger.append(tx, some))
        ledger.committed(appended)
        at, step = at + len(some), step % 7 + 1
    return ledger, data


async def test_every_prefix_is_proven_and_consistent(store: Store) -> None:
    ledger, data = await grown(store, max(SIZES))
    fresh = new_ledger()  # another process: an empty cache

    def look(tx) -> None:
        for one in (ledger, fresh):
            for size in SIZES:
                root = merkle.root_of(data[:size])
                assert one.root(tx, 1, size) == root
                some = sorted({0, size // 2, size - 1})
                for index, proof in one.inclusion(tx, 1, some, size).items():
                    assert proof.leaf == data[index]
                    merkle.verify_inclusion(
                        merkle.leaf_hash(proof.leaf), index, size, proof.path, root
                    )
                for old in SIZES:
                    if old <= size:
                        path = one.consistency(tx, 1, old, size)
                        merkle.verify_consistency(old, size, path, merkle.root_of(data[:old]), root)

    await store.read(look)


async def test_a_proof_costs_few_queries(store: Store) -> None:
    _ledger, data = await grown(store, 600)
    asked: list[str] = []

    def look(tx) -> None:
        raw = tx.connection.dbapi_connection
        raw.set_trace_callback(asked.append)
        new_ledger().inclusion(tx, 1, [3, 17, 255, 500], len(data))
        raw.set_trace_callback(None)

    await store.read(look)
    assert len(asked) <= 12, "one a level at most, however many leaves"


async def test_tiles_are_those_of_the_tree(store: Store) -> None:
    ledger, data = await grown(store, 600)
    tree: dict[tuple[int, int], bytes] = {}
    frontier = merkle.Frontier()
    for one in data:
        tree |= {(level, i): h for level, i, h in frontier.append(merkle.leaf_hash(one))}

    def look(tx) -> None:
        for tile in [*tiles.tiles_of(600), tiles.Tile(0, 0), tiles.Tile(0, 1), tiles.Tile(None, 0)]:
            if tile.level is None:
                bundle = ledger.entries(tx, 1, tile.index, tile.width)
                start = tile.index * tiles.WIDTH
                assert tiles.parse_bundle(bundle) == data[start : start + tile.width]
            else:
                got = ledger.tile(tx, 1, tile.level, tile.index, tile.width)
                assert got == tiles.tile_bytes(lambda level, i: tree[level, i], tile)
        # A verifier that has only tiles finds the same root and proofs.
        read = tiles.tile_reader(
            lambda tile: ledger.tile(tx, 1, tile.level, tile.index, tile.width), 600
        )
        assert merkle.root_at(read, 600) == merkle.root_of(data)
        path = merkle.inclusion_path(read, 321, 600)
        assert path == ledger.inclusion(tx, 1, [321], 600)[321].path

    await store.read(look)


async def test_tiles_beyond_the_tree_are_not_found(store: Store) -> None:
    ledger, _data = await grown(store, 300)

    def look(tx) -> None:
        for level, index, width in ((0, 1, 45), (0, 2, 1), (1, 0, 2), (2, 0, 1)):
            with pytest.raises(RefusedError):
                ledger.tile(tx, 1, level, index, width)
        with pytest.raises(RefusedError):
            ledger.entries(tx, 1, 1, 256)
        with pytest.raises(RefusedError):
            ledger.tile(tx, 7, 0, 0, 1)

    await store.read(look)


async def test_rolled_back_leaves_leave_nothing_in_the_cache(store: Store) -> None:
    ledger, data = await grown(store, 5)

    def fail(tx) -> None:
        ledger.append(tx, [b"lost"])
        raise RefusedError.__class__ and ValueError("rolled back")

    with pytest.raises(ValueError, match="rolled back"):
        await store.write("fail", fail)
    other = [b"kept"]
    ledger.committed(await store.write("append", lambda tx: ledger.append(tx, other)))
    root = await store.read(ledger.root, 1, 6)
    assert root == merkle.root_of([*data, b"kept"])


async def test_generations_keep_their_own_trees(store: Store) -> None:
    ledger, data = await grown(store, 9)
    head = await store.read(leaves.live)
    old_note = ledger.sign(head)
    await store.write("begin", lambda tx: ledger.begin(tx, T0, reason="restored"))
    await store.write("append", lambda tx: ledger.append(tx, [b"new"]))
    assert await store.read(ledger.root, 1, 9) == merkle.root_of(data)
    frozen = await store.read(leaves.head, 1)
    assert (frozen.live, ledger.sign(frozen)) == (False, old_note)
    live = await store.read(leaves.live)
    note = verify_note(ledger.sign(live), ledger.vkey(2))
    assert (note.generation, note.size) == (2, 2)
    assert note.origin.endswith("/2")


async def test_a_lost_hash_is_damage_not_a_wrong_proof(store: Store) -> None:
    await grown(store, 9)
    await store.write(
        "damage", lambda tx: tx.exec_driver_sql("DELETE FROM node WHERE level = 1 AND idx = 0")
    )
    with pytest.raises(FatalError):
        await store.read(lambda tx: new_ledger().inclusion(tx, 1, [2], 9))
