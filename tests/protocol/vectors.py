"""Makes and reads the vector files of signed objects: `python -m tests.protocol.vectors` writes them.

Each file is a list of cases `{name, inputs, output, expect}`: bytes are hex. `output` is what the
inputs make, byte for byte; `expect` is "ok" or the key of the error that a reader must raise for
`output`. A case without `inputs.make` cannot be made by an honest writer, only refused.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgpack
from msgspec import structs

from protocol import ids, keys, tags, token
from protocol.enrolment import (
    Enrolled,
    Enrolment,
    make_enrolled,
    make_enrolment,
    open_enrolled,
    open_enrolment,
)
from protocol.envelope import SealingKey, SigningKey, make, parse, verify
from protocol.ids import PrincipalId
from protocol.principal import make_principal, open_principal
from protocol.registration import Registration, make_registration, open_registration
from protocol.times import ClockReading
from protocol.wire import convert, encode
from protocol.wraps import Seen, make_wrap, open_wrap
from tests.protocol import objects as o

FOLDER = Path(__file__).resolve().parent.parent / "vectors"

Inputs = Mapping[str, Any]


def jsonable(value: object) -> Any:
    """Plain values with bytes as {"hex": …}: JSON has no bytes."""
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    if isinstance(value, dict):
        return {key: jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    return value


def plain(value: Any) -> Any:
    """The opposite of `jsonable`."""
    if isinstance(value, dict):
        return (
            bytes.fromhex(value["hex"])
            if set(value) == {"hex"}
            else {key: plain(item) for key, item in value.items()}
        )
    return [plain(item) for item in value] if isinstance(value, list) else value


def h(text: str) -> bytes:
    return bytes.fromhex(text)


def book(inputs: Inputs) -> Callable[[bytes], bytes | None]:
    """The key lookup of a case: it knows the signers whose seeds or public keys are given."""
    publics = [SigningKey(h(seed)).public for seed in inputs.get("signers", [])]
    publics += [h(public) for public in inputs.get("keys", [])]
    return {ids.key_id(public, use=ids.Use.SIGNING): public for public in publics}.get


# --- ids, derivations, tokens --------------------------------------------------------------------


def make_id(inputs: Inputs) -> bytes:
    match inputs["make"]:
        case "key":
            return ids.key_id(
                h(inputs["public"]), use=ids.Use(inputs["use"]), suite=inputs["suite"]
            )
        case "resource":
            return ids.resource_id(PrincipalId(h(inputs["agent"])), inputs["local_name"])
        case "shown":
            return ids.show(h(inputs["id"])).encode()
        case other:
            raise AssertionError(other)


def read_id(output: bytes, inputs: Inputs) -> object:
    return ids.parse(output.decode()) if inputs.get("read") == "shown" else output


def make_key(inputs: Inputs) -> bytes:
    key = o.EpochKey(
        resource=h(inputs["resource"]), epoch=inputs["epoch"], group=inputs["group"],
        key=h(inputs["key"]), from_us=0, to_us=1,
    )  # fmt: skip
    if inputs["make"] == "commitment":
        return key.commitment(inputs["suite"])
    return keys.segment_key(
        key.key, inputs["suite"], PrincipalId(h(inputs["agent"])), key.resource,
        h(inputs["stream"]), inputs["seq"], key.epoch, key.group,
    )  # fmt: skip


def make_token(inputs: Inputs) -> bytes:
    made = token.make_token(
        h(inputs["token_id"]), h(inputs["secret"]), PrincipalId(h(inputs["hub"]))
    )
    return made.text.encode() if inputs["make"] == "text" else made.signing_key().public


def read_token(output: bytes, inputs: Inputs) -> object:
    return token.parse_token(output.decode()) if inputs.get("read") == "text" else output


# --- envelopes -----------------------------------------------------------------------------------


def make_envelope(inputs: Inputs) -> bytes:
    signers = [SigningKey(h(seed)) for seed in inputs["signers"]]
    return make(inputs["kind"], plain(inputs["payload"]), *signers).raw


def read_envelope(output: bytes, inputs: Inputs) -> object:
    opened = parse(output)
    verify(opened, book(inputs))
    if "object_id" in inputs:
        assert opened.object_id.hex() == inputs["object_id"]
        assert opened.record_hash.hex() == inputs["record_hash"]
    return opened


def make_principal_object(inputs: Inputs) -> bytes:
    return make_principal(
        SigningKey(h(inputs["signers"][0])), h(inputs["sealing_key"]), kind=inputs["kind"],
        nonce=h(inputs["nonce"]),
    ).raw  # fmt: skip


def read_principal(output: bytes, inputs: Inputs) -> object:
    return open_principal(parse(output), PrincipalId(h(inputs["pin"])))


def make_wrap_object(inputs: Inputs) -> bytes:
    key = o.EpochKey(**{name: plain(value) for name, value in inputs["epoch_key"].items()})
    seen = inputs["seen"]
    return make_wrap(
        key, recipient=PrincipalId(h(inputs["recipient"])),
        recipient_sealing=SealingKey(h(inputs["sealing"])).public,
        maker=SigningKey(h(inputs["signers"][0])),
        seen=None if seen is None else Seen(seen[0], seen[1], h(seen[2])),
        nonce=h(inputs["nonce"]), box_seed=h(inputs["box_seed"]),
    ).raw  # fmt: skip


def read_wrap(output: bytes, inputs: Inputs) -> object:
    opened = open_wrap(parse(output), SealingKey(h(inputs["sealing"])), book(inputs))
    if "epoch_key" in inputs:
        assert opened == o.EpochKey(**{k: plain(v) for k, v in inputs["epoch_key"].items()})
    return opened


def make_entry(inputs: Inputs) -> bytes:
    entry = convert(plain(inputs["payload"]), Registration)
    return make_registration(entry, SigningKey(h(inputs["signers"][0]))).raw


def read_entry(output: bytes, inputs: Inputs) -> object:
    return open_registration(parse(output), SigningKey(h(inputs["signers"][0])).public)


def make_enrolment_object(inputs: Inputs) -> bytes:
    if inputs["make"] == "enrolled":
        payload = convert(plain(inputs["payload"]), Enrolled)
        return make_enrolled(payload, SigningKey(h(inputs["signers"][0]))).raw
    wanted = plain(inputs["payload"])
    payload = convert(wanted, Enrolment)
    held = token.parse_token(inputs["token"])
    made = make_enrolment(
        held, signing=SigningKey(h(inputs["signers"][0])), sealing_public=payload.sealing_key,
        owner=payload.owner, name=payload.name, software=payload.software,
        clock=ClockReading(
            wall_us=payload.clock.wall_us, offset_us=payload.clock.offset_us,
            error_us=payload.clock.error_us, source=payload.clock.source,
        ),
        nonce=payload.nonce, suites=payload.suites,
    )  # fmt: skip
    return made.raw


def read_enrolment(output: bytes, inputs: Inputs) -> object:
    hub = PrincipalId(h(inputs["hub"]))
    if inputs["read"] == "enrolled":
        return open_enrolled(
            output, hub=hub, request=h(inputs["request"]), agent=h(inputs["agent"]),
            record_hash=h(inputs["request_record_hash"]),
        )  # fmt: skip
    held = token.parse_token(inputs["token"])
    tokens = {held.token_id: held.signing_key().public}
    return open_enrolment(output, token_key=tokens.get, hub=hub)


MAKERS: dict[str, Callable[[Inputs], bytes]] = {
    "ids": make_id,
    "keys": make_key,
    "tokens": make_token,
    "envelopes": make_envelope,
    "principals": make_principal_object,
    "wraps": make_wrap_object,
    "registrations": make_entry,
    "enrolments": make_enrolment_object,
}
READERS: dict[str, Callable[[bytes, Inputs], object]] = {
    "ids": read_id,
    "keys": lambda output, _: output,
    "tokens": read_token,
    "envelopes": read_envelope,
    "principals": read_principal,
    "wraps": read_wrap,
    "registrations": read_entry,
    "enrolments": read_enrolment,
}

ABOUT = {
    "ids": "Key ids, resource ids, and ids as people read them (output: UTF-8 text). An id is the "
    "first 16 bytes of BLAKE2b-256(tag ‖ data).",
    "keys": "Segment keys and commitments: BLAKE2b(key = K, person = label, data = context).",
    "tokens": "Enrolment tokens: their text (output: ASCII) and the public key that they stand for.",
    "envelopes": "Envelopes [suite, kind, payload, [[key id, signature], …]], strictly read. "
    "`signers` are Ed25519 seeds; `payload` is plain values, bytes as {hex}.",
    "principals": "Principals under a pin.",
    "wraps": "Epoch keys sealed to a recipient; `box_seed` is the seed of the ephemeral X25519 key.",
    "registrations": "Registration entries and descriptions.",
    "enrolments": "What an agent asks with its token, and what the hub answers.",
}


def load(name: str) -> list[dict[str, Any]]:
    """The cases of one file."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))["cases"]


# --- the cases -----------------------------------------------------------------------------------

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
    from protocol.grades import Grade
    from protocol.registration import classify

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
