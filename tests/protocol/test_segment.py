"""Sealing and opening: what goes in comes out, for who may read it, and in that order only."""

import dataclasses
import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.chain import NO_SEGMENT, Head, Verdict, judge, rows_overlap
from protocol.errors import Code, DecodeError, TooLargeError, VerifyError
from protocol.grades import Grade
from protocol.header import Continues
from protocol.packs import Field, Pack
from protocol.segment import (
    Layout,
    Unverified,
    check_body,
    header_only,
    layout_of,
    open_part,
    open_segment,
    parse,
    part_bytes,
)
from tests.protocol.makers import (
    AGENT,
    LAYOUT,
    OTHER_AGENT,
    STREAM,
    chain_of,
    columns,
    epoch_keys,
    sealed,
)
from tests.protocol.test_columns import bench_load


@given(
    st.integers(1, 200),
    st.integers(0, 9),
    st.sampled_from(
        [Grade.GENERAL_PROTECTED, Grade.PUBLICABLE, Grade.GENERALLY_OPEN, Grade.FULLY_OPEN]
    ),
)
def test_what_goes_in_comes_out(count, seed, grade):
    cols = columns(count, seed)
    segment = sealed(cols, seed=seed, grade=grade)
    arrived = parse(segment.raw).verify(AGENT.public)
    check_body(arrived)
    assert arrived.id == segment.id == parse(segment.raw).id
    assert open_segment(arrived, epoch_keys()) == cols
    assert (arrived.header.first_at, arrived.header.last_at) == (
        min(cols.event_time),
        max(cols.event_time),
    )
    assert len(arrived.header.parts[0].nonce) == (24 if grade <= 4 else 0)


def test_an_unverified_segment_has_no_header():
    unverified = parse(sealed().raw)
    assert {f.name for f in dataclasses.fields(Unverified)} == {"prelude", "raw", "has_body"}
    assert not hasattr(unverified, "header")


def test_a_reader_of_one_group_gets_that_group():
    cols = columns()
    segment = sealed(cols)
    keys = epoch_keys()
    without = open_segment(segment, {0: keys[0]})
    assert without.fields.keys() == {"code", "gate", "amount"}
    assert open_part(segment, 1, keys[1]) == {"visitor": cols.fields["visitor"]}
    with pytest.raises(VerifyError):
        open_segment(segment, {1: keys[1]})
    with pytest.raises(VerifyError):
        open_part(segment, 1, keys[0])
    with pytest.raises(DecodeError):
        open_part(segment, 2, keys[0])


def test_a_part_served_alone():
    segment = sealed()
    head = parse(header_only(segment), body=False).verify(AGENT.public)
    stored = bytes(part_bytes(segment, 1))
    assert open_part(head, 1, epoch_keys()[1], stored=stored) == open_part(
        segment, 1, epoch_keys()[1]
    )
    with pytest.raises(VerifyError, match="hash-mismatch"):
        open_part(head, 1, epoch_keys()[1], stored=bytes(part_bytes(segment, 0)))
    with pytest.raises(DecodeError):
        check_body(head)


def test_a_key_that_was_not_committed_to_opens_nothing():
    segment = sealed()
    keys = epoch_keys()
    other = type(keys[0])(
        resource=keys[0].resource, epoch=7, group=0, key=b"?" * 32, from_us=0, to_us=1
    )
    with pytest.raises(VerifyError) as caught:
        open_part(segment, 0, other)
    assert caught.value.code is Code.COMMITMENT_MISMATCH
    late = type(keys[0])(
        resource=keys[0].resource, epoch=8, group=0, key=keys[0].key, from_us=0, to_us=1
    )
    with pytest.raises(VerifyError):
        open_part(segment, 0, late)


