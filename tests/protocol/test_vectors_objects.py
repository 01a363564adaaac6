"""The vector files of signed objects: made again byte for byte, and read as they say."""

import base64
import hashlib
import json

import msgpack
import nacl.public
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from protocol.errors import ShanmenError
from tests.protocol import vectors
from tests.protocol.vectors import h, plain

ALL = [(name, case) for name in vectors.MAKERS for case in vectors.load(name)]


@pytest.mark.parametrize(("name", "case"), ALL, ids=[f"{n}: {c['name']}" for n, c in ALL])
def test_vector(name, case):
    if "make" in case["inputs"]:
        assert vectors.MAKERS[name](case["inputs"]).hex() == case["output"]
    try:
        vectors.READERS[name](h(case["output"]), case["inputs"])
        found = "ok"
    except ShanmenError as error:
        found = error.code.key
    assert found == case["expect"]


@pytest.mark.parametrize("name", vectors.MAKERS)
def test_files_hold_both_good_and_bad_and_nothing_of_a_machine(name):
    text = (vectors.FOLDER / f"{name}.json").read_text(encoding="utf-8")
    expects = {case["expect"] for case in json.loads(text)["cases"]}
    assert "ok" in expects
    assert len(expects) > 1 or name == "keys"
    assert "/work" not in text


# --- read a second time, by hand: nothing of ours below ------------------------------------------


def blake(*parts: bytes) -> bytes:
    return hashlib.blake2b(b"".join(parts), digest_size=32).digest()


def case(name: str, title: str) -> dict:
    return next(case for case in vectors.load(name) if case["name"] == title)


def test_ids_by_hand():
    key = case("ids", "sealing key")
    made = blake(b"shanmen/key/1\0\x01\x02", h(key["inputs"]["public"]))[:16]
    assert made.hex() == key["output"]
    resource = case("ids", "resource, Chinese name")
    made = blake(b"shanmen/resource/1\0", h(resource["inputs"]["agent"]), "东门/检票".encode())[:16]
    assert made.hex() == resource["output"]
    shown = case("ids", "shown")
    id16 = h(shown["inputs"]["id"])
    check = hashlib.sha256(b"shanmen/check/1\0" + id16).digest()
    bits = int.from_bytes(check[:2], "big") >> 6
    letters = "abcdefghijklmnopqrstuvwxyz234567"
    text = base64.b32encode(id16).decode().rstrip("=").lower()
    text += letters[bits >> 5] + letters[bits & 31]
    assert "-".join(text[i : i + 4] for i in range(0, 28, 4)).encode().hex() == shown["output"]


def test_keys_by_hand():
    segment = case("keys", "segment key, largest numbers")
    given = segment["inputs"]
    context = (
        b"\x01"
        + h(given["agent"])
        + h(given["resource"])
        + h(given["stream"])
        + b"\xff" * 8
        + b"\xff" * 4
        + b"\xff"
    )
    made = hashlib.blake2b(
        context, key=h(given["key"]), person=b"shanmen-segment", digest_size=32
    ).hexdigest()
    assert made == segment["output"]
    commitment = case("keys", "commitment")
    given = commitment["inputs"]
    context = b"\x01" + h(given["resource"]) + (20_574).to_bytes(4, "big") + b"\x01"
    made = hashlib.blake2b(
        context, key=h(given["key"]), person=b"shanmen-commit", digest_size=32
    ).hexdigest()
    assert made == commitment["output"]


def crc_by_bits(data: bytes) -> int:
    crc = 0xFFFF
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


def test_token_by_hand():
    assert crc_by_bits(b"123456789") == 0x29B1
    given = case("tokens", "text")["inputs"]
    body = h(given["token_id"]) + h(given["secret"]) + h(given["hub"])
    whole = body + crc_by_bits(body).to_bytes(2, "big")
    text = "SM1-" + base64.b32encode(whole).decode().rstrip("=")
    assert text.encode().hex() == case("tokens", "text")["output"]
    seed = blake(b"shanmen/token/1\0", h(given["token_id"]), h(given["secret"]))
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    assert public.hex() == case("tokens", "public key")["output"]


def test_envelope_by_hand():
    found = case("envelopes", "gap note")
    raw = h(found["output"])
    suite, kind, payload, [[key_id, signature]] = msgpack.unpackb(raw)
    assert msgpack.unpackb(payload) == plain(found["inputs"]["payload"])
    seed = h(found["inputs"]["signers"][0])
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key()
    signed = bytes((suite, len(kind))) + kind.encode() + payload
    public.verify(signature, b"shanmen/env/1\0" + signed)
    assert key_id == blake(b"shanmen/key/1\0\x01\x01", public.public_bytes_raw())[:16]
    assert found["inputs"]["object_id"] == blake(b"shanmen/object/1\0", signed).hex()
    assert found["inputs"]["record_hash"] == blake(b"shanmen/record/1\0", raw).hex()


def test_wrap_by_hand():
    found = case("wraps", "owner's wrap")
    given = found["inputs"]
    payload = msgpack.unpackb(msgpack.unpackb(h(found["output"]))[2])
    private = nacl.public.PrivateKey(h(given["sealing"]))
    plaintext = nacl.public.SealedBox(private).decrypt(payload["box"])
    key = plain(given["epoch_key"])
    assert len(plaintext) == 90
    assert plaintext == (
        b"SMWK\x01" + key["resource"] + key["epoch"].to_bytes(4, "big") + bytes((key["group"],))
        + payload["maker"] + payload["recipient_key"] + key["key"]
    )  # fmt: skip
    sealing = bytes(private.public_key)
    assert payload["recipient_key"] == blake(b"shanmen/key/1\0\x01\x02", sealing)[:16]
    assert payload["interval"] == [key["from_us"], key["to_us"]]


def test_enrolled_by_hand():
    found = case("enrolments", "enrolled")
    answer = msgpack.unpackb(msgpack.unpackb(h(found["output"]))[2])
    leaf = msgpack.unpackb(answer["leaf"])
    assert leaf[:3] == [1, "enrolment", h(found["inputs"]["request"])]
    assert leaf[3].hex() == found["inputs"]["request_record_hash"]
    root = hashlib.sha256(
        b"\x01" + answer["path"][0] + hashlib.sha256(b"\x00" + answer["leaf"]).digest()
    ).digest()
    origin, size, shown, _, line, _ = answer["checkpoint"].split("\n")
    assert (size, base64.b64decode(shown)) == ("2", root)
    name, _, key = answer["log_key"].split("+", 2)
    signature = base64.b64decode(line.split(" ")[2])[4:]
    Ed25519PublicKey.from_public_bytes(base64.b64decode(key)[1:]).verify(
        signature, f"{origin}\n{size}\n{shown}\n".encode()
    )
    assert name == origin
