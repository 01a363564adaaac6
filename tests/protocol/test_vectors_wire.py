"""The vector files of segments, ledger and requests: made again byte for byte, and read as they say."""

import hashlib
import struct

import msgpack
import nacl.bindings as sodium
import pytest
import zstandard

from protocol.errors import ShanmenError
from tests.protocol import vectors_wire as v

ALL = [(name, case) for name in v.FILES for case in v.load(name)]


@pytest.mark.parametrize(("name", "case"), ALL, ids=[f"{n}: {c['name']}" for n, c in ALL])
def test_vector(name, case):
    _, _, make, read = v.FILES[name]
    if "make" in case["inputs"]:
        assert make(case["inputs"]) == case["output"]
    try:
        read(case["output"], case["inputs"])
        found = "ok"
    except ShanmenError as error:
        found = error.code.key
    assert found == case["expect"]


def test_a_sealed_segment_read_by_hand():
    """Nothing of ours below but the file: what another implementation would do."""
    case = v.load("segments")[0]
    inputs, raw = case["inputs"], case["output"]
    magic, version, suite, header_length, body_length, signer = struct.unpack(
        ">4sBBHI16s", raw[:28]
    )
    assert (magic, version, suite) == (b"SMSG", 1, 1)
    public, _ = sodium.crypto_sign_seed_keypair(inputs["signer"])

    def blake(*parts):
        return hashlib.blake2b(b"".join(parts), digest_size=32).digest()

    assert signer == blake(b"shanmen/key/1\0", b"\x01\x01", public)[:16]
    signed, rest = raw[: 28 + header_length], raw[28 + header_length :]
    signature, body = rest[:64], rest[64:]
    assert len(body) == body_length
    sodium.crypto_sign_open(signature + b"shanmen/segment/1\0" + signed, public)
    assert blake(b"shanmen/header/1\0", signed) == inputs["id"]
    header = msgpack.unpackb(signed[28:])
    agent, resource, stream, seq, _, entry, epoch, grade = header[:8]
    start = 0
    for group, length, nonce, commitment, stored in header[13]:
        part = body[start : start + length]
        start += length
        assert stored == blake(b"shanmen/stored/1\0", part)
        key = inputs["epoch_keys"][group]
        numbers = struct.pack(">QI", seq, epoch)

        def kdf(label, context, key=key):
            return hashlib.blake2b(context, key=key, person=label, digest_size=32).digest()

        assert commitment == kdf(
            b"shanmen-commit", b"\x01" + resource + struct.pack(">IB", epoch, group)
        )
        segment_key = kdf(
            b"shanmen-segment", b"\x01" + agent + resource + stream + numbers + bytes([group])
        )
        aad = (
            b"shanmen/part/1\0\x01"
            + agent
            + resource
            + stream
            + numbers
            + bytes([group, grade])
            + entry
        )
        plain = sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(part, aad, nonce, segment_key)
        raw_length, frame_length = struct.unpack(">II", plain[:8])
        assert not any(plain[8 + frame_length :])
        columns = zstandard.decompress(plain[8 : 8 + frame_length])
        assert len(columns) == raw_length
        (size,) = struct.unpack(">I", columns[:4])
        directory = msgpack.unpackb(columns[4 : 4 + size])
        assert ("@event_time" in directory) == (group == 0)
        assert 4 + size + sum(c["nulls"] + c["data"] for c in directory.values()) == raw_length
    assert start == body_length
