"""Fuzz of segments, messages, proofs and notes: valid ones, bent and signed again by the right key.

Only declared errors may come out, and no more memory than the budget may be taken.
"""

import copy
import random
import struct

import msgpack
import pytest
import zstandard
from hypothesis import given
from msgspec.structs import replace

from protocol import tags, wire
from protocol.checkpoint import parse_note, sign_note, verify_note
from protocol.columns import decode_part
from protocol.envelope import only_key
from protocol.errors import DecodeError, ShanmenError, VerifyError
from protocol.frame import unpack_frame
from protocol.grades import Grade
from protocol.leaf import parse_leaf
from protocol.messages import SegmentItem, decode_batch
from protocol.receipt import Receipt, verify_receipt
from protocol.segment import check_body, open_segment, parse, part_bytes
from protocol.signatures import check_body as check_request_body
from protocol.signatures import sign_request, verify_request
from tests.protocol.bend import header_list, resigned, with_plain
from tests.protocol.fuzzing import BATCH, attack, bend, bend_bytes, bounded_memory, fuzz, seeds
from tests.protocol.makers import AGENT, HUB, LOG, NOW_US, chain_of, columns, epoch_keys, sealed
from tests.protocol.memory_hub import MemoryHub

SEALED = sealed(columns(30, 3))
OPEN = sealed(columns(30, 3), grade=Grade.GENERALLY_OPEN)
KEYS = epoch_keys()
DECLARED = (DecodeError, VerifyError)  # the peer's data: unreadable, or not to be believed


class Tally:
    """Counts outcomes, so that a target whose examples all die at the door is seen."""

    def __init__(self) -> None:
        self.good = self.refused = 0

    def __call__(self, call, *arguments, **named) -> None:
        error = None
        try:
            call(*arguments, **named)
        except DECLARED as declared:
            error = declared
        self.good += error is None
        self.refused += error is not None
        assert str(error).isprintable()


def read(raw: bytes) -> None:
    segment = parse(raw).verify(AGENT.public)
    check_body(segment)
    open_segment(segment, KEYS)


def run(example) -> Tally:
    tally = Tally()
    attack(lambda rng: example(rng, tally))
    assert tally.refused
    return tally


def run_traced(example) -> Tally:
    """As `run`, with the memory watched throughout: for what allocates by what the input claims."""
    tally = Tally()

    @fuzz
    @given(seeds)
    def examples(seed):
        for part in range(BATCH):
            example(random.Random(seed * BATCH + part), tally)

    with bounded_memory():
        examples()
    assert tally.refused
    return tally


def test_fuzz_segment_bytes():
    def example(rng, tally):
        tally(read, bend_bytes(rng.choice((SEALED, OPEN)).raw, rng))

    run(example)


def test_fuzz_segment_header_signed_again():
    plain = {segment.id: header_list(segment) for segment in (SEALED, OPEN)}

    def example(rng, tally):
        segment = rng.choice((SEALED, OPEN))
        if rng.random() < 0.2:
            raw = resigned(segment, header_raw=bend_bytes(segment.header_bytes, rng)[:60_000])
        else:
            header = msgpack.packb(bend(copy.deepcopy(plain[segment.id]), rng))
            raw = resigned(segment, header_raw=header[:60_000])
        tally(read, raw)

    assert run(example).good


def columns_of(part: bytes) -> bytes:
    return unpack_frame(part, lambda _: None)


def packed(raw: bytes) -> bytes:
    frame = zstandard.compress(raw, 1)
    return struct.pack(">II", len(raw), len(frame)) + frame


def test_fuzz_columns_signed_again():
    """The columns themselves are bent, then compressed, hashed and signed by an honest hand."""
    raws = [columns_of(bytes(part_bytes(OPEN, group))) for group in (0, 1)]

    def bent_raw(rng, raw):
        if rng.random() < 0.5:
            return bend_bytes(raw, rng)
        size = int.from_bytes(raw[:4], "big")
        head = msgpack.packb(bend(msgpack.unpackb(raw[4 : 4 + size]), rng))
        return len(head).to_bytes(4, "big") + head + raw[4 + size :]

    def example(rng, tally):
        group = rng.randrange(2)
        tally(read, with_plain(OPEN, group, packed(bent_raw(rng, raws[group]))))

    assert run_traced(example).good


def test_fuzz_columns_with_any_count():
    """A few bytes that claim a hundred thousand rows, in every encoding."""
    parts = [packed(columns_of(bytes(part_bytes(OPEN, group)))) for group in (0, 1)]
    raws = [columns_of(part) for part in parts]

    def example(rng, tally):
        group = rng.randrange(2)
        raw = raws[group] if rng.random() < 0.2 else bend_bytes(raws[group], rng)
        count = rng.choice((1, 29, 30, 31, 1000, 100_000))
        tally(decode_part, packed(raw), count)

    assert run_traced(example).good


def test_fuzz_frames_signed_again():
    parts = [bytes(part_bytes(OPEN, group)) for group in (0, 1)]

    def example(rng, tally):
        group = rng.randrange(2)
        plain = bend_bytes(parts[group], rng)
        tally(read, with_plain(OPEN, group, plain or b"\0"))

    run(example)


