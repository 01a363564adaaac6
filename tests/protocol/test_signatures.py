"""The request profile against the RFC's own numbers, an independent library, and an abuser."""

import base64
import warnings

import http_message_signatures as oracle
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from protocol.envelope import SigningKey, only_key
from protocol.errors import Code, DecodeError, ShanmenError, VerifyError
from protocol.ids import show
from protocol.messages import MEDIA_TYPE
from protocol.signatures import (
    Verified,
    check_body,
    content_digest,
    sign_request,
    verify_request,
)
from protocol.suites import suite
from tests.protocol.makers import AGENT, HUB, STRANGER

NOW = 1_790_000_000
NONCE = bytes(range(16))
BODY = b"\x81\xa1a\x01"


def signed(body: bytes | None = BODY, **changes: object) -> dict[str, str]:
    arguments = (
        dict(
            method="POST",
            path="/v1/sync",
            query="",
            hub=HUB.principal,
            key=AGENT,
            created_s=NOW,
            nonce=NONCE,
        )
        | changes
    )
    return sign_request(
        arguments.pop("method"),
        arguments.pop("path"),
        arguments.pop("query"),
        body=body,
        content_type=None if body is None else MEDIA_TYPE,
        **arguments,
    )  # type: ignore[arg-type]


def verified(
    headers,
    method="POST",
    path="/v1/sync",
    query="",
    has_body=True,
    now_s=NOW,
    hub=HUB.principal,
    keys=only_key(AGENT.public),
) -> Verified:
    return verify_request(
        method, path, query, headers, hub=hub, keys=keys, now_s=now_s, has_body=has_body
    )


def test_rfc_9421_b_2_6():
    private = base64.b64decode("n4Ni+HpISpVObnQMW0wOhCKROaIKqKtW/2ZYb2p9KcU=")
    key = SigningKey(private)
    assert key.public == base64.b64decode("JrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=")
    base = (
        '"date": Tue, 20 Apr 2021 02:07:55 GMT\n"@method": POST\n"@path": /foo\n"@authority": example.com\n'
        '"content-type": application/json\n"content-length": 18\n'
        '"@signature-params": ("date" "@method" "@path" "@authority" "content-type" "content-length");created=1618884473;keyid="test-key-ed25519"'
    )
    signature = (
        "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw=="
    )
    assert base64.b64encode(key.sign(base.encode())).decode() == signature
    suite(1).verify(key.public, base.encode(), base64.b64decode(signature))


def test_rfc_9530_digest():
    assert (
        content_digest(b'{"hello": "world"}\n')
        == "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"
    )
    assert (
        content_digest(b'{"hello": "world"}')
        == "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:"
    )


class Message:
    def __init__(self, method: str, url: str, headers: dict[str, str]) -> None:
        self.method, self.url, self.headers = method, url, dict(headers)


class Keys(oracle.HTTPSignatureKeyResolver):
    def resolve_public_key(self, key_id: str) -> Ed25519PublicKey:
        assert key_id == show(AGENT.key_id)
        return Ed25519PublicKey.from_public_bytes(AGENT.public)

    def resolve_private_key(self, key_id: str) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)


class Verifier(oracle.HTTPMessageVerifier):
    def validate_created_and_expires(self, sig_input, max_age=None):
        """The oracle reads the wall clock; times are tested on our side."""


@pytest.mark.parametrize(
    ("method", "path", "query", "body"),
    [
        ("POST", "/v1/sync", "", BODY),
        ("GET", "/v1/inbox", "after=3%2C4&x", None),
        ("POST", "/v1/objects", "", b""),
    ],
)
def test_an_independent_library_agrees(method, path, query, body):
    headers = signed(body, method=method, path=path, query=query)
    message = Message(method, f"https://other.example{path}{'?' + query if query else ''}", headers)
    verifier = Verifier(signature_algorithm=oracle.algorithms.ED25519, key_resolver=Keys())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = verifier.verify(message, expect_tag="shanmen-request-1", body=body, max_age=None)
    assert results[0].parameters["nonce"] == base64.b64encode(NONCE).decode()
    ours = verified(headers, method, path, query, body is not None)
    assert (ours.key_id, ours.nonce, ours.created_s) == (AGENT.key_id, NONCE, NOW)


