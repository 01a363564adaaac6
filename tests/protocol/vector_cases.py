"""The cases of the vector files of signed objects: `python -m tests.protocol.vector_cases` writes them."""

import json
from typing import Any

import msgpack
from msgspec import structs

from protocol import ids, tags
from protocol.envelope import SigningKey, parse
from protocol.grades import Grade
from protocol.registration import classify
from protocol.wire import encode
from tests.protocol import objects as o
from tests.protocol.vectors import (
    ABOUT,
    FOLDER,
    MAKERS,
    h,
    jsonable,
    make_envelope,
    make_principal_object,
    make_token,
    make_wrap_object,
)

AGENT_SEED = bytes(range(32)).hex()
OWNER_SEED = bytes(range(64, 96)).hex()
HUB_SEED = bytes(range(128, 160)).hex()
STRANGER_SEED = bytes(range(224, 256)).hex()


def forged(kind: str, body: bytes, *seeds: str) -> bytes:
    """An envelope with good signatures around bytes that no honest writer makes."""
    signed = tags.ENVELOPE + bytes((1, len(kind))) + kind.encode() + body
    signers = [SigningKey(h(seed)) for seed in seeds]
    return msgpack.packb([1, kind, body, [[key.key_id, key.sign(signed)] for key in signers]])


def good(name: str, what: str, inputs: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "inputs": inputs, "output": MAKERS[what](inputs).hex(), "expect": "ok"}


def bad(name: str, inputs: dict[str, Any], output: bytes, expect: str) -> dict[str, Any]:
    return {"name": name, "inputs": inputs, "output": output.hex(), "expect": expect}


def id_cases() -> list[dict[str, Any]]:
    public = o.AGENT.public.hex()
    shown = ids.show(o.AGENT.principal)
    mistyped = ("b" if shown[0] == "a" else "a") + shown[1:]
    return [
        good("signing key", "ids", {"make": "key", "public": public, "use": 1, "suite": 1}),
        good("sealing key", "ids", {"make": "key", "public": public, "use": 2, "suite": 1}),
        good("resource", "ids", {"make": "resource", "agent": o.AGENT.principal.hex(),
                                 "local_name": "east-gate/checks"}),
        good("resource, Chinese name", "ids", {"make": "resource", "agent": o.AGENT.principal.hex(),
                                               "local_name": "东门/检票"}),
        good("resource, name in NFC", "ids", {"make": "resource", "agent": o.AGENT.principal.hex(),
                                              "local_name": "caf\u00e9"}),
        good("resource, same name in NFD", "ids", {"make": "resource", "agent": o.AGENT.principal.hex(),
                                                   "local_name": "cafe\u0301"}),
        good("shown", "ids", {"make": "shown", "read": "shown", "id": o.AGENT.principal.hex()}),
        good("shown zeros", "ids", {"make": "shown", "read": "shown", "id": "00" * 16}),
        bad("mistyped", {"read": "shown"}, mistyped.encode(), "checksum"),
        bad("too short", {"read": "shown"}, shown[:-1].encode(), "malformed"),
        bad("foreign letter", {"read": "shown"}, ("1" + shown[1:]).encode(), "malformed"),
    ]  # fmt: skip


def key_cases() -> list[dict[str, Any]]:
    base = {"key": bytes(range(200, 232)).hex(), "suite": 1, "resource": o.RESOURCE.hex(),
            "epoch": 20_574, "group": 1}  # fmt: skip
    place = {"agent": o.AGENT.principal.hex(), "stream": o.STREAM.hex()}
    return [
        good("commitment", "keys", {"make": "commitment", **base}),
        good("commitment, other group", "keys", {"make": "commitment", **base, "group": 0}),
        good("segment key", "keys", {"make": "segment", **base, **place, "seq": 0}),
        good("segment key, next", "keys", {"make": "segment", **base, **place, "seq": 1}),
        good("segment key, largest numbers", "keys", {"make": "segment", **base, **place,
             "seq": 2**64 - 1, "epoch": 2**32 - 1, "group": 255}),
    ]  # fmt: skip


def token_cases() -> list[dict[str, Any]]:
    base = {"token_id": "0123456789abcdef", "secret": bytes(range(16, 32)).hex(),
            "hub": o.HUB.principal.hex()}  # fmt: skip
    text = make_token({"make": "text", **base}).decode()
    swapped = text[:9] + text[10] + text[9] + text[11:]
    return [
        good("text", "tokens", {"make": "text", "read": "text", **base}),
        good("public key", "tokens", {"make": "public", **base}),
        bad("two letters swapped", {"read": "text"}, swapped.encode(), "checksum"),
        bad("one letter lost", {"read": "text"}, text[:-1].encode(), "malformed"),
        bad("other version", {"read": "text"}, ("SM2" + text[3:]).encode(), "malformed"),
        bad("foreign letters", {"read": "text"}, (text[:-1] + "1").encode(), "malformed"),
    ]


