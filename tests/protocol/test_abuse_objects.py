"""Abuse of signed objects: each case of the protocol's list that can be tried without IO."""

import msgpack
import pytest
from msgspec import structs

from protocol import envelope as env
from protocol import tags, wire
from protocol.enrolment import Enrolment, open_enrolled, open_enrolment
from protocol.envelope import SealingKey, SigningKey, make, parse, verify
from protocol.errors import Code, DecodeError, RefusedError, TooLargeError, VerifyError
from protocol.ids import Use, key_id
from protocol.inbox import open_inbox
from protocol.notes import open_note
from protocol.principal import Principal, make_principal, open_principal
from protocol.registration import open_registration
from protocol.wraps import Wrap, open_wrap
from tests.protocol import objects as o
from tests.protocol.objects import AGENT, HUB, OWNER, STRANGER, owner_principal, wrapped


def signed(kind: str, body: bytes, *keys: SigningKey) -> bytes:
    """An envelope around any bytes at all, with good signatures: what a hostile peer can make."""
    data = tags.ENVELOPE + bytes((1, len(kind))) + kind.encode() + body
    return msgpack.packb([1, kind, body, [[key.key_id, key.sign(data)] for key in keys]])


def failing(code: Code, kind: type[Exception] = DecodeError):
    return pytest.raises(kind, check=lambda error: error.code is code)


NESTED = [b"\x91" * 9 + b"\x90", b"\x81\xa1a" * 9 + b"\x80", b"\x91" * 5000 + b"\xc0"]


@pytest.mark.parametrize("body", NESTED)
def test_msgpack_depth_bomb(body):
    with pytest.raises(DecodeError) as caught:
        wire.decode_any(body, limit=100_000)
    assert caught.value.code in (Code.TOO_DEEP, Code.MALFORMED)
    note = parse(signed("gap", body, AGENT))
    with pytest.raises(DecodeError):
        open_note(note, o.public_keys(AGENT).get)


def test_msgpack_depth_of_eight_passes():
    assert wire.decode_any(b"\x91" * 7 + b"\x90", limit=8) == [[[[[[[[]]]]]]]]


@pytest.mark.parametrize(
    "claim",
    [
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xdc\xff\xff" * 400,
        b"\xc6\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\x91" + b"\xdd\x00\x0f\xff\xff" * 300,
    ],
)
def test_msgpack_claimed_length_costs_nothing(claim):
    import tracemalloc

    tracemalloc.start()
    with pytest.raises(DecodeError):
        wire.decode_any(claim + bytes(2000), limit=8 * 1024 * 1024)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 * 1024 * 1024


def test_msgpack_duplicate_keys():
    with failing(Code.DUPLICATE_KEY):
        wire.decode_any(b"\x82\xa1a\x01\xa1a\x02", limit=100)
    good = wire.encode(o.gap())
    twice = bytes((good[0] + 1,)) + good[1:] + msgpack.packb("reason") + msgpack.packb("other")
    with failing(Code.DUPLICATE_KEY):
        open_note(parse(signed("gap", twice, AGENT)), o.public_keys(AGENT).get)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_nan_and_infinity(value):
    with failing(Code.NOT_FINITE):
        wire.decode_any(msgpack.packb({"a": [value]}), limit=100)
    with failing(Code.NOT_FINITE):
        o.registration(coordinates=structs.replace(o.entry().coordinates, longitude=value))


