"""Suite 1 against public vectors and against implementations that are not ours."""

import hashlib
import json

import nacl.bindings
import nacl.encoding
import nacl.hash
import nacl.public
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import Code, DecodeError, VerifyError
from protocol.suites import suite
from tests.shared import SHARED

NACL = suite(1)
needs_vectors = pytest.mark.skipif(SHARED is None, reason="the public vectors are not here")


def wycheproof(name: str):
    """(comment, group, test) of a public vector file."""
    if SHARED is None:
        return []
    document = json.loads((SHARED / "vectors" / f"wycheproof-{name}.json").read_text())
    return [(group, test) for group in document["testGroups"] for test in group["tests"]]


@needs_vectors
def test_wycheproof_ed25519():
    cases = wycheproof("ed25519")
    assert len(cases) >= 150
    for group, test in cases:
        key = bytes.fromhex(group["publicKey"]["pk"])
        message, signature = bytes.fromhex(test["msg"]), bytes.fromhex(test["sig"])
        try:
            NACL.verify(key, message, signature)
            result = "valid"
        except VerifyError:
            result = "invalid"
        assert result == test["result"], test["tcId"]


@needs_vectors
def test_wycheproof_xchacha20_poly1305():
    cases = wycheproof("xchacha20_poly1305")
    assert len(cases) >= 300
    for _, test in cases:
        key, nonce, aad, plain, sealed, tag = (
            bytes.fromhex(test[name]) for name in ("key", "iv", "aad", "msg", "ct", "tag")
        )
        if test["result"] == "valid":
            assert NACL.aead_seal(key, nonce, aad, plain) == sealed + tag
            assert NACL.aead_open(key, nonce, aad, sealed + tag) == plain
        else:
            with pytest.raises((VerifyError, DecodeError)):
                NACL.aead_open(key, nonce, aad, sealed + tag)


# RFC 8032 §7.1: seed, public key, message, signature.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e3970"
            "1cf9b46bd25bf5f0595bbe24655141438e7a100b"
        ),
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613"
            "d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        ),
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760"
            "984dc6594a7c15e9716ed28dc027beceea1ec40a"
        ),
    ),
    (
        "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        hashlib.sha512(b"abc").hexdigest(),
        (
            "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c6"
            "6431e0303dca179c138ac17ad9bef1177331a704"
        ),
    ),
]


@pytest.mark.parametrize(("seed", "public", "message", "signature"), RFC_8032)
def test_rfc_8032(seed, public, message, signature):
    made, secret = NACL.signing_pair(bytes.fromhex(seed))
    assert made.hex() == public
    assert NACL.sign(secret, bytes.fromhex(message)).hex() == signature
    NACL.verify(made, bytes.fromhex(message), bytes.fromhex(signature))


# blake2b keyed known answers (BLAKE2 reference, key 00..3f): of the empty input, 00, 0001.
BLAKE2B_KEYED = [
    (
        "10ebb67700b1868efb4417987acf4690ae9d972fb7a590c2f02871799aaa4786"
        "b5e996e8f0f4eb981fc214b005f42d2ff4233499391653df7aefcbc13fc51568"
    ),
    (
        "961f6dd1e4dd30f63901690c512e78e4b45e4742ed197c3c5e45c549fd25f2e4"
        "187b0bc9fe30492b16b0d0bc4ef9b0f34c7003fac09a5ef1532e69430234cebd"
    ),
    (
        "da2cfbe2d8409a0f38026113884f84b50156371ae304c4430173d08a99d9fb1b"
        "983164a3770706d537f49e0c916d9f32b95cc37a95b99d857436f0232c88a965"
    ),
]


def test_blake2b_keyed_known_answers():
    for size, digest in enumerate(BLAKE2B_KEYED):
        made = hashlib.blake2b(bytes(range(size)), key=bytes(range(64)))
        assert made.hexdigest() == digest