def test_sealing_refuses_what_no_reader_takes():
    with pytest.raises(DecodeError):  # a field of no group would be lost silently
        sealed(columns(5, fields={"unknown": [1, 2, 3, 4, 5]}))
    with pytest.raises(DecodeError):
        sealed(seq=1)  # without prev
    with pytest.raises(VerifyError):
        sealed(keys={0: epoch_keys()[0]})
    with pytest.raises(DecodeError):
        sealed(resume=b"x" * 513)
    with pytest.raises(DecodeError):
        sealed(rows=[(b"run-id-8", n, n) for n in range(33)])
    with pytest.raises(TooLargeError):
        sealed(
            columns(
                50,
                fields={
                    "code": [bytes([n]) * 90_000 + n.to_bytes(4, "big") for n in range(50)],
                    "gate": [__import__("random").Random(n).randbytes(90_000) for n in range(50)],
                },
            )
        )


def test_continues_and_resume_travel():
    follows = Continues(STREAM, 41, b"\x07" * 32, "image restored")
    segment = sealed(
        stream=b"another-stream-1", resume=b"sealed watermark", continues=follows, decision=3
    )
    header = parse(segment.raw).verify(AGENT.public).header
    assert (header.resume, header.continues, header.decision) == (b"sealed watermark", follows, 3)


def test_layout_of_a_pack():
    def field(name, **more):
        return Field(name=name, zh=name, en=name, type="string", grade=Grade.SHAREABLE, **more)

    pack = Pack(
        id="t",
        version=1,
        zh="t",
        en="t",
        grade=Grade.SHAREABLE,
        fields=(field("a"), field("who", group="personal", personal="personal"), field("b")),
    )
    assert layout_of(pack) == Layout((("a", "b"), ("who",)), frozenset({1}))
    assert layout_of(pack, pad_all=True).padded == {0, 1}


def test_wire_bytes_a_record():
    """Header, signature and parts of the bench load: the bar is 14 with answers and registrations."""
    total = 0
    for cols in bench_load(1000, 100):
        layout = Layout((tuple(cols.fields),))
        total += len(sealed(cols, layout=layout, keys=epoch_keys(groups=1)).raw)
    assert total / 3000 <= 8


H = Head(4, b"\x04" * 32)


@pytest.mark.parametrize(
    ("head", "seq", "prev", "id", "known", "verdict"),
    [
        (None, 0, NO_SEGMENT, b"a" * 32, None, Verdict.NEXT),
        (None, 0, b"x" * 32, b"a" * 32, None, Verdict.FORK),
        (None, 1, b"x" * 32, b"a" * 32, None, Verdict.GAP),
        (H, 5, H.id, b"a" * 32, None, Verdict.NEXT),
        (H, 5, b"x" * 32, b"a" * 32, None, Verdict.FORK),
        (H, 6, H.id, b"a" * 32, None, Verdict.GAP),
        (H, 4, b"p" * 32, H.id, H.id, Verdict.DUPLICATE),
        (H, 4, b"p" * 32, b"a" * 32, H.id, Verdict.FORK),
        (H, 0, NO_SEGMENT, b"a" * 32, b"z" * 32, Verdict.FORK),
        (H, 2, b"p" * 32, b"a" * 32, None, Verdict.FORK),
    ],
)
def test_chain(head, seq, prev, id, known, verdict):
    assert judge(head, seq, prev, id, known) is verdict


def test_rows_overlap_counts_per_run():
    a, b = b"run-a---", b"run-b---"
    assert rows_overlap([(a, 0, 9)], [(a, 9, 20)])
    assert rows_overlap([(a, 5, 6)], [(b, 0, 0), (a, 0, 100)])
    assert not rows_overlap([(a, 0, 9)], [(a, 10, 20), (b, 0, 9)])
    assert not rows_overlap([], [(a, 0, 9)])


def test_links_of_a_stream():
    segments = chain_of(4)
    assert [s.header.prev for s in segments] == [NO_SEGMENT, *(s.id for s in segments[:-1])]


def test_protocol_modules_draw_no_randomness():
    import protocol.part
    import protocol.segment

    for module in (protocol.segment, protocol.part):
        assert "import os" not in inspect.getsource(module)
    assert sealed().raw == sealed().raw


def test_signer_is_part_of_the_prelude():
    with pytest.raises(VerifyError) as caught:
        parse(sealed().raw).verify(OTHER_AGENT.public)
    assert caught.value.code is Code.WRONG_SIGNER
    assert LAYOUT.padded == {1}
