"""Mutation of valid objects for fuzz tests: bend the content, then sign it again.

A random byte string dies at the first signature; what tests the code behind it is a valid object,
changed in one or a few places and signed again by the right key.
"""

import copy
import os
import random
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

#: Examples a target; torture sets more.
EXAMPLES = int(os.environ.get("SHANMEN_FUZZ_EXAMPLES", "2000"))
BATCH = 10
PEAK_MAX = 80 * 1024 * 1024

fuzz = settings(
    max_examples=-(-EXAMPLES // BATCH),
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],  # a smaller seed is no simpler case
)

#: One integer decides everything: cheap to draw, and a failing one is printed.
seeds = st.integers(0, 2**64 - 1)

_INTS = (0, 1, -1, 2, 7, 8, 9, 31, 32, 127, 128, 255, 256, 65_535, 65_536, 2**31 - 1, 2**31, 2**32 - 1,
         2**32, 2**63 - 1, 2**63, 2**64 - 1, -(2**31), -(2**63))  # fmt: skip
_TEXTS = ("", "a", "é", "\0", "\n", "../../etc/passwd", "x" * 4097, "\u202e", "'; DROP TABLE a; --",
          "structured", "registration", "data", "\U0010ffff" * 40)  # fmt: skip
_FLOATS = (0.0, -0.0, 1.5, 5e-324, 1.7e308, -1e18)


def value(rng: random.Random, depth: int = 3) -> Any:
    """Any value at all that msgpack can carry and a strict reader can take."""
    kind = rng.randrange(9 if depth else 7)
    if kind == 0:
        return None
    if kind == 1:
        return rng.random() < 0.5
    if kind <= 3:
        return rng.choice(_INTS) if rng.random() < 0.7 else rng.getrandbits(rng.randrange(1, 64))
    if kind == 4:
        return rng.choice(_FLOATS)
    if kind == 5:
        return rng.choice(_TEXTS)
    if kind == 6:
        return rng.randbytes(rng.choice((0, 1, 8, 15, 16, 17, 31, 32, 33, 64, 138, 300)))
    if kind == 7:
        return [value(rng, depth - 1) for _ in range(rng.randrange(5))]
    return {rng.choice(_TEXTS): value(rng, depth - 1) for _ in range(rng.randrange(4))}


def near(old: Any, rng: random.Random) -> Any:
    """A value like the old one: what a careless or a clever writer would send."""
    if isinstance(old, bool) or old is None or rng.random() < 0.25:
        return value(rng)
    if isinstance(old, int):
        return min(2**64 - 1, max(-(2**63), old + rng.choice((-1, 1, 256, -old, -2 * old))))
    if isinstance(old, str):
        return rng.choice((old[:-1], old + "x", old * 40, old.upper(), old[::-1]))
    if isinstance(old, bytes):
        if not old:
            return b"\0"
        at = rng.randrange(len(old))
        return rng.choice(
            (old[:-1], old + b"\0", old[:at] + bytes((old[at] ^ 1 << rng.randrange(8),)) + old[at + 1 :],
             bytes(len(old)), old[::-1])
        )  # fmt: skip
    return value(rng)


def _places(obj: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key or index) in an object."""
    items = (
        obj.items() if isinstance(obj, dict) else enumerate(obj) if isinstance(obj, list) else ()
    )
    for key, item in items:
        yield obj, key
        yield from _places(item)


def bend(obj: Any, rng: random.Random) -> Any:
    """Change a plain object (of dicts and lists, its own copy) in one to three places."""
    if rng.random() < 0.02:
        return value(rng)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(_places(obj))
        if not places:
            return value(rng)
        container, key = rng.choice(places)
        act = rng.randrange(8)
        if act == 0:
            del container[key]
        elif act == 1 and isinstance(container, dict):
            container[rng.choice((*_TEXTS, str(key)))] = value(rng)
        elif act == 1:
            container.insert(key, value(rng))
        elif act == 2 and isinstance(container, list):
            container.append(container[key])
        elif act == 3:
            other, place = rng.choice(places)
            container[key] = copy.deepcopy(other[place]) if place in _keys(other) else None
        else:
            container[key] = near(container[key], rng)
    return obj


def _keys(container: Any) -> Any:
    return container if isinstance(container, dict) else range(len(container))


def bend_bytes(raw: bytes, rng: random.Random) -> bytes:
    """Change bytes in a few places: flips, cuts, inserts, repeats, swapped runs."""
    data = bytearray(raw)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(data) + 1)
        act = rng.randrange(6)
        if act == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif act == 1 and data:
            data[at % len(data)] = rng.choice((0, 0xFF, 0xC1, 0xDD, 0xDF, 0xC6, 0xDB, 0x91, 0x81))
        elif act == 2:
            del data[at : at + rng.randrange(1, 9)]
        elif act == 3:
            data[at:at] = rng.randbytes(rng.randrange(1, 9))
        elif act == 4:
            data[at:at] = data[at : at + rng.randrange(1, 40)]
        else:
            del data[at:]
    return bytes(data)


def attack(case: Callable[[random.Random], None]) -> None:
    """Run a case on EXAMPLES drawn seeds, then on some more with the memory watched."""

    @fuzz
    @given(seeds)
    def example(seed: int) -> None:
        # Hypothesis costs more than most cases: each of its examples stands for BATCH of ours.
        for part in range(BATCH):
            case(random.Random(seed * BATCH + part))

    example()
    with bounded_memory():
        for seed in range(max(50, EXAMPLES // 40)):
            case(random.Random(seed))


@contextmanager
def bounded_memory(most: int = PEAK_MAX) -> Iterator[None]:
    """Fail if Python's own memory grows over `most` bytes meanwhile."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= most, f"peak {peak} bytes"
