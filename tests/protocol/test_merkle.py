"""The ledger's tree against public vectors, an independent implementation, and itself."""

import base64
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymerkle import InmemoryTree

from protocol.errors import DecodeError, VerifyError
from protocol.merkle import (
    Frontier,
    consistency_path,
    frontier_at,
    inclusion_path,
    leaf_hash,
    root_at,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from protocol.tiles import (
    Tile,
    bundle_bytes,
    parse_bundle,
    parse_tile_path,
    tile_bytes,
    tile_path,
    tile_reader,
    tiles_of,
)
from tests.shared import SHARED

# Certificate Transparency's reference leaves and the roots of trees of 0..8 of them.
CT_LEAVES = [
    bytes.fromhex(h)
    for h in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
CT_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def grown(count: int) -> tuple[list[bytes], dict[tuple[int, int], bytes], Frontier]:
    leaves = [b"leaf %d" % n for n in range(count)]
    hashes: dict[tuple[int, int], bytes] = {}
    tree = Frontier()
    for leaf in leaves:
        for level, index, digest in tree.append(leaf_hash(leaf)):
            hashes[level, index] = digest
    return leaves, hashes, tree


@pytest.mark.parametrize("size", range(9))
def test_reference_roots(size):
    assert root_of(CT_LEAVES[:size]).hex() == CT_ROOTS[size]


def test_roots_equal_an_independent_implementation():
    oracle = InmemoryTree(algorithm="sha256")
    tree = Frontier()
    for n in range(70):
        oracle.append_entry(b"leaf %d" % n)
        tree.append(leaf_hash(b"leaf %d" % n))
        assert tree.root() == oracle.get_root()


@pytest.mark.skipif(SHARED is None, reason="shared vectors may be absent")
def test_public_proofs():
    assert SHARED is not None
    cases = json.loads((SHARED / "vectors/merkle-proofs.json").read_text())
    assert len(cases) == 196

    # Where roots are arbitrary texts ("don't care"), their hash stands for them.
    def digest(text):
        return (
            raw if len(raw := base64.b64decode(text or "")) == 32 else hashlib.sha256(raw).digest()
        )

    for name, case in cases.items():
        path = [base64.b64decode(h or "") for h in case["proof"] or ()]
        try:
            if "leafIdx" in case:
                verify_inclusion(
                    base64.b64decode(case["leafHash"] or ""),
                    case["leafIdx"],
                    case["treeSize"],
                    path,
                    base64.b64decode(case["root"] or ""),
                )
            else:
                verify_consistency(
                    case["size1"], case["size2"], path, digest(case["root1"]), digest(case["root2"])
                )
            failed = False
        except VerifyError:
            failed = True
        assert failed == case["wantErr"], name


def test_every_proof_up_to_40_leaves_and_nothing_else():
    leaves, hashes, _ = grown(40)

    def read(level, index):
        return hashes[level, index]

    roots = {size: root_at(read, size) for size in range(41)}
    for size in range(1, 41):
        assert roots[size] == root_of(leaves[:size])
        for index in range(size):
            path = inclusion_path(read, index, size)
            verify_inclusion(leaf_hash(leaves[index]), index, size, path, roots[size])
            for wrong in (path + [b"\0" * 32], path[:-1]):
                if wrong != path:
                    with pytest.raises(VerifyError):
                        verify_inclusion(leaf_hash(leaves[index]), index, size, wrong, roots[size])
        for old in range(1, size + 1):
            path = consistency_path(read, old, size)
            verify_consistency(old, size, path, roots[old], roots[size])
            with pytest.raises(VerifyError):
                verify_consistency(old, size, path + [b"\0" * 32], roots[old], roots[size])
            if old != size:
                with pytest.raises(VerifyError):
                    verify_consistency(
                        old, size, path, roots[old - 1] if old > 1 else b"\1" * 32, roots[size]
                    )


@given(st.integers(1, 300), st.data())
def test_a_changed_hash_anywhere_is_refused(size, data):
    leaves, hashes, tree = grown(size)

    def read(level, index):
        return hashes[level, index]

    index = data.draw(st.integers(0, size - 1))
    path = inclusion_path(read, index, size)
    if path:
        at = data.draw(st.integers(0, len(path) - 1))
        path[at] = bytes([path[at][0] ^ 1]) + path[at][1:]
        with pytest.raises(VerifyError):
            verify_inclusion(leaf_hash(leaves[index]), index, size, path, tree.root())
    with pytest.raises(VerifyError):
        verify_inclusion(
            leaf_hash(b"other"), index, size, inclusion_path(read, index, size), tree.root()
        )


def test_frontier_survives_a_database_row():
    _, hashes, tree = grown(77)
    again = Frontier.load(tree.dump())
    assert (again.size, again.root()) == (77, tree.root())
    assert frontier_at(lambda level, index: hashes[level, index], 77).peaks == tree.peaks
    copy = tree.copy()
    copy.append(leaf_hash(b"x"))
    assert tree.size == 77
    assert tree.root() != copy.root()
    for broken in (tree.dump()[:-1], tree.dump() + b"\0" * 32, b""):
        with pytest.raises(DecodeError):
            Frontier.load(broken) if broken else Frontier.load(b"\x01")


def test_proofs_from_tiles_alone():
    size = 600
    leaves, hashes, tree = grown(size)
    stored = {
        tile_path(tile): tile_bytes(lambda level, index: hashes[level, index], tile)
        for edge in tiles_of(size)
        if edge.level is not None
        for tile in [edge, *(Tile(edge.level, n) for n in range(edge.index))]
    }
    read = tile_reader(lambda tile: stored[tile_path(tile)], size)
    for index in (0, 255, 256, 511, 512, 599):
        path = inclusion_path(read, index, size)
        verify_inclusion(leaf_hash(leaves[index]), index, size, path, tree.root())
    old = Frontier()
    for leaf in leaves[:300]:
        old.append(leaf_hash(leaf))
    verify_consistency(300, size, consistency_path(read, 300, size), old.root(), tree.root())


def test_tile_paths_have_one_spelling():
    assert tile_path(Tile(0, 1234067)) == "tile/0/x001/x234/067"
    assert tile_path(Tile(None, 3, 7)) == "tile/entries/003.p/7"
    for tile in (Tile(0, 0), Tile(7, 999, 1), Tile(None, 1000, 255), Tile(2, 10**9 + 5)):
        assert parse_tile_path(tile_path(tile)) == tile
    for wrong in (
        "tile/0/1",
        "tile/0/x000/001",
        "tile/0/001.p/0",
        "tile/0/001.p/256",
        "tile/0/001.p/07",
        "tile/0/../1",
        "tile/64/001",
        "tile/00/001",
        "",
    ):
        with pytest.raises(DecodeError):
            parse_tile_path(wrong)


def test_entry_bundles():
    leaves = [b"", b"x" * 65_535, b"ab"]
    assert parse_bundle(bundle_bytes(leaves)) == leaves
    with pytest.raises(DecodeError):
        parse_bundle(bundle_bytes(leaves)[:-1])
    with pytest.raises(DecodeError):
        bundle_bytes([b"x" * 65_536])


def test_wrong_ranges_are_refused():
    _, hashes, _ = grown(4)

    def read(level, index):
        return hashes[level, index]

    for call in (
        lambda: inclusion_path(read, 4, 4),
        lambda: inclusion_path(read, -1, 4),
        lambda: consistency_path(read, 5, 4),
        lambda: consistency_path(read, 0, 4),
    ):
        with pytest.raises(DecodeError):
            call()
