"""The load of every measurement: thirds of ticket checks, people counters and parking bays.

Ticket check: 32-bit random check code, running number with random step, gate, direction, fen.
Counter: in and out totals, state. Bay: 40-bit random plate token, voltage of 140 values, occupied,
state. Event times advance by 20 ms with a jitter of some ms, resource by resource.
"""

import random
from collections.abc import Iterator
from itertools import cycle

from protocol.packs import Pack, parse_pack
from protocol.records import Record

START_US = 1_790_000_000_000_000  # September 2026
KINDS = ("checks", "counters", "bays")
DISTINCT = 60_000  # records before they come again: 20 segments of 1,000 of each kind


def field(name: str, kind: str, **more: object) -> dict[str, object]:
    return {"name": name, "zh": name, "en": name, "type": kind, "grade": "fully-open", **more}


def packs(grade: str = "shareable", *, personal: bool = False) -> dict[str, Pack]:
    """Kind → pack. `personal` puts code and token into the personal column group."""
    group = "personal" if personal else "data"
    fields = {
        "checks": [
            field("code", "int", minimum=0, maximum=2**32 - 1, group=group),
            field("number", "int", minimum=0),
            field("gate", "code", codes=["E1", "E2", "W1", "W2"]),
            field("direction", "code", codes=["in", "out"]),
            field("amount", "int", minimum=0, maximum=1_000_000, unit="fen"),
        ],
        "counters": [
            field("in_total", "int", minimum=0),
            field("out_total", "int", minimum=0),
            field("state", "code", codes=["ok", "dark", "blocked"]),
        ],
        "bays": [
            field("plate", "token", length_max=5, group=group),
            field("voltage", "float", minimum=0, maximum=10, unit="V"),
            field("occupied", "bool"),
            field("state", "code", codes=["free", "occupied", "unknown"]),
        ],
    }
    return {
        kind: parse_pack(
            {
                "id": f"bench.{kind}",
                "version": 1,
                "zh": kind,
                "en": kind,
                "grade": grade,
                "kind": "structured",
                "rhythm": "event",
                "record_index": [],
                "fields": fields[kind],
            }
        )
        for kind in KINDS
    }


class Load:
    """Endless records of one kind; the same seed gives the same records."""

    def __init__(self, kind: str, seed: int = 1) -> None:
        self.kind = kind
        self._rng = random.Random(f"{kind}/{seed}")
        self._at = START_US
        self._number = 100_000
        self._in = self._out = 0

    def take(self, count: int) -> list[Record]:
        make = {"checks": self._check, "counters": self._counter, "bays": self._bay}[self.kind]
        return [self._record(*make()) for _ in range(count)]

    def _record(self, device: str, values: dict[str, object]) -> Record:
        self._at += 20_000 + 1000 * self._rng.randrange(-3, 4)
        return Record(event_time_us=self._at, device=device, values=values)  # type: ignore[arg-type]

    def _check(self) -> tuple[str, dict[str, object]]:
        rng = self._rng
        self._number += rng.randrange(1, 4)
        gate = rng.choice(("E1", "E2", "W1", "W2"))
        return f"gate-{gate}", {
            "code": rng.getrandbits(32),
            "number": self._number,
            "gate": gate,
            "direction": "in" if rng.random() < 0.7 else "out",
            "amount": rng.choice((0, 4500, 9000, 18000)),
        }

    def _counter(self) -> tuple[str, dict[str, object]]:
        rng = self._rng
        self._in += rng.randrange(0, 5)
        self._out += rng.randrange(0, 4)
        state = "ok" if rng.random() < 0.995 else "dark"
        return "counter-1", {"in_total": self._in, "out_total": self._out, "state": state}

    def _bay(self) -> tuple[str, dict[str, object]]:
        rng = self._rng
        occupied = rng.random() < 0.6
        return f"bay-{rng.randrange(60):02d}", {
            "plate": rng.getrandbits(40).to_bytes(5, "big"),
            "voltage": round(2.9 + rng.randrange(140) / 200, 3),
            "occupied": occupied,
            "state": "occupied" if occupied else "free",
        }


def hand_overs(
    total: int, size: int, seed: int = 1, distinct: int = DISTINCT
) -> Iterator[tuple[str, list[Record]]]:
    """`total` records as hand-overs of `size` records of one kind, the kinds in turn.

    After `distinct` records they come again from the first, so that any number of them fits into
    memory; a segment is much shorter than that, so nothing compresses better for it.
    """
    made = list(_made(min(total, distinct), size, seed))
    left = total
    for kind, records in cycle(made):
        if left <= 0:
            return
        yield kind, records[:left] if left < len(records) else records
        left -= len(records)


def _made(total: int, size: int, seed: int) -> Iterator[tuple[str, list[Record]]]:
    loads = [Load(kind, seed) for kind in KINDS]
    made = 0
    while made < total:
        for load in loads:
            take = min(size, total - made)
            if take:
                yield load.kind, load.take(take)
            made += take
