"""The ledger as static files: C2SP tlog-tiles, tiles of height 8, so 256 hashes wide.

    tile/<L>/<N>[.p/<W>]          hashes of the complete subtrees at level 8·L
    tile/entries/<N>[.p/<W>]      the leaves themselves, each after its u16 length

N is written in groups of three digits, all but the last marked with x: 1234067 is x001/x234/067.
A tile with W < 256 hashes is partial, and is replaced by a wider one as the tree grows.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from protocol.errors import Code, DecodeError, TooLargeError
from protocol.limits import LEAF_BYTES_MAX
from protocol.merkle import HASH_BYTES, HashReader, node_hash

HEIGHT = 8
WIDTH = 1 << HEIGHT
_LEVEL_MAX = 7  # 8 levels of height 8 hold 2^63 leaves

_PATH = re.compile(
    r"tile/(entries|[0-9]|[1-5][0-9])/((?:x\d{3}/)*\d{3})(?:\.p/(\d{1,3}))?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Tile:
    """The name of one tile."""

    level: int | None  # None: entry bundle
    index: int
    width: int = WIDTH  # 1..256


def tile_path(tile: Tile) -> str:
    """Where a tile is served, below the log's prefix."""
    groups = [f"{tile.index % 1000:03d}"]
    rest = tile.index // 1000
    while rest:
        groups.append(f"x{rest % 1000:03d}")
        rest //= 1000
    level = "entries" if tile.level is None else str(tile.level)
    partial = "" if tile.width == WIDTH else f".p/{tile.width}"
    return f"tile/{level}/{'/'.join(reversed(groups))}{partial}"


def parse_tile_path(path: str) -> Tile:
    """Read a tile's path; only the one spelling that `tile_path` writes. Raises DecodeError."""
    found = _PATH.fullmatch(path)
    if found is None:
        raise DecodeError(Code.MALFORMED, field="tile", value=path)
    level = None if found[1] == "entries" else int(found[1])
    index = int(found[2].replace("x", "").replace("/", ""))
    tile = Tile(level, index, int(found[3]) if found[3] else WIDTH)
    if tile_path(tile) != path or not 1 <= tile.width <= WIDTH or index >= 1 << 63:
        raise DecodeError(Code.MALFORMED, field="tile", value=path)
    return tile


def tiles_of(size: int) -> list[Tile]:
    """The rightmost tile of every level (entries first) of a tree of `size` leaves."""
    tiles: list[Tile] = []
    if size:
        tiles.append(Tile(None, (size - 1) // WIDTH, (size - 1) % WIDTH + 1))
    level = 0
    while size:
        tiles.append(Tile(level, (size - 1) // WIDTH, (size - 1) % WIDTH + 1))
        level, size = level + 1, size // WIDTH
    return tiles


def tile_bytes(read: HashReader, tile: Tile) -> bytes:
    """The hashes of a tile, from stored subtree roots (levels that are multiples of 8)."""
    if tile.level is None or not 0 <= tile.level <= _LEVEL_MAX or not 1 <= tile.width <= WIDTH:
        raise DecodeError(Code.OUT_OF_BOUNDS, field="tile", value=tile.level)
    level, first = tile.level * HEIGHT, tile.index * WIDTH
    return b"".join(read(level, first + i) for i in range(tile.width))


def tile_reader(fetch: Callable[[Tile], bytes], size: int) -> HashReader:
    """A `HashReader` over tiles of a tree of `size` leaves, for hubs and verifiers that keep tiles.

    fetch: gives a tile's bytes. Raises DecodeError if they are not as long as the tile is wide.
    """

    def read(level: int, index: int) -> bytes:
        row, height = divmod(level, HEIGHT)
        first = index << height  # of the hashes at the tile's bottom that this subtree covers
        number, start = divmod(first, WIDTH)
        stored = size >> (row * HEIGHT)
        tile = Tile(row, number, min(WIDTH, stored - number * WIDTH))
        data = fetch(tile)
        if len(data) != tile.width * HASH_BYTES or first + (1 << height) > stored:
            raise DecodeError(Code.MALFORMED, field="tile", value=len(data))
        hashes = [
            data[i * HASH_BYTES : (i + 1) * HASH_BYTES] for i in range(start, start + (1 << height))
        ]
        while len(hashes) > 1:
            hashes = [node_hash(a, b) for a, b in zip(hashes[::2], hashes[1::2], strict=True)]
        return hashes[0]

    return read


def bundle_bytes(leaves: Sequence[bytes]) -> bytes:
    """An entry bundle: 1..256 leaves, each after its u16 length. Raises TooLargeError."""
    if any(len(leaf) > LEAF_BYTES_MAX for leaf in leaves):
        raise TooLargeError(Code.TOO_LARGE, field="leaf", expected=f"≤ {LEAF_BYTES_MAX}")
    return b"".join(len(leaf).to_bytes(2, "big") + leaf for leaf in leaves)


def parse_bundle(data: bytes) -> list[bytes]:
    """The leaves of an entry bundle. Raises DecodeError."""
    leaves: list[bytes] = []
    at = 0
    while at < len(data):
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        if end > len(data) or len(leaves) == WIDTH:
            raise DecodeError(Code.MALFORMED, field="entry bundle", value=len(data))
        leaves.append(data[at + 2 : end])
        at = end
    return leaves
