"""Keys, records and segments for tests of the wire; every value follows from its arguments."""

import random
from collections.abc import Mapping

from protocol.chain import NO_SEGMENT
from protocol.envelope import SigningKey
from protocol.grades import Grade
from protocol.keys import EpochKey
from protocol.records import Columns, Value
from protocol.segment import Layout, Segment, seal
from protocol.times import ClockMark, ClockSource

AGENT = SigningKey(b"\x01" * 32)
OTHER_AGENT = SigningKey(b"\x02" * 32)
HUB = SigningKey(b"\x03" * 32)
LOG = SigningKey(b"\x04" * 32)
STRANGER = SigningKey(b"\x05" * 32)
RESOURCE = b"resource-id-16-b"
STREAM = b"stream-id-16-byt"
ENTRY = b"\x0e" * 32
RUN = b"run-id-8"
NOW_US = 1_790_000_000_000_000
CLOCK = ClockMark(offset_us=-1500, error_us=20_000, source=ClockSource.HUB)

LAYOUT = Layout((("code", "gate", "amount"), ("visitor",)), frozenset({1}))


def epoch_keys(resource: bytes = RESOURCE, epoch: int = 7, groups: int = 2) -> dict[int, EpochKey]:
    return {
        group: EpochKey(
            resource=resource,
            epoch=epoch,
            group=group,
            key=bytes([0x40 + group]) * 32,
            from_us=NOW_US - 10**10,
            to_us=NOW_US + 10**11,
        )
        for group in range(groups)
    }


def columns(
    count: int = 20, seed: int = 1, fields: Mapping[str, list[Value]] | None = None
) -> Columns:
    draw = random.Random(seed)
    event = sorted(NOW_US + draw.randrange(10**6) * 1000 for _ in range(count))
    return Columns(
        count=count,
        event_time=event,
        gateway_time=[event[-1] + 5000] * count,
        device_time=[None if row % 3 else at for row, at in enumerate(event)],
        device=[f"东门-{draw.randrange(3)}" for _ in range(count)],
        quality=[draw.choice((0, 0, 1)) for _ in range(count)],
        fields=dict(fields)
        if fields is not None
        else {
            "code": [draw.getrandbits(32) for _ in range(count)],
            "gate": [draw.choice("ABC") for _ in range(count)],
            "amount": [draw.choice((0, 4000, 8000)) for _ in range(count)],
            "visitor": [draw.randbytes(5) if row % 5 else None for row in range(count)],
        },
    )


def sealed(
    cols: Columns | None = None,
    *,
    seq: int = 0,
    prev: bytes = NO_SEGMENT,
    signer: SigningKey = AGENT,
    agent: bytes | None = None,
    resource: bytes = RESOURCE,
    stream: bytes = STREAM,
    grade: Grade = Grade.SHAREABLE,
    layout: Layout = LAYOUT,
    rows: list[tuple[bytes, int, int]] | None = None,
    keys: dict[int, EpochKey] | None = None,
    seed: int = 1,
    **more: object,
) -> Segment:
    cols = cols or columns(seed=seed)
    draw = random.Random(seed * 1000 + seq)
    return seal(
        cols,
        layout=layout,
        signer=signer,
        agent=agent or signer.principal,
        resource=resource,
        stream=stream,
        seq=seq,
        prev=prev,
        entry=ENTRY,
        epoch=7,
        grade=grade,
        clock=CLOCK,
        rows=rows or [(RUN, seq * 1000, seq * 1000 + cols.count - 1)],
        keys=keys or epoch_keys(resource, groups=len(layout.groups)),
        nonces=[draw.randbytes(24) for _ in layout.groups],
        **more,
    )


def chain_of(count: int, *, seed: int = 1, **more: object) -> list[Segment]:
    segments: list[Segment] = []
    for seq in range(count):
        prev = segments[-1].id if segments else NO_SEGMENT
        segments.append(sealed(columns(5, seed * 100 + seq), seq=seq, prev=prev, seed=seed, **more))
    return segments
