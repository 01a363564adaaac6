"""Hostile objects: whatever arrives, only declared errors, in bounded memory.

Each target takes valid objects, bends them and signs them again with the right keys.
SHANMEN_FUZZ_EXAMPLES sets the examples a target (2,000 by default).
"""

import copy

import msgpack
import pytest

from protocol import wire
from protocol.enrolment import open_enrolled, open_enrolment
from protocol.envelope import SigningKey, decode_payload, make, parse, verify
from protocol.errors import ConfigError, DecodeError, RefusedError, ShanmenError, VerifyError
from protocol.ids import parse as parse_id
from protocol.inbox import make_inbox, open_inbox
from protocol.notes import make_correction, make_gap, open_note
from protocol.packs import check_columns, open_schema, parse_pack
from protocol.principal import make_principal, open_principal
from protocol.records import Record, dump_columns, load_columns, to_columns
from protocol.registration import Registration, open_registration
from protocol.times import parse_rfc3339
from protocol.token import parse_token
from protocol.wraps import make_wrap, open_wrap
from tests.protocol import objects as o
from tests.protocol.fuzzing import attack, bend, bend_bytes, value
from tests.protocol.objects import AGENT, HUB, OWNER
from tests.protocol.test_abuse_objects import signed
from tests.protocol.test_records_packs import PACK, TOML

AGENT_KEYS = o.public_keys(AGENT).get
HUB_KEYS = o.public_keys(HUB).get
TOKEN_KEY = o.TOKEN.signing_key()
REQUEST = o.enrolment()
TOKENS = {o.TOKEN.token_id: TOKEN_KEY.public}.get

ENTRY = o.registration()
GAP = make_gap(o.gap(), AGENT)
CORRECTION = make_correction(o.correction(), AGENT)
PRINCIPAL = make_principal(OWNER, o.OWNER_SEALING.public, kind="owner", nonce=o.NONCE)
WRAP = make_wrap(
    o.epoch_key(),
    recipient=OWNER.principal,
    recipient_sealing=o.OWNER_SEALING.public,
    maker=AGENT,
    seen=None,
    nonce=o.NONCE,
    box_seed=bytes(32),
)
INBOX = make_inbox(o.inbox_message(), HUB)
ENROLLED = o.enrolled(REQUEST).envelope

#: Per target: a valid envelope, who signs it, who opens it.
TARGETS = {
    "registration": (ENTRY, [AGENT], lambda e: open_registration(e, AGENT.public)),
    "gap": (GAP, [AGENT], lambda e: open_note(e, AGENT_KEYS)),
    "correction": (CORRECTION, [AGENT], lambda e: open_note(e, AGENT_KEYS)),
    "principal": (PRINCIPAL, [OWNER], lambda e: open_principal(e, OWNER.principal)),
    "wrap": (WRAP, [AGENT], lambda e: open_wrap(e, o.OWNER_SEALING, AGENT_KEYS)),
    "inbox": (
        INBOX,
        [HUB],
        lambda e: open_inbox(e, HUB_KEYS, agent=AGENT.principal, applied=(1, 3), now_us=0),
    ),
    "enrolment": (
        REQUEST,
        [AGENT, TOKEN_KEY],
        lambda e: open_enrolment(e.raw, token_key=TOKENS, hub=HUB.principal),
    ),
    "enrolled": (
        ENROLLED,
        [HUB],
        lambda e: open_enrolled(
            e.raw, hub=HUB.principal, request=REQUEST.object_id, agent=AGENT.principal
        ),
    ),
}

OBJECT_ERRORS = (DecodeError, VerifyError, RefusedError)


def refusal(action, *declared):
    """Run it and give its declared error, or None; any other error is a bug."""
    try:
        action()
    except declared as error:
        return error
    return None


def resigned(kind: str, body: bytes, signers: list[SigningKey]) -> bytes:
    """The envelope that a peer with good keys makes of a bad payload."""
    return signed(kind, body, *signers)


@pytest.mark.parametrize("name", TARGETS)
def test_fuzz_signed_object(name):
    good, signers, opener = TARGETS[name]
    plain = msgpack.unpackb(good.payload)
    opener(good)
    outcomes = {"ok": 0, "refused": 0}

    def bent_and_signed_again(rng):
        if rng.random() < 0.2:
            body = bend_bytes(good.payload, rng)
        else:
            body = msgpack.packb(bend(copy.deepcopy(plain), rng))
        error = refusal(lambda: opener(parse(resigned(name, body, signers))), *OBJECT_ERRORS)
        outcomes["ok" if error is None else "refused"] += 1
        assert str(error).isprintable()
        assert len(str(error)) < 1000

    attack(bent_and_signed_again)
    # Most are refused; that some pass shows that the mutations come near.
    assert outcomes["refused"] > outcomes["ok"] > 0


