"""The ledger for everybody: checkpoint and tiles (C2SP tlog-checkpoint, tlog-tiles).

Only names that the format allows are answered; no name ever becomes a path of a file.
"""

from hub.api import identifiers
from hub.api.exchange import OCTETS, TEXT, Call, Reply, raw_reply
from hub.api.parts import Parts
from hub.store.engine import Tx
from protocol import tiles
from protocol.errors import Code, DecodeError, RefusedError


async def checkpoint(parts: Parts, call: Call) -> Reply:
    """The newest signed tree head of one generation, as a signed note."""
    generation = identifiers.number(call.params["generation"], "generation", most=2**31 - 1)
    note = await parts.recorder.checkpoint(generation)
    if note is None:
        raise RefusedError(Code.NOT_FOUND, field="generation", expected="a generation of this log")
    return raw_reply(note.encode(), media=TEXT, cache="no-cache")


async def tile(parts: Parts, call: Call) -> Reply:
    """One tile of hashes, or one bundle of leaves; full ones never change."""
    generation = identifiers.number(call.params["generation"], "generation", most=2**31 - 1)
    try:
        wanted = tiles.parse_tile_path(f"tile/{call.params['tile']}")
    except DecodeError as error:
        raise RefusedError(Code.NOT_FOUND, field="tile", expected="a tile of this log") from error

    def read(tx: Tx) -> bytes:
        if wanted.level is None:
            return parts.ledger.entries(tx, generation, wanted.index, wanted.width)
        return parts.ledger.tile(tx, generation, wanted.level, wanted.index, wanted.width)

    found = await parts.store.read(read)
    full = wanted.width == tiles.WIDTH
    cache = "public, max-age=31536000, immutable" if full else "no-cache"
    return raw_reply(found, media=OCTETS, cache=cache)
