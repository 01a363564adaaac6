"""Mutations of valid messages: what a fuzz test feeds to a decoder."""

import os
import random

from hypothesis import settings

EXAMPLES = int(os.environ.get("SHANMEN_FUZZ_EXAMPLES", "2000"))
fuzzing = settings(max_examples=EXAMPLES)

NASTY = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 2**64, 2**70, 0.5, -1e308, 1e308, "", " ",
    "\x00", "\ud800", "\u202e", "<script>", "'; --", "9" * 400, "zz", "2026-13-41T99:99:99Z",
    "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-14:00", [], {}, [[]], {"": {}}, [None] * 40,
)  # fmt: skip


def mutated_bytes(data: bytes, rng: random.Random) -> bytes:
    """A few flips, cuts, insertions and repeats."""
    out = bytearray(data)
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(6):
            case 0 if out:
                out[at % len(out)] ^= 1 << rng.randrange(8)
            case 1 if out:
                out[at % len(out)] = rng.randrange(256)
            case 2:
                del out[at:]
            case 3:
                out[at:at] = rng.randbytes(rng.randrange(1, 5))
            case 4:
                out[at:at] = out[: rng.randrange(1, 12)]
            case _:
                del out[at : at + rng.randrange(1, 4)]
    return bytes(out)


def mutated_tree(tree: object, rng: random.Random, depth: int = 0) -> object:
    """The same document with something nasty in it."""
    if depth > 6 or rng.random() < 0.12:
        return rng.choice(NASTY)
    if isinstance(tree, dict):
        out = {key: mutated_tree(value, rng, depth + 1) if rng.random() < 0.5 else value
               for key, value in tree.items() if rng.random() > 0.04}  # fmt: skip
        if rng.random() < 0.1:
            out[rng.choice(["", "id", "x" * 300, "\x00", "devEui"])] = rng.choice(NASTY)
        return out
    if isinstance(tree, list):
        return [mutated_tree(one, rng, depth + 1) for one in tree if rng.random() > 0.1]
    return rng.choice(NASTY) if rng.random() < 0.3 else tree
