"""Makes and reads the vector files of signed objects: `vector_cases` lists what is in them.

Each file is a list of cases `{name, inputs, output, expect}`: bytes are hex. `output` is what the
inputs make, byte for byte; `expect` is "ok" or the key of the error that a reader must raise for
`output`. A case without `inputs.make` cannot be made by an honest writer, only refused.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from protocol import ids, keys, token
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
from protocol.wire import convert
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