def test_fuzz_envelope_bytes():
    raws = [good.raw for good, _, _ in TARGETS.values()]

    def bent(rng):
        raw = bend_bytes(rng.choice(raws), rng)
        try:
            verify(parse(raw), AGENT_KEYS)
        except OBJECT_ERRORS:
            pass
        else:
            assert raw in raws

    attack(bent)


def test_fuzz_envelope_structure():
    raws = [msgpack.unpackb(good.raw) for good, _, _ in TARGETS.values()]

    def bent(rng):
        outer = bend(copy.deepcopy(rng.choice(raws)), rng)
        try:
            opened = parse(msgpack.packb(outer))
            opened.object_id, opened.record_hash
            verify(opened, AGENT_KEYS)
        except OBJECT_ERRORS:
            pass

    attack(bent)


def test_fuzz_strict_msgpack():
    def any_bytes(rng):
        raw = (
            msgpack.packb(value(rng, 5)) if rng.random() < 0.5 else rng.randbytes(rng.randrange(64))
        )
        if rng.random() < 0.5:
            raw = bend_bytes(raw, rng)
        try:
            found = wire.decode_any(raw, limit=4096)
        except DecodeError:
            return
        # What was taken is plain and finite: it can be written and read again, and stays itself.
        assert wire.decode_any(wire.encode(found), limit=8192) == found

    attack(any_bytes)


def test_fuzz_claimed_lengths():
    heads = (
        b"\xdd",
        b"\xdf",
        b"\xc6",
        b"\xdb",
        b"\xc9",
        b"\xdc",
        b"\xde",
        b"\x9f",
        b"\x8f",
        b"\x91",
    )

    def bombs(rng):
        parts = [
            rng.choice(heads) + rng.randbytes(rng.randrange(5)) for _ in range(rng.randrange(60))
        ]
        with pytest.raises(DecodeError):
            wire.decode_any(b"".join(parts) * rng.randrange(1, 9) + b"\xc1", limit=2**23)

    attack(bombs)


def test_fuzz_typed_decode():
    plain = msgpack.unpackb(ENTRY.payload)

    def unsigned(rng):
        body = msgpack.packb(bend(copy.deepcopy(plain), rng))
        error = refusal(lambda: wire.decode(body, Registration, limit=65_536), DecodeError)
        assert error is None or error.code.number // 100 == 2

    attack(unsigned)


def test_fuzz_texts_that_people_type():
    texts = [o.TOKEN.text, "aaaa-aaaa-aaaa-aaaa", "2022-07-18T09:34:15.775023242+00:00"]
    readers = (parse_token, parse_id, parse_rfc3339)

    def typed(rng):
        text = bend_bytes(rng.choice(texts).encode(), rng).decode(errors="surrogateescape")
        for reader in readers:
            problem = refusal(lambda reader=reader: reader(text), DecodeError)
            if reader is parse_token:
                assert problem is None or problem.value == "None"

    attack(typed)
    for reader in readers[1:]:
        assert o.TOKEN.text[4:20] not in str(refusal(lambda: reader(o.TOKEN.text), DecodeError))


def test_fuzz_packs():
    def tables(rng):
        bent = bend(copy.deepcopy(TOML), rng)
        table = bent if isinstance(bent, dict) else {"fields": bent}
        error = refusal(lambda: parse_pack(table), ConfigError)
        if error is None:
            pack = parse_pack(table)
            assert open_schema(pack.schema_bytes) == pack.fields
        else:
            assert error.problems
            assert str(error).isprintable()

    attack(tables)


def test_fuzz_schemas():
    plain = msgpack.unpackb(PACK.schema_bytes)

    def bytes_of_an_entry(rng):
        try:
            fields = open_schema(msgpack.packb(bend(copy.deepcopy(plain), rng)))
        except DecodeError:
            return
        assert fields

    attack(bytes_of_an_entry)


def test_fuzz_records_through_check_and_journal():
    names = PACK.names

    def rows(rng):
        made = [
            Record(
                event_time_us=rng.getrandbits(62),
                device="d",
                values={name: value(rng, 1) for name in names if rng.random() < 0.8},
            )
            for _ in range(rng.randrange(6))
        ]
        columns = to_columns(made, names, 0)
        bad = {row for problem in check_columns(PACK, columns) for row in problem.rows}
        kept = columns.keep([row for row in range(columns.count) if row not in bad])
        assert check_columns(PACK, kept) == []
        assert load_columns(dump_columns(kept)) == kept

    attack(rows)


def test_fuzz_journal_bodies():
    good = dump_columns(
        to_columns([Record(event_time_us=1, device="d", values={"a": 1})] * 3, ["a"], 0)
    )

    def bent(rng):
        try:
            load_columns(bend_bytes(good, rng))
        except DecodeError:
            pass

    attack(bent)


def test_a_payload_that_passed_is_the_payload_that_was_signed():
    opened = parse(ENTRY.raw)
    assert decode_payload(opened, Registration) == o.entry()
    assert make("registration", o.entry(), AGENT).raw == ENTRY.raw
    assert isinstance(ShanmenError.__mro__[1], type)