def envelope_cases() -> list[dict[str, Any]]:
    payload = jsonable(msgpack.unpackb(encode(o.gap())))
    body = encode(o.gap())
    one = {"signers": [AGENT_SEED]}
    made = make_envelope({"kind": "gap", "payload": payload, **one})
    opened = parse(made)
    outer = msgpack.unpackb(made)
    flipped = made[:-1] + bytes((made[-1] ^ 1,))
    return [
        good("gap note", "envelopes", {"make": "envelope", "kind": "gap", "payload": payload, **one,
             "object_id": opened.object_id.hex(), "record_hash": opened.record_hash.hex()}),
        good("two signers", "envelopes", {"make": "envelope", "kind": "enrolment",
             "payload": {"nonce": {"hex": "00" * 16}}, "signers": [AGENT_SEED, OWNER_SEED]}),
        bad("signature flipped", one, flipped, "signature-invalid"),
        bad("key unknown to the reader", {"signers": [STRANGER_SEED]}, made, "unknown-key"),
        bad("kind swapped", one, msgpack.packb([outer[0], "wrap", *outer[2:]]), "signature-invalid"),
        bad("kind segment", one, forged("segment", body, AGENT_SEED), "unknown-kind"),
        bad("suite 2", one, msgpack.packb([2, *outer[1:]]), "unknown-suite"),
        bad("no signature", one, forged("gap", body), "signature-count"),
        bad("two signatures on a note", one, forged("gap", body, AGENT_SEED, OWNER_SEED),
            "signature-count"),
        bad("same signer twice", one, forged("enrolment", body, AGENT_SEED, AGENT_SEED),
            "signature-count"),
        bad("trailing byte", one, made + b"\0", "trailing-bytes"),
        bad("a map instead of the array", one, msgpack.packb({"suite": 1}), "malformed"),
        bad("five elements", one, msgpack.packb([*outer, 1]), "malformed"),
        bad("signature of 63 bytes", one, msgpack.packb([*outer[:3], [[outer[3][0][0], bytes(63)]]]),
            "malformed"),
        bad("key of small order",
            {"keys": ["01" + "00" * 31]},
            msgpack.packb([*outer[:3], [[ids.key_id(h("01" + "00" * 31), use=ids.Use.SIGNING),
                                         h("01" + "00" * 31) + bytes(32)]]]),
            "signature-invalid"),
    ]  # fmt: skip


def principal_cases() -> list[dict[str, Any]]:
    base = {"signers": [OWNER_SEED], "pin": o.OWNER.principal.hex()}
    inputs = {"make": "principal", **base, "kind": "owner", "nonce": o.NONCE.hex(),
              "sealing_key": o.OWNER_SEALING.public.hex()}  # fmt: skip
    raw = make_principal_object(inputs)
    payload = msgpack.unpackb(msgpack.unpackb(raw)[2])
    other = {**payload, "sealing_key": o.HUB_SEALING.public}
    return [
        good("owner", "principals", inputs),
        good("hub", "principals", {**inputs, "kind": "hub", "signers": [HUB_SEED],
             "pin": o.HUB.principal.hex(), "sealing_key": o.HUB_SEALING.public.hex()}),
        bad("under another pin", {"pin": o.STRANGER.principal.hex()}, raw, "wrong-signer"),
        bad("sealing key swapped, signed by the hub", base,
            forged("principal", encode(other), HUB_SEED), "unknown-key"),
        bad("sealing key swapped under the old signature", base,
            raw.replace(o.OWNER_SEALING.public, o.HUB_SEALING.public), "signature-invalid"),
        bad("unknown key in the payload", base,
            forged("principal", encode({**payload, "admin": True}), OWNER_SEED), "unknown-field"),
        bad("version 2", base, forged("principal", encode({**payload, "version": 2}), OWNER_SEED),
            "unknown-version"),
    ]  # fmt: skip


def wrap_cases() -> list[dict[str, Any]]:
    base = {"signers": [AGENT_SEED], "sealing": bytes(range(96, 128)).hex()}
    key = jsonable(structs.asdict(o.epoch_key()))
    inputs = {"make": "wrap", **base, "epoch_key": key, "recipient": o.OWNER.principal.hex(),
              "nonce": o.NONCE.hex(), "box_seed": "11" * 32,
              "seen": ["shanmen-hub/example/1", 7, "22" * 32]}  # fmt: skip
    raw = make_wrap_object(inputs)
    payload = msgpack.unpackb(msgpack.unpackb(raw)[2])

    def bent(**changes: object) -> bytes:
        return forged("wrap", encode({**payload, **changes}), AGENT_SEED)

    return [
        good("owner's wrap", "wraps", inputs),
        good("before the first checkpoint", "wraps", {**inputs, "seen": None}),
        bad("opened by another key", {**base, "sealing": "5a" * 32}, raw, "binding-mismatch"),
        bad("epoch swapped", base, bent(epoch=1), "binding-mismatch"),
        bad("group swapped", base, bent(group=0), "binding-mismatch"),
        bad("resource swapped", base, bent(resource=bytes(16)), "binding-mismatch"),
        bad("commitment of another key", base, bent(commitment=bytes(32)), "commitment-mismatch"),
        bad("box flipped", base, bent(box=payload["box"][:-1] + bytes((payload["box"][-1] ^ 1,))),
            "authentication-failed"),
        bad("signed again by another maker", {**base, "signers": [STRANGER_SEED]},
            forged("wrap", encode({**payload, "maker": o.STRANGER.principal}), STRANGER_SEED),
            "binding-mismatch"),
        bad("signed again under the maker's name", {**base, "signers": [STRANGER_SEED]},
            forged("wrap", encode(payload), STRANGER_SEED), "wrong-signer"),
    ]  # fmt: skip