@pytest.mark.parametrize("text", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\x80"])
def test_invalid_utf8(text):
    with failing(Code.INVALID_UTF8):
        wire.decode_any(bytes((0xA0 + len(text),)) + text, limit=100)
    body = wire.encode(o.gap()).replace(b"\xa9disk-full", b"\xa9" + (text + b"disk-full")[:9])
    with failing(Code.INVALID_UTF8):
        open_note(parse(signed("gap", body, AGENT)), o.public_keys(AGENT).get)


def test_extension_types_and_timestamps_are_refused():
    for data in (b"\xd4\x01\x00", b"\xc7\x02\x05\x00\x00", msgpack.packb(msgpack.Timestamp(1, 2))):
        with failing(Code.EXTENSION_TYPE):
            wire.decode_any(b"\x91" + data, limit=100)


def test_bytes_after_the_object_are_refused():
    with failing(Code.TRAILING_BYTES):
        wire.decode_any(b"\x01\x00", limit=10)
    with failing(Code.TRAILING_BYTES):
        parse(o.registration().raw + b"\x00")
    body = wire.encode(o.gap()) + b"\xc0"
    with failing(Code.TRAILING_BYTES):
        open_note(parse(signed("gap", body, AGENT)), o.public_keys(AGENT).get)


def every_object():
    """(kind, payload, signers, opener) of each kind of object."""
    agent, hub = o.public_keys(AGENT).get, o.public_keys(HUB).get
    request = o.enrolment()
    tokens = {o.TOKEN.token_id: o.TOKEN.signing_key().public}
    return {
        "gap": (o.gap(), [AGENT], lambda e: open_note(e, agent)),
        "correction": (o.correction(), [AGENT], lambda e: open_note(e, agent)),
        "registration": (o.entry(), [AGENT], lambda e: open_registration(e, AGENT.public)),
        "principal": (
            env.decode_payload(owner_principal(), Principal),
            [OWNER],
            lambda e: open_principal(e, OWNER.principal),
        ),
        "wrap": (
            env.decode_payload(wrapped(), Wrap),
            [AGENT],
            lambda e: open_wrap(e, o.OWNER_SEALING, agent),
        ),
        "inbox": (
            o.inbox_message(),
            [HUB],
            lambda e: open_inbox(e, hub, agent=AGENT.principal, applied=(1, 3), now_us=0),
        ),
        "enrolment": (
            env.decode_payload(request, Enrolment),
            [AGENT, o.TOKEN.signing_key()],
            lambda e: open_enrolment(e.raw, token_key=tokens.get, hub=HUB.principal),
        ),
        "enrolled": (
            o.enrolled(request).payload,
            [HUB],
            lambda e: open_enrolled(
                e.raw, hub=HUB.principal, request=request.object_id, agent=AGENT.principal
            ),
        ),
    }


@pytest.mark.parametrize("kind", every_object())
def test_unknown_key_in_signed_object(kind):
    payload, signers, opener = every_object()[kind]
    good = msgpack.unpackb(wire.encode(payload))
    opener(make(kind, good, *signers))
    with failing(Code.UNKNOWN_FIELD):
        opener(make(kind, {**good, "extra": 1}, *signers))


@pytest.mark.parametrize("kind", every_object())
def test_every_field_is_needed_and_typed(kind):
    payload, signers, opener = every_object()[kind]
    good = msgpack.unpackb(wire.encode(payload))
    for name in good:
        less = {key: value for key, value in good.items() if key != name}
        with pytest.raises(DecodeError) as caught:
            opener(make(kind, less, *signers))
        assert caught.value.code is Code.MISSING_FIELD
        assert name in caught.value.field
        with pytest.raises((DecodeError, VerifyError, RefusedError)):
            opener(make(kind, {**good, name: {"not": "this"}}, *signers))


@pytest.mark.parametrize("kind", every_object())
def test_each_bit_of_an_envelope_counts(kind):
    payload, signers, opener = every_object()[kind]
    raw = make(kind, payload, *signers).raw
    for at in range(0, len(raw), max(1, len(raw) // 200)):
        bent = bytearray(raw)
        bent[at] ^= 1 << (at % 8)
        with pytest.raises((DecodeError, VerifyError, RefusedError)):
            opener(parse(bytes(bent)))


@pytest.mark.parametrize("kind", ["segment", "", "Gap", "gap\0", "x" * 25, "grant"])
def test_envelope_kind_segment(kind):
    with failing(Code.UNKNOWN_KIND):
        parse(signed(kind, wire.encode(o.gap()), AGENT))
    with failing(Code.UNKNOWN_KIND):
        parse(msgpack.packb([1, 7, b"", []]))


def test_object_of_one_kind_is_not_another():
    body = wire.encode(o.entry())
    with failing(Code.UNKNOWN_KIND):
        open_note(parse(signed("registration", body, AGENT)), o.public_keys(AGENT).get)
    # The kind is signed: moving a payload under another kind breaks the signature.
    outer = msgpack.unpackb(o.registration().raw)
    outer[1] = "description"
    with failing(Code.SIGNATURE_INVALID, VerifyError):
        open_registration(parse(msgpack.packb(outer)), AGENT.public)


def test_same_signer_twice():
    body = env.decode_payload(o.enrolment(), Enrolment)
    with failing(Code.SIGNATURE_COUNT, VerifyError):
        parse(signed("enrolment", wire.encode(body), AGENT, AGENT))
    for keys in ((), (AGENT,), (AGENT, OWNER, HUB)):
        with failing(Code.SIGNATURE_COUNT, VerifyError):
            parse(signed("enrolment", wire.encode(body), *keys))
    for keys in ((), (AGENT, OWNER)):
        with failing(Code.SIGNATURE_COUNT, VerifyError):
            parse(signed("gap", wire.encode(o.gap()), *keys))


# Points of order 1, 2, 4 and 8 and non-canonical forms of them: a signature of zeros "verifies"
# under some of these in a careless implementation.
SMALL_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_ed25519_small_order_key(point):
    weak = bytes.fromhex(point)
    kid = key_id(weak, use=Use.SIGNING)
    for r in (weak, bytes.fromhex(SMALL_ORDER[1])):
        forged = msgpack.packb([1, "gap", wire.encode(o.gap()), [[kid, r + bytes(32)]]])
        with failing(Code.SIGNATURE_INVALID, VerifyError):
            verify(parse(forged), {kid: weak}.get)
    body = Principal(
        principal=kid,
        kind="owner",
        signing_key=weak,
        sealing_key=o.OWNER_SEALING.public,
        recovery_key=None,
        version=1,
        previous=None,
        nonce=o.NONCE,
    )
    forged = msgpack.packb([1, "principal", wire.encode(body), [[kid, weak + bytes(32)]]])
    with failing(Code.SIGNATURE_INVALID, VerifyError):
        open_principal(parse(forged), kid)


def test_signature_with_large_s_is_refused():
    order = 2**252 + 27742317777372353535851937790883648493
    good = o.registration()
    signature = good.signatures[0].value
    larger = int.from_bytes(signature[32:], "little") + order
    outer = msgpack.unpackb(good.raw)
    outer[3][0][1] = signature[:32] + larger.to_bytes(32, "little")
    with failing(Code.SIGNATURE_INVALID, VerifyError):
        open_registration(parse(msgpack.packb(outer)), AGENT.public)


def test_sealing_key_of_small_order_gets_no_box():
    for point in (
        bytes(32),
        (1).to_bytes(32, "little"),
        bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    ):
        with failing(Code.WEAK_KEY, VerifyError):
            wrapped(recipient_sealing=point)


# --- enrolment -----------------------------------------------------------------------------------


def test_enrolment_for_other_hub():
    raw = o.enrolment().raw
    tokens = {o.TOKEN.token_id: o.TOKEN.signing_key().public}
    with failing(Code.WRONG_HUB, VerifyError):
        open_enrolment(raw, token_key=tokens.get, hub=STRANGER.principal)
    # And the other way: another hub answers the request of an agent whose token names HUB.
    request = o.enrolment()
    answer = o.enrolled(request, hub=STRANGER)
    with failing(Code.WRONG_HUB, VerifyError):
        open_enrolled(
            answer.envelope.raw, hub=HUB.principal, request=request.object_id, agent=AGENT.principal
        )


def test_enrolment_answer_with_stolen_hub_id():
    request = o.enrolment()
    payload = structs.replace(o.enrolled(request, hub=STRANGER).payload, hub=HUB.principal)
    raw = make("enrolled", payload, STRANGER).raw
    with failing(Code.WRONG_HUB, VerifyError):
        open_enrolled(raw, hub=HUB.principal, request=request.object_id, agent=AGENT.principal)
    # With the hub's real public key in it, but the stranger's signature.
    payload = structs.replace(
        payload, hub_keys=structs.replace(payload.hub_keys, signing=HUB.public)
    )
    raw = make("enrolled", payload, STRANGER).raw
    with failing(Code.UNKNOWN_KEY, VerifyError):
        open_enrolled(raw, hub=HUB.principal, request=request.object_id, agent=AGENT.principal)


def test_enrolment_answer_replayed():
    first, second = o.enrolment(), o.enrolment(owner=STRANGER.principal)
    answer = o.enrolled(first).envelope.raw
    opened = open_enrolled(
        answer,
        hub=HUB.principal,
        request=first.object_id,
        agent=AGENT.principal,
        record_hash=first.record_hash,
    )
    assert opened.site == "lake"
    with failing(Code.ANSWER_FOR_OTHER_REQUEST, VerifyError):
        open_enrolled(answer, hub=HUB.principal, request=second.object_id, agent=AGENT.principal)
    # The hub's old answer with the new request's id, but the old leaf.
    patched = structs.replace(o.enrolled(first).payload, request=second.object_id)
    with failing(Code.PROOF_INVALID, VerifyError):
        open_enrolled(
            make("enrolled", patched, HUB).raw,
            hub=HUB.principal,
            request=second.object_id,
            agent=AGENT.principal,
        )


def test_enrolment_answer_without_its_leaf_in_the_tree():
    request = o.enrolment()
    good = o.enrolled(request).payload
    other = o.enrolled(o.enrolment(owner=STRANGER.principal)).payload
    for changes, code in (
        ({"path": ()}, Code.PROOF_INVALID),
        ({"path": (bytes(32),)}, Code.PROOF_INVALID),
        ({"path": good.path * 2}, Code.PROOF_INVALID),
        ({"index": 0}, Code.PROOF_INVALID),
        ({"index": 2}, Code.PROOF_INVALID),
        ({"checkpoint": other.checkpoint}, Code.PROOF_INVALID),
        ({"generation": 2}, Code.BINDING_MISMATCH),
        ({"agent": STRANGER.principal}, Code.WRONG_AGENT),
    ):
        raw = o.enrolled(request, **changes).envelope.raw
        with failing(code, VerifyError):
            open_enrolled(raw, hub=HUB.principal, request=request.object_id, agent=AGENT.principal)


def test_enrolment_signatures_must_be_agent_then_token():
    body = wire.encode(env.decode_payload(o.enrolment(), Enrolment))
    token_key = o.TOKEN.signing_key()
    tokens = {o.TOKEN.token_id: token_key.public}
    for keys in ((token_key, AGENT), (STRANGER, token_key), (AGENT, STRANGER)):
        with failing(Code.WRONG_SIGNER, VerifyError):
            open_enrolment(
                signed("enrolment", body, *keys), token_key=tokens.get, hub=HUB.principal
            )
    with failing(Code.TOKEN_UNKNOWN, RefusedError):
        open_enrolment(o.enrolment().raw, token_key={}.get, hub=HUB.principal)


def test_enrolment_over_four_kilobytes_is_not_even_parsed():
    with failing(Code.TOO_LARGE, TooLargeError):
        open_enrolment(bytes(4097), token_key={}.get, hub=HUB.principal)


# --- who owns ------------------------------------------------------------------------------------


def test_owner_key_substituted_by_hub():
    # The hub serves a principal of its own making under the owner's id …
    own = env.decode_payload(owner_principal(), Principal)
    swapped = structs.replace(own, sealing_key=o.HUB_SEALING.public)
    with failing(Code.UNKNOWN_KEY, VerifyError):
        open_principal(parse(signed("principal", wire.encode(swapped), HUB)), OWNER.principal)
    # … or one with the hub's signing key in it …
    swapped = structs.replace(swapped, signing_key=HUB.public)
    with failing(Code.WRONG_SIGNER, VerifyError):
        open_principal(parse(signed("principal", wire.encode(swapped), HUB)), OWNER.principal)
    # … or the owner's own object with another sealing key under the old signature …
    bent = owner_principal().raw.replace(o.OWNER_SEALING.public, o.HUB_SEALING.public)
    with failing(Code.SIGNATURE_INVALID, VerifyError):
        open_principal(parse(bent), OWNER.principal)
    # … or a good principal of somebody else.
    other = make_principal(STRANGER, o.STRANGER_SEALING.public, kind="owner", nonce=o.NONCE)
    with failing(Code.WRONG_SIGNER, VerifyError):
        open_principal(other, OWNER.principal)
    assert open_principal(owner_principal(), OWNER.principal).sealing_key == o.OWNER_SEALING.public


def test_principal_claims_another_id():
    own = env.decode_payload(owner_principal(), Principal)
    claim = structs.replace(own, principal=STRANGER.principal)
    with failing(Code.BINDING_MISMATCH, VerifyError):
        open_principal(parse(signed("principal", wire.encode(claim), OWNER)), OWNER.principal)


def test_principal_of_a_later_version_is_refused():
    own = env.decode_payload(owner_principal(), Principal)
    later = structs.replace(own, version=2, previous=owner_principal().object_id)
    with failing(Code.UNKNOWN_VERSION):
        open_principal(parse(signed("principal", wire.encode(later), OWNER)), OWNER.principal)


def test_private_keys_never_show():
    import pickle

    secrets = [
        (SigningKey(b"\x77" * 32), b"\x77" * 32),
        (SealingKey(b"\x66" * 32), b"\x66" * 32),
        (o.epoch_key(), o.epoch_key().key),
        (o.TOKEN, bytes(range(16, 32))),
    ]
    for secret, raw in secrets:
        for text in (repr(secret), str(secret), f"{secret}", repr([secret])):
            assert raw.hex() not in text
            assert repr(raw)[2:-1] not in text
            assert o.TOKEN.text not in text
    for secret in (secrets[0][0], secrets[1][0], secrets[3][0]):
        with pytest.raises(TypeError):
            pickle.dumps(secret)