# draft-irtf-cfrg-xchacha-03 A.3.1
def test_xchacha_draft_a_3_1():
    key = bytes(range(0x80, 0xA0))
    nonce = bytes(range(0x40, 0x58))
    plain = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the "
        b"future, sunscreen would be it."
    )
    sealed = NACL.aead_seal(key, nonce, bytes.fromhex("50515253c0c1c2c3c4c5c6c7"), plain)
    assert sealed[:16].hex() == "bd6d179d3e83d43b9576579493c0e939"
    assert sealed[-16:].hex() == "c0875924c1c7987947deafd8780acf49"


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=16), st.binary(max_size=200),
       st.sampled_from([16, 32, 64]))  # fmt: skip
def test_kdf_is_libsodiums_personal_blake2b(key, label, context, size):
    other = nacl.bindings.crypto_generichash_blake2b_salt_personal(
        context, digest_size=size, key=key, person=label.ljust(16, b"\0")
    )
    assert NACL.kdf(key, label, context, size) == other


def test_kdf_bounds():
    for label, size, key in ((b"x" * 17, 32, bytes(32)), (b"", 65, bytes(32)), (b"", 0, bytes(32)),
                             (b"", 32, bytes(31))):  # fmt: skip
        with pytest.raises(DecodeError):
            NACL.kdf(key, label, b"", size)


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=300))
def test_signatures_are_those_of_openssl(seed, data):
    public, secret = NACL.signing_pair(seed)
    assert NACL.sign(secret, data) == Ed25519PrivateKey.from_private_bytes(seed).sign(data)
    NACL.verify(public, memoryview(data), NACL.sign(secret, bytearray(data)))


@given(
    st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32), st.binary(max_size=99)
)
def test_box_opens_with_libsodiums_sealed_box(private, seed, data):
    public = NACL.sealing_public(private)
    box = NACL.seal_box(data, public, seed)
    assert box == NACL.seal_box(data, public, seed)
    assert nacl.public.SealedBox(nacl.public.PrivateKey(private)).decrypt(box) == data
    theirs = nacl.public.SealedBox(nacl.public.PublicKey(public)).encrypt(data)
    assert NACL.open_box(theirs, private) == data
    with pytest.raises(VerifyError):
        NACL.open_box(box[:-1] + bytes((box[-1] ^ 1,)), private)


@given(st.binary(max_size=64), st.binary(max_size=64), st.binary(max_size=64))
def test_hash_of_parts_is_the_hash_of_the_whole(a, b, c):
    whole = hashlib.blake2b(a + b + c, digest_size=32).digest()
    assert NACL.hash(a, memoryview(b), bytearray(c)) == whole == NACL.hash(a + b + c)


def test_wrong_sizes_are_declared_errors():
    for call in (
        lambda: NACL.signing_pair(bytes(31)),
        lambda: NACL.sealing_public(bytes(33)),
        lambda: NACL.sign(bytes(32), b""),
        lambda: NACL.verify(bytes(5), b"", bytes(64)),
        lambda: NACL.verify(bytes(32), b"", bytes(63)),
        lambda: NACL.seal_box(b"", bytes(5), bytes(32)),
        lambda: NACL.seal_box(b"", bytes(range(32)), bytes(5)),
        lambda: NACL.open_box(bytes(47), bytes(32)),
        lambda: NACL.open_box(bytes(80), bytes(5)),
        lambda: NACL.aead_seal(bytes(5), bytes(24), b"", b""),
        lambda: NACL.aead_seal(bytes(32), bytes(5), b"", b""),
        lambda: NACL.aead_open(bytes(32), bytes(5), b"", bytes(16)),
        lambda: NACL.aead_open(bytes(32), bytes(24), b"", bytes(15)),
    ):
        with pytest.raises((DecodeError, VerifyError)):
            call()


@pytest.mark.parametrize("number", [0, 2, 255, -1])
def test_unknown_suite(number):
    with pytest.raises(DecodeError) as caught:
        suite(number)
    assert caught.value.code is Code.UNKNOWN_SUITE