def test_fuzz_batches():
    hub = MemoryHub()
    agent = hub.agent()
    body = agent.request([SegmentItem(s.raw) for s in chain_of(2)], inbox=(1, 0), software="a")
    plain = msgpack.unpackb(body)

    def example(rng, tally):
        if rng.random() < 0.3:
            bent = bend_bytes(body, rng)
        else:
            bent = msgpack.packb(bend(copy.deepcopy(plain), rng))
        try:
            batch = decode_batch(bent)
        except DECLARED:
            tally.refused += 1
            return
        tally.good += 1
        for item in batch.items:
            if isinstance(item, SegmentItem):
                tally(read, item.raw)

    assert run(example).good


def answer_envelope(payload: bytes) -> bytes:
    signed = tags.ENVELOPE + bytes((1, 6)) + b"answer" + payload
    return msgpack.packb([1, "answer", payload, [[HUB.key_id, HUB.sign(signed)]]])


@pytest.mark.parametrize("kind", ["accepted", "fork", "generation"])
def test_fuzz_answers_signed_again(kind):
    """An answer that the hub's key signed, with anything in it, makes the agent let go of nothing
    that is not in a leaf of the hub's ledger."""
    hub = MemoryHub()
    sync = hub.agent()
    segments = chain_of(4)
    body = sync.request([SegmentItem(s.raw) for s in segments], inbox=(1, 0), software="a")
    sync.receive(hub.handle(body), now_us=NOW_US)
    items = [SegmentItem(s.raw) for s in segments]
    if kind == "fork":
        items = [SegmentItem(sealed(columns(5, 50), seq=1, prev=segments[0].id, seed=50).raw)]
    if kind == "generation":
        hub.restore(1)
    body = sync.request(items, inbox=(1, 0), software="a")
    plain = msgpack.unpackb(wire.encode(hub.payload(body)))
    state = (sync.checkpoint, sync.hub, sync._sent)
    true_ids = {segment.id for segment in segments}

    def example(rng, tally):
        sync.checkpoint, sync.hub, sync._sent = state
        payload = msgpack.packb(bend(copy.deepcopy(plain), rng))
        try:
            outcome = sync.receive(answer_envelope(payload), now_us=NOW_US)
        except DECLARED:
            tally.refused += 1
            return
        tally.good += 1
        assert {item.id for item in outcome.accepted} <= true_ids
        assert {shown.id for shown in outcome.covered} <= true_ids
        assert outcome.checkpoint is None or outcome.checkpoint.text in {
            state[0].text,
            hub.ledger.note(),
        }

    assert run(example).good


def test_fuzz_checkpoints_signed_again():
    hub = MemoryHub()
    note = hub.ledger.note()
    text = note.split("\n\n")[0] + "\n"

    def bent_text(rng):
        raw = bend_bytes(text.encode(), rng)
        return raw.decode("utf-8", "replace")

    def example(rng, tally):
        if rng.random() < 0.5:
            tally(
                verify_note,
                bend_bytes(note.encode(), rng).decode("utf-8", "replace"),
                hub.identity.log_vkey,
            )
            return
        try:
            signed = sign_note(bent_text(rng), hub.ledger.origin, LOG)
        except DecodeError:
            tally.refused += 1
            return
        tally(parse_note, signed)
        tally(verify_note, signed, hub.identity.log_vkey)

    assert run(example).good


def test_fuzz_receipts_and_leaves():
    hub = MemoryHub()
    sync = hub.agent()
    body = sync.request([SegmentItem(s.raw) for s in chain_of(3)], inbox=(1, 0), software="a")
    receipt = hub.payload(body).receipt.receipt(0)
    plain = msgpack.unpackb(wire.encode(receipt))
    vkey = hub.identity.log_vkey

    def opened(data):
        verify_receipt(wire.decode(data, Receipt, limit=10**6), vkey, AGENT.principal)

    def example(rng, tally):
        tally(opened, msgpack.packb(bend(copy.deepcopy(plain), rng)))
        leaf = bend_bytes(receipt.leaf, rng)
        tally(parse_leaf, leaf)
        tally(verify_receipt, replace(receipt, leaf=leaf), vkey, AGENT.principal)

    assert run(example).good


def test_fuzz_request_fields():
    fields = sign_request(
        "POST",
        "/v1/sync",
        "",
        body=b"\x80",
        content_type="x/y",
        hub=HUB.principal,
        key=AGENT,
        created_s=10**9,
        nonce=bytes(16),
    )

    def example(rng, tally):
        bent = dict(fields)
        name = rng.choice(sorted(bent))
        bent[name] = bend_bytes(bent[name].encode(), rng).decode("latin-1")

        def verified():
            found = verify_request(
                "POST",
                "/v1/sync",
                "",
                bent,
                hub=HUB.principal,
                keys=only_key(AGENT.public),
                now_s=10**9,
                has_body=True,
            )
            check_request_body(found, b"\x80")
            assert bent[name].strip(" \t") == fields[name]

        tally(verified)

    run(example)


def test_declared_errors_are_ours():
    assert all(issubclass(error, ShanmenError) for error in DECLARED)
