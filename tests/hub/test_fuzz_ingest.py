"""Whatever an enrolled agent signs, the hub answers it: no item ends the group or the hub."""

import asyncio
import os
import tempfile
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import messages
from protocol.envelope import make
from protocol.errors import ShanmenError
from protocol.header import Continues
from protocol.messages import EvidenceItem, HeaderItem, ObjectItem, SegmentItem
from protocol.notes import Correction, Gap
from protocol.registration import make_registration
from protocol.times import ClockMark, ClockSource
from tests.hub.kit import Agent, Source, running
from tests.hub.test_durability import check_whole

SEEN: Counter[str] = Counter()
EXAMPLES = int(os.environ.get("SHANMEN_FUZZ_EXAMPLES", "150"))
U63 = 2**63 - 1

numbers = st.sampled_from([0, 1, 2, 3, 255, 2**31, 2**32 - 1, 2**53, U63 - 1, U63])
times = st.sampled_from([-(2**63), -1, 0, 1, U63])
ids16 = st.sampled_from([b"\x00" * 16, b"\x01" * 16, b"\x02" * 16, b"\xff" * 16])
ids32 = st.sampled_from([b"\x00" * 32, b"\x01" * 32, b"\xff" * 32])
runs = st.sampled_from([b"run-0001", b"\x00" * 8, b"\xff" * 8])
ranges = st.lists(
    st.tuples(runs, numbers, numbers).map(lambda row: (row[0], *sorted(row[1:]))),
    min_size=1,
    max_size=4,
).map(tuple)
texts = st.text(max_size=24)

HEADER = st.fixed_dictionaries(
    {},
    optional={
        "seq": numbers,
        "prev": ids32,
        "entry": ids32,
        "epoch": st.sampled_from([0, 1, 2**32 - 1]),
        "decision": st.sampled_from([0, 2**32 - 1]),
        "rows": ranges,
        "stream": ids16,
        "resource": ids16,
        "agent": ids16,
        "resume": st.binary(max_size=40),
        "clock": st.builds(
            ClockMark,
            offset_us=times,
            error_us=numbers,
            source=st.sampled_from(list(ClockSource)),
        ),
        "continues": st.builds(Continues, ids16, numbers, ids32, texts),
    },
)
ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "version": st.sampled_from([1, 2, 2**31 - 1]),
        "previous": ids32,
        "name_zh": st.text(min_size=1, max_size=24),
        "name_en": texts,
        "region": texts,
        "pack": st.text(min_size=1, max_size=24),
        "pack_version": st.sampled_from([0, 2**32 - 1]),
        "owner": ids16,
        "owner_basis": st.sampled_from(["local", "hub", "none"]),
        "nonce": ids16,
        "grade": st.sampled_from([1, 2, 5, 6]),
    },
)
PLAN = st.lists(
    st.one_of(
        st.tuples(st.just("segment"), HEADER, st.integers(-3, 40)),
        st.tuples(st.just("header"), HEADER, st.integers(-3, 40)),
        st.tuples(st.just("entry"), ENTRY, st.just(0)),
        st.tuples(st.just("good"), st.just({}), st.just(0)),
        st.tuples(st.just("gap"), times, times),
        st.tuples(st.just("correction"), numbers, times),
        st.tuples(st.just("evidence"), ids16, numbers),
        st.tuples(st.just("bytes"), st.binary(max_size=60), st.booleans()),
    ),
    min_size=1,
    max_size=8,
)


def _flipped(raw: bytes, at: int) -> bytes:
    """Damage behind the signature: a bit, a missing end, or more than there should be."""
    if at == -1:
        return raw[:-1]
    if at == -2:
        return raw + b"\x00"
    if at == -3:
        return raw
    where = len(raw) - 1 - at
    return raw[:where] + bytes([raw[where] ^ 1]) + raw[where + 1 :]


def _item(source: Source, kind: str, first, second) -> messages.Item | None:
    agent = source.agent
    try:
        match kind:
            case "good":
                return SegmentItem(source.seal().raw)
            case "segment":
                return SegmentItem(_flipped(source.sealed(**first).raw, second))
            case "header":
                return HeaderItem(_flipped(source.sealed(**first).head, second), "fuzz")
            case "entry":
                entry = msgspec.structs.replace(source.payload, **first)
                return ObjectItem(make_registration(entry, agent.signing).raw)
            case "gap":
                gap = Gap(
                    resource=source.id, stream=source.stream, unit="time", first=first,
                    last=second, count=None, reason="x", nonce=bytes(16),
                )  # fmt: skip
                return ObjectItem(make("gap", gap, agent.signing).raw)
            case "correction":
                said = Correction(
                    stream=source.stream, first_seq=first, last_seq=U63, offset_us=second,
                    nonce=bytes(16),
                )  # fmt: skip
                return ObjectItem(make("correction", said, agent.signing).raw)
            case "evidence":
                return EvidenceItem(source.id, first, second)
            case _:
                return ObjectItem(first) if second else SegmentItem(first)
    except ShanmenError:
        return None  # our own maker refuses to sign it


@pytest.fixture(scope="module")
def world():
    """One hub for all examples: what one leaves behind, the next one meets."""
    with tempfile.TemporaryDirectory() as folder:
        loop = asyncio.new_event_loop()
        context = running(Path(folder))
        hub = loop.run_until_complete(context.__aenter__())
        agent = Agent("fuzz")
        loop.run_until_complete(agent.enrol(hub))
        source = agent.resource()
        loop.run_until_complete(agent.send(hub, source.registration))
        yield loop, hub, source
        loop.run_until_complete(check_whole(hub))
        assert {"accepted", "duplicate", "refused", "missing", "fork"} <= SEEN.keys()
        loop.run_until_complete(context.__aexit__(None, None, None))
        loop.close()


@settings(max_examples=EXAMPLES)
@given(plan=PLAN)
def test_any_item_gets_an_answer(world, plan) -> None:
    loop, hub, source = world
    agent = source.agent
    made = [_item(source, *one) for one in plan]
    sent = [one for one in made if one is not None]
    body = messages.encode_batch(
        messages.Batch(
            agent=agent.id, software="fuzz", items=tuple(sent), inbox=(0, 0), checkpoint=None
        )
    )
    raw = loop.run_until_complete(agent.send_raw(hub, body))
    answer = msgspec.msgpack.decode(msgspec.msgpack.decode(raw)[2])
    assert len(answer["items"]) == len(sent)
    SEEN.update(one[0] for one in answer["items"])
    # The source goes on from wherever the hub is now: a good segment is always taken in the end.
    streams = loop.run_until_complete(hub.store.read(_live, agent.id))
    source.stream, source.seq, source.prev = streams[-1][0], streams[-1][1] + 1, streams[-1][2]
    source.run = len(streams).to_bytes(8, "big")
    source.row += 100_000


def _live(tx, agent: bytes) -> list[tuple[bytes, int, bytes]]:
    from hub.store import streams

    found = [(row.id, row.seq, row.head) for row in streams.all_of(tx, agent)]
    return found or [(b"\x01" * 16, -1, bytes(32))]