def test_the_signature_input_is_exactly_this():
    assert signed()["Signature-Input"] == (
        'sm=("@method" "@path" "@query" "content-digest" "content-type" "shanmen-hub");'
        f'created={NOW};expires={NOW + 60};nonce="AAECAwQFBgcICQoLDA0ODw==";keyid="{show(AGENT.key_id)}";tag="shanmen-request-1"'
    )
    assert signed(None)["Signature-Input"].startswith(
        'sm=("@method" "@path" "@query" "shanmen-hub");created='
    )


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_any_flipped_character_is_refused(at, flip):
    headers = signed()
    name = sorted(headers)[at % len(headers)]
    value = headers[name]
    at %= len(value)
    headers[name] = value[:at] + chr(ord(value[at]) ^ flip) + value[at + 1 :]
    with pytest.raises(ShanmenError):
        check_body(verified(headers), BODY)


@pytest.mark.parametrize(
    "change", [{"method": "PUT"}, {"path": "/v1/objects"}, {"query": "x=1"}, {"has_body": False}]
)
def test_signature_of_another_request(change):
    with pytest.raises(VerifyError):
        verified(signed(), **change)


def test_signature_without_digest():
    headers = signed()
    del headers["Content-Digest"]
    with pytest.raises(VerifyError):
        verified(headers)
    with pytest.raises(VerifyError):  # signed as a GET, sent with a body
        verified(signed(None))
    without = verified(signed(None, method="GET"), "GET", has_body=False)
    check_body(without, b"")
    with pytest.raises(VerifyError):
        check_body(without, BODY)


def test_request_body_swapped():
    with pytest.raises(VerifyError) as caught:
        check_body(verified(signed()), BODY + b"\x00")
    assert caught.value.code is Code.DIGEST_MISMATCH


@pytest.mark.parametrize("drift", [-61, 61, 10**6, -NOW + 1])
def test_signature_from_future(drift):
    with pytest.raises(VerifyError) as caught:
        verified(signed(created_s=NOW + drift))
    assert caught.value.code is Code.CLOCK_SKEW


def test_times_within_the_window():
    for drift in (-59, 0, 60):
        assert verified(signed(created_s=NOW + drift)).created_s == NOW + drift
    with pytest.raises(VerifyError, match="expired"):
        verified(signed(valid_s=61))
    with pytest.raises(VerifyError, match="expired"):
        verified(signed(valid_s=0))
    with pytest.raises(VerifyError, match="expired"):
        verified(signed(created_s=NOW - 30, valid_s=10))


def test_request_for_other_hub():
    with pytest.raises(VerifyError) as caught:
        verified(signed(hub=STRANGER.principal))
    assert caught.value.code is Code.WRONG_HUB


def test_content_encoding_refused():
    with pytest.raises(DecodeError) as caught:
        verified(signed() | {"content-encoding": "gzip"})
    assert caught.value.code is Code.CONTENT_CODING


def test_unknown_key_and_wrong_key():
    with pytest.raises(VerifyError, match="unknown-key"):
        verified(signed(key=STRANGER))
    with pytest.raises(VerifyError, match="unknown-key"):
        verified(signed(), keys=lambda _: STRANGER.public)


def test_second_signatures_and_repeated_fields_are_refused():
    headers = signed()
    both = {**headers, "Signature-Input": headers["Signature-Input"] + ', b=("@method")'}
    with pytest.raises(VerifyError):
        verified(both)
    for name in ("Signature", "content-digest", "Shanmen-Hub", "Content-Type"):
        repeated = [*headers.items(), (name, "x")]
        with pytest.raises(VerifyError) as caught:
            verified(repeated)
        assert caught.value.code is Code.SIGNATURE_COUNT


def test_alg_and_other_orders_are_refused():
    headers = signed()
    for old, new in (
        (";tag=", ';alg="ed25519";tag='),
        ('"@method" "@path"', '"@path" "@method"'),
        ("sm=", "sig1="),
        (f"created={NOW}", f"created=0{NOW}"),
    ):
        with pytest.raises(ShanmenError):
            verified({**headers, "Signature-Input": headers["Signature-Input"].replace(old, new)})


def test_line_breaks_cannot_move_components():
    with pytest.raises(DecodeError):
        signed(path='/a\n"@query": ?x')
    with pytest.raises(DecodeError):
        signed(query="a=早")


def test_nonce_is_16_bytes():
    with pytest.raises(DecodeError):
        signed(nonce=b"short")