def registration_cases() -> list[dict[str, Any]]:
    base = {"signers": [AGENT_SEED]}
    payload = msgpack.unpackb(encode(o.entry()))
    opened = o.entry(
        grade=Grade.FULLY_OPEN, classification=classify(Grade.FULLY_OPEN, "structured")
    )

    def bent(**changes: object) -> bytes:
        return forged("registration", encode({**payload, **changes}), AGENT_SEED)

    return [
        good("shareable resource", "registrations",
             {"make": "registration", **base, "payload": jsonable(payload)}),
        good("fully open: a description", "registrations",
             {"make": "registration", **base, "payload": jsonable(msgpack.unpackb(encode(opened)))}),
        bad("fully open as a registration", base, forged("registration", encode(opened), AGENT_SEED),
            "binding-mismatch"),
        bad("key-protected", base, bent(grade=1), "grade-forbidden"),
        bad("secret", base, bent(secrecy=1), "secrecy-forbidden"),
        bad("resource id of another name", base, bent(local_name="west-gate"), "binding-mismatch"),
        bad("schema of another hash", base, bent(schema_hash=bytes(32)), "hash-mismatch"),
        bad("rights typed by hand", base,
            bent(classification={**payload["classification"], "openable": "yes"}),
            "binding-mismatch"),
        bad("neither producer nor provider", base, bent(producer=None), "binding-mismatch"),
        bad("grade 7", base, bent(grade=7), "out-of-bounds"),
        bad("unknown key", base, bent(note="x"), "unknown-field"),
    ]  # fmt: skip


def enrolment_cases() -> list[dict[str, Any]]:
    request = o.enrolment()
    asked = {"make": "enrolment", "read": "enrolment", "signers": [AGENT_SEED],
             "token": o.TOKEN.text, "hub": o.HUB.principal.hex(),
             "payload": jsonable(msgpack.unpackb(request.payload))}  # fmt: skip
    answer = o.enrolled(request)
    base = {"read": "enrolled", "hub": o.HUB.principal.hex(), "agent": o.AGENT.principal.hex(),
            "request": request.object_id.hex(),
            "request_record_hash": request.record_hash.hex()}  # fmt: skip
    answered = {"make": "enrolled", **base, "signers": [HUB_SEED],
                "payload": jsonable(msgpack.unpackb(encode(answer.payload)))}  # fmt: skip
    raw = answer.envelope.raw
    reading = {key: value for key, value in asked.items() if key not in ("make", "payload")}
    tokenless = forged("enrolment", request.payload, AGENT_SEED, STRANGER_SEED)
    return [
        good("enrolment", "enrolments", asked),
        bad("for another hub", {**reading, "hub": o.STRANGER.principal.hex()}, request.raw,
            "wrong-hub"),
        bad("second signature not the token's", reading, tokenless, "wrong-signer"),
        good("enrolled", "enrolments", answered),
        bad("answer of another hub", base, o.enrolled(request, hub=o.STRANGER).envelope.raw,
            "wrong-hub"),
        bad("answer to another request", {**base, "request": "00" * 32}, raw,
            "answer-for-other-request"),
        bad("answer for another agent", {**base, "agent": o.STRANGER.principal.hex()}, raw,
            "wrong-agent"),
        bad("leaf not in the tree", base, o.enrolled(request, path=(bytes(32),)).envelope.raw,
            "proof-invalid"),
        bad("path too long", base,
            o.enrolled(request, path=answer.payload.path * 2).envelope.raw, "proof-invalid"),
    ]  # fmt: skip


CASES = {
    "ids": id_cases,
    "keys": key_cases,
    "tokens": token_cases,
    "envelopes": envelope_cases,
    "principals": principal_cases,
    "wraps": wrap_cases,
    "registrations": registration_cases,
    "enrolments": enrolment_cases,
}


def main() -> None:
    """Write every file anew: only when a format changed on purpose."""
    for name, cases in CASES.items():
        document = {"about": ABOUT[name], "cases": cases()}
        text = json.dumps(document, ensure_ascii=False, indent=1) + "\n"
        (FOLDER / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
