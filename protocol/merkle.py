"""The Merkle tree of the ledger (存证账本): RFC 9162 §2.1, always SHA-256.

A `HashReader` answers the root of a *complete* subtree: `(level, index)` covers the leaves
`index * 2**level … (index + 1) * 2**level - 1`. Every root and proof here is computed from such
roots alone, so a hub needs to keep nothing but tiles, and a verifier nothing but 32 bytes.

Verifying is strict: a path has exactly the length that index and size demand, every hash has 32
bytes, and every refusal is a `VerifyError`.
"""

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256

from protocol.errors import Code, DecodeError, VerifyError

#: The root of the complete subtree at (level, index); level 0 holds the leaf hashes.
HashReader = Callable[[int, int], bytes]

HASH_BYTES = 32
_EMPTY_ROOT = sha256(b"").digest()


def leaf_hash(leaf: bytes) -> bytes:
    """Hash of one leaf: SHA-256(0x00 ‖ leaf), RFC 9162 §2.1.1."""
    return sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node: SHA-256(0x01 ‖ left ‖ right), RFC 9162 §2.1.1."""
    return sha256(b"\x01" + left + right).digest()


class Frontier:
    """A tree remembered by its right edge: append and root in O(log n), 32 bytes a level.

    `peaks` are the roots of the complete subtrees of the size's binary digits, largest first.
    """

    __slots__ = ("peaks", "size")

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        if size < 0 or len(peaks) != size.bit_count() or any(len(p) != HASH_BYTES for p in peaks):
            raise DecodeError(Code.MALFORMED, field="peaks", value=len(peaks))
        self.size = size
        self.peaks = list(peaks)

    def append(self, hashed_leaf: bytes) -> list[tuple[int, int, bytes]]:
        """Add one leaf hash; return every subtree that it completes as (level, index, hash).

        The first is always the leaf itself; these are the hashes that a ledger has to keep.
        """
        index, level, digest = self.size, 0, hashed_leaf
        completed = [(0, index, digest)]
        while index & 1:
            digest = node_hash(self.peaks.pop(), digest)
            index >>= 1
            level += 1
            completed.append((level, index, digest))
        self.peaks.append(digest)
        self.size += 1
        return completed

    def root(self) -> bytes:
        """Root of the tree as it stands; of no leaves it is SHA-256 of nothing."""
        if not self.peaks:
            return _EMPTY_ROOT
        digest = self.peaks[-1]
        for peak in reversed(self.peaks[:-1]):
            digest = node_hash(peak, digest)
        return digest

    def dump(self) -> bytes:
        """Size (u64) and peaks, for a database row; `load` reads it back."""
        return self.size.to_bytes(8, "big") + b"".join(self.peaks)

    @classmethod
    def load(cls, data: bytes) -> "Frontier":
        """Read what `dump` wrote. Raises DecodeError if size and peaks do not fit together."""
        peaks = [data[i : i + HASH_BYTES] for i in range(8, len(data), HASH_BYTES)]
        return cls(int.from_bytes(data[:8], "big"), peaks)

    def copy(self) -> "Frontier":
        """A second frontier that may grow without touching this one (a transaction's draft)."""
        return Frontier(self.size, self.peaks)


def root_of(leaves: Iterable[bytes]) -> bytes:
    """Root of a tree of these leaves (their bytes, not their hashes)."""
    tree = Frontier()
    for leaf in leaves:
        tree.append(leaf_hash(leaf))
    return tree.root()


def frontier_at(read: HashReader, size: int) -> Frontier:
    """The frontier of the first `size` leaves, from stored subtree roots."""
    peaks, start = [], 0
    for level in range(size.bit_length() - 1, -1, -1):
        if size >> level & 1:
            peaks.append(read(level, start >> level))
            start += 1 << level
    return Frontier(size, peaks)


def root_at(read: HashReader, size: int) -> bytes:
    """Root of the first `size` leaves, from stored subtree roots."""
    return frontier_at(read, size).root()


def inclusion_path(read: HashReader, index: int, size: int) -> list[bytes]:
    """Audit path of leaf `index` in the tree of `size` leaves, RFC 9162 §2.1.3.1."""
    if not 0 <= index < size:
        raise DecodeError(Code.OUT_OF_BOUNDS, field="index", value=index, expected=f"0..{size - 1}")
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        split = start + _largest_power_below(end - start)
        if index < split:
            path.append(_range_root(read, split, end))
            end = split
        else:
            path.append(_range_root(read, start, split))
            start = split
    path.reverse()
    return path


def consistency_path(read: HashReader, old: int, new: int) -> list[bytes]:
    """Proof that the tree of `old` leaves is a beginning of the tree of `new`, §2.1.4.1.

    Empty for equal sizes. From an empty tree there is none: everything begins with nothing.
    """
    if not 1 <= old <= new:
        raise DecodeError(Code.OUT_OF_BOUNDS, field="old", value=old, expected=f"1..{new}")
    if old == new:
        return []
    path: list[bytes] = []
    start, end, whole = 0, new, True
    while end != old:
        split = start + _largest_power_below(end - start)
        if old <= split:
            path.append(_range_root(read, split, end))
            end = split
        else:
            path.append(_range_root(read, start, split))
            start, whole = split, False
    if not whole:
        path.append(_range_root(read, start, end))
    path.reverse()
    return path


def verify_inclusion(
    hashed_leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes
) -> None:
    """Check that a leaf hash stands at `index` under `root`, RFC 9162 §2.1.3.2.

    Raises VerifyError for an index outside the tree, a path longer or shorter than exactly right,
    a hash that is not 32 bytes, or another root.
    """
    _check_hashes(Code.PROOF_INVALID, path, hashed_leaf, root)
    if not 0 <= index < size:
        raise VerifyError(Code.PROOF_INVALID, field="index", value=index, expected=f"0..{size - 1}")
    inner = (index ^ (size - 1)).bit_length()
    border = (index >> inner).bit_count()
    _check_length(Code.PROOF_INVALID, path, inner + border)
    digest = _chain_inner(hashed_leaf, path[:inner], index)
    digest = _chain_right(digest, path[inner:])
    if digest != root:
        raise VerifyError(Code.PROOF_INVALID, field="root", value=root.hex(), expected=digest.hex())


def verify_consistency(
    old: int, new: int, path: Sequence[bytes], old_root: bytes, new_root: bytes
) -> None:
    """Check that the tree of `new` leaves begins with the tree of `old`, RFC 9162 §2.1.4.2.

    Equal sizes need equal roots and an empty path; nothing can be proven about an empty old tree.
    Raises VerifyError as `verify_inclusion` does.
    """
    if not 1 <= old <= new:
        raise VerifyError(Code.CONSISTENCY_INVALID, field="old", value=old, expected=f"1..{new}")
    if old == new:
        _check_length(Code.CONSISTENCY_INVALID, path, 0)
        if old_root != new_root:
            raise VerifyError(Code.CONSISTENCY_INVALID, field="old root", value=old_root.hex())
        return
    _check_hashes(Code.CONSISTENCY_INVALID, path, old_root, new_root)
    shift = (old & -old).bit_length() - 1
    inner = ((old - 1) ^ (new - 1)).bit_length() - shift
    border = ((old - 1) >> (inner + shift)).bit_count()
    rest = list(path)
    if old == 1 << shift:
        seed = old_root
        _check_length(Code.CONSISTENCY_INVALID, path, inner + border)
    else:
        _check_length(Code.CONSISTENCY_INVALID, path, inner + border + 1)
        seed = rest.pop(0)
    mask = (old - 1) >> shift
    seen = _chain_right(_chain_inner_right(seed, rest[:inner], mask), rest[inner:])
    if seen != old_root:
        raise VerifyError(Code.CONSISTENCY_INVALID, field="old root", value=old_root.hex())
    grown = _chain_right(_chain_inner(seed, rest[:inner], mask), rest[inner:])
    if grown != new_root:
        raise VerifyError(Code.CONSISTENCY_INVALID, field="new root", value=new_root.hex())


def _largest_power_below(n: int) -> int:
    return 1 << ((n - 1).bit_length() - 1)


def _range_root(read: HashReader, start: int, end: int) -> bytes:
    """Root of leaves start..end; start is a multiple of a power of two that is ≥ end - start."""
    peaks = []
    while start < end:
        level = (end - start).bit_length() - 1
        peaks.append(read(level, start >> level))
        start += 1 << level
    digest = peaks.pop()
    while peaks:
        digest = node_hash(peaks.pop(), digest)
    return digest


def _chain_inner(seed: bytes, path: Sequence[bytes], index: int) -> bytes:
    for level, sibling in enumerate(path):
        left = index >> level & 1
        seed = node_hash(sibling, seed) if left else node_hash(seed, sibling)
    return seed


def _chain_inner_right(seed: bytes, path: Sequence[bytes], index: int) -> bytes:
    """As `_chain_inner`, but only over the siblings that already stood in the older tree."""
    for level, sibling in enumerate(path):
        if index >> level & 1:
            seed = node_hash(sibling, seed)
    return seed


def _chain_right(seed: bytes, path: Sequence[bytes]) -> bytes:
    for sibling in path:
        seed = node_hash(sibling, seed)
    return seed


def _check_hashes(code: Code, path: Sequence[bytes], *more: bytes) -> None:
    if any(len(digest) != HASH_BYTES for digest in (*path, *more)):
        raise VerifyError(code, field="hash", expected=f"{HASH_BYTES} bytes each")


def _check_length(code: Code, path: Sequence[bytes], exact: int) -> None:
    if len(path) != exact:
        raise VerifyError(code, field="path", value=len(path), expected=str(exact))
