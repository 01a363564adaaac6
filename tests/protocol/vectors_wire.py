"""Makes and reads the vector files of segments and ledger: `python -m tests.protocol.vectors_wire`.

The form is that of `vectors`: `{name, inputs, output, expect}`, bytes as hex. `output` is what the
inputs make; `expect` is "ok" or the key of the error that a reader must raise. Compressed bytes
depend on the release of zstd: another writer may differ there and is right if its parts decode to
the same columns; `inputs.raw` of the column vectors is the part before compression.
"""

import json
from collections.abc import Callable
from typing import Any

from protocol import wire
from protocol.checkpoint import log_origin, make_note, sign_note, verify_note, vkey_text
from protocol.columns import decode_part, encode_part, fixed_columns
from protocol.envelope import SigningKey, only_key
from protocol.errors import Code, VerifyError
from protocol.frame import unpack_frame
from protocol.grades import Grade
from protocol.header import Continues
from protocol.ids import Use, key_id
from protocol.keys import EpochKey
from protocol.leaf import batch_leaf, event_leaf, generation_leaf, parse_leaf
from protocol.messages import MEDIA_TYPE
from protocol.receipt import Receipt, verify_receipt
from protocol.records import Columns
from protocol.segment import Layout, check_body, open_segment, parse, seal
from protocol.signatures import check_body as check_request_body
from protocol.signatures import sign_request, verify_request
from protocol.times import ClockMark
from tests.protocol.bend import header_list, resigned, with_plain
from tests.protocol.makers import (
    AGENT,
    ENTRY,
    HUB,
    LOG,
    NOW_US,
    RESOURCE,
    RUN,
    STRANGER,
    STREAM,
    columns,
    epoch_keys,
)
from tests.protocol.memory_hub import MemoryLedger
from tests.protocol.vectors import FOLDER, jsonable, plain

Inputs = dict[str, Any]
SEED = {"agent": b"\x01" * 32, "hub": b"\x03" * 32, "log": b"\x04" * 32}


def to_dict(cols: Columns) -> Inputs:
    return {"count": cols.count, "fixed": dict(fixed_columns(cols)), "fields": cols.fields}


def to_columns(data: Inputs) -> Columns:
    return Columns(data["count"], *data["fixed"].values(), data["fields"])


# --- columns -------------------------------------------------------------------------------------


def make_columns(inputs: Inputs) -> bytes:
    cols = to_columns(inputs["columns"])
    return encode_part(cols, list(cols.fields), fixed=True, pad=inputs["pad"])


def read_columns(output: bytes, inputs: Inputs) -> None:
    cols = to_columns(inputs["columns"])
    assert decode_part(output, cols.count) == {**fixed_columns(cols), **cols.fields}
    assert unpack_frame(output, lambda _: None) == inputs["raw"]


def column_cases() -> list[Inputs]:
    every = columns(
        6,
        seed=4,
        fields={
            "int": [0, -(2**63), 2**63 - 1, 5, 5, 6],
            "steps": [100, 107, 114, 121, 128, 135],
            "null": [None] * 6,
            "float": [3.25, 3.3, None, -0.5, 3.0, 99.99],
            "bits": [0.1 + 0.2, -0.0, 1e300, 5e-324, 1.0, 2.0],
            "bool": [True, None, False, True, True, False],
            "text": ["东门", "", "west", None, "é", "x"],
            "code": ["in", "in", "out", "in", "in", "in"],
            "token": [b"\x00\xff", b"abcde", None, b"z", b"", b"abcde"],
        },
    )
    many = columns(300, seed=5)
    made = [("every type", every, False), ("padded", every, True), ("300 rows", many, False)]
    cases: list[Inputs] = []
    for name, cols, pad in made:
        inputs: Inputs = {"make": "part", "columns": to_dict(cols), "pad": pad, "raw": b""}
        inputs["raw"] = unpack_frame(make_columns(inputs), lambda _: None)
        cases.append(
            {"name": name, "inputs": inputs, "output": make_columns(inputs), "expect": "ok"}
        )
    good = cases[0]["output"]
    bad_inputs = {"columns": cases[0]["inputs"]["columns"], "raw": cases[0]["inputs"]["raw"]}
    for name, output, code in (
        ("zeros, but not to the Padmé length", good + bytes(100), Code.MALFORMED),
        ("padding is not zero", cases[1]["output"][:-1] + b"\1", Code.MALFORMED),
        ("raw length lies", b"\0\0\0\1" + good[4:], Code.MALFORMED),
        ("raw length over 64 MiB", b"\x04\0\0\1" + good[4:], Code.TOO_LARGE),
        ("cut", good[:-1], Code.MALFORMED),
    ):
        cases.append({"name": name, "inputs": bad_inputs, "output": output, "expect": code.key})
    return cases


# --- segments ------------------------------------------------------------------------------------


def make_segment(inputs: Inputs) -> bytes:
    key = SigningKey(inputs["signer"])
    follows = inputs["continues"]
    return seal(
        to_columns(inputs["columns"]),
        layout=Layout(tuple(map(tuple, inputs["groups"])), frozenset(inputs["padded"])),
        signer=key,
        agent=key.principal,
        resource=inputs["resource"],
        stream=inputs["stream"],
        seq=inputs["seq"],
        prev=inputs["prev"],
        entry=inputs["entry"],
        epoch=inputs["epoch"],
        grade=Grade(inputs["grade"]),
        clock=wire.convert(inputs["clock"], ClockMark),
        rows=[tuple(row) for row in inputs["rows"]],
        keys=keys_of(inputs),
        nonces=inputs["nonces"],
        decision=inputs["decision"],
        resume=inputs["resume"],
        continues=Continues(*follows) if follows else None,
    ).raw


def keys_of(inputs: Inputs) -> dict[int, EpochKey]:
    return {
        group: EpochKey(
            resource=inputs["resource"],
            epoch=inputs["epoch"],
            group=group,
            key=key,
            from_us=0,
            to_us=2**62,
        )
        for group, key in enumerate(inputs["epoch_keys"])
    }


def read_segment(output: bytes, inputs: Inputs) -> None:
    segment = parse(output).verify(SigningKey(inputs["signer"]).public)
    check_body(segment)
    assert open_segment(segment, keys_of(inputs)) == to_columns(inputs["columns"])
    if "id" in inputs:
        assert segment.id == inputs["id"]


def segment_inputs(grade: Grade, **changes: object) -> Inputs:
    return {
        "make": "segment",
        "signer": SEED["agent"],
        "columns": to_dict(columns(12, seed=6)),
        "groups": [["code", "gate", "amount"], ["visitor"]],
        "padded": [1],
        "resource": RESOURCE,
        "stream": STREAM,
        "seq": 0,
        "prev": bytes(32),
        "entry": ENTRY,
        "epoch": 7,
        "grade": int(grade),
        "clock": [-1500, 20_000, 1],
        "rows": [[RUN, 0, 11]],
        "epoch_keys": [key.key for key in epoch_keys().values()],
        "nonces": [bytes(range(24)), bytes(range(100, 124))],
        "decision": 0,
        "resume": None,
        "continues": None,
    } | changes


def segment_cases() -> list[Inputs]:
    follows = [b"stream-before-16", 41, b"\x2a" * 32, "image restored"]
    cases: list[Inputs] = []
    for name, inputs in (
        ("sealed, two groups, the second padded", segment_inputs(Grade.SHAREABLE)),
        ("open", segment_inputs(Grade.GENERALLY_OPEN)),
        (
            "second of a stream that continues another",
            segment_inputs(
                Grade.GENERAL_PROTECTED,
                seq=1,
                prev=b"\x11" * 32,
                decision=5,
                resume=b"watermark",
                continues=follows,
                rows=[[RUN, 12, 20], [b"run-id-9", 0, 2]],
            ),
        ),
    ):
        raw = make_segment(inputs)
        inputs["id"] = parse(raw).id
        cases.append({"name": name, "inputs": inputs, "output": raw, "expect": "ok"})
    return cases + [
        {
            "name": name,
            "inputs": {k: v for k, v in inputs.items() if k not in {"make", "id"}},
            "output": output,
            "expect": code.key,
        }
        for name, inputs, output, code in bent_segments(cases[0], cases[1])
    ]


def bent_segments(sealed: Inputs, opened: Inputs) -> list[tuple[str, Inputs, bytes, Code]]:
    raw = sealed["output"]
    segment = parse(raw).verify(AGENT.public)
    clear = parse(opened["output"]).verify(AGENT.public)
    header, flags, order = header_list(segment), header_list(segment), header_list(segment)
    header[7] = 4
    flags[15] = 1
    order[13] = order[13][::-1]
    body = bytes(clear.body or b"")
    padding = body[clear.header.parts[0].length : -1] + b"\1"

    def flip(at):
        return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]

    return [
        ("header bit flipped", sealed["inputs"], flip(60), Code.SIGNATURE_INVALID),
        ("part bit flipped", sealed["inputs"], flip(len(raw) - 1), Code.HASH_MISMATCH),
        ("a byte after it", sealed["inputs"], raw + b"\0", Code.TRAILING_BYTES),
        ("suite 2, signed again", sealed["inputs"], resigned(segment, suite=2), Code.UNKNOWN_SUITE),
        (
            "version 2, signed again",
            sealed["inputs"],
            resigned(segment, version=2),
            Code.UNKNOWN_VERSION,
        ),
        (
            "other grade, signed again",
            sealed["inputs"],
            resigned(segment, header=header),
            Code.AUTHENTICATION_FAILED,
        ),
        (
            "flags not 0, signed again",
            sealed["inputs"],
            resigned(segment, header=flags),
            Code.OUT_OF_BOUNDS,
        ),
        (
            "groups out of order, signed again",
            sealed["inputs"],
            resigned(segment, header=order),
            Code.MALFORMED,
        ),
        (
            "padding not zero, signed again",
            opened["inputs"],
            with_plain(clear, 1, padding),
            Code.MALFORMED,
        ),
        (
            "signed by another key",
            sealed["inputs"],
            resigned(segment, signer=STRANGER),
            Code.WRONG_SIGNER,
        ),
        (
            "other epoch key",
            sealed["inputs"] | {"epoch_keys": [b"?" * 32, b"!" * 32]},
            raw,
            Code.COMMITMENT_MISMATCH,
        ),
    ]


# --- leaves, checkpoints, receipts ---------------------------------------------------------------


def make_leaf(inputs: Inputs) -> bytes:
    kind, fields = inputs["kind"], inputs["fields"]
    if kind == "batch":
        return batch_leaf(fields[0], [tuple(item) for item in fields[1]], fields[2])
    return generation_leaf(*fields) if kind == "generation" else event_leaf(kind, *fields)


def read_leaf(output: bytes, _: Inputs) -> None:
    assert wire.encode(parse_leaf(output)) == output


def leaf_cases() -> list[Inputs]:
    good = [
        (
            "batch",
            [AGENT.principal, [[1, b"\x01" * 32], [2, b"\x02" * 32], [3, b"\x03" * 32]], NOW_US],
        ),
        ("enrolment", [b"\x0a" * 32, b"\x0b" * 32, NOW_US]),
        ("generation", [log_origin(HUB.principal, 1), 42, b"\x0c" * 32, "disk lost", NOW_US]),
    ]
    cases = [
        {
            "name": kind,
            "inputs": {"make": "leaf", "kind": kind, "fields": fields},
            "output": make_leaf({"kind": kind, "fields": fields}),
            "expect": "ok",
        }
        for kind, fields in good
    ]
    for name, leaf, code in (
        (
            "version 2",
            [2, "batch", AGENT.principal, [[1, b"\x01" * 32]], NOW_US],
            Code.OUT_OF_BOUNDS,
        ),
        ("batch of nothing", [1, "batch", AGENT.principal, [], NOW_US], Code.OUT_OF_BOUNDS),
        ("state 4", [1, "batch", AGENT.principal, [[4, b"\x01" * 32]], NOW_US], Code.OUT_OF_BOUNDS),
        ("one field more", [1, "grant", b"\x0a" * 32, b"\x0b" * 32, NOW_US, 0], Code.WRONG_TYPE),
        ("kind in capitals", [1, "Grant", b"\x0a" * 32, b"\x0b" * 32, NOW_US], Code.UNKNOWN_KIND),
    ):
        cases.append({"name": name, "inputs": {}, "output": wire.encode(leaf), "expect": code.key})
    return cases


def make_checkpoint(inputs: Inputs) -> bytes:
    return make_note(
        inputs["origin"], inputs["size"], inputs["root"], SigningKey(inputs["signer"])
    ).encode()


def read_checkpoint(output: bytes, inputs: Inputs) -> None:
    found = verify_note(output.decode(), inputs["vkey"])
    assert (found.origin, found.size, found.root) == (
        inputs["origin"],
        inputs["size"],
        inputs["root"],
    )


def checkpoint_cases() -> list[Inputs]:
    origin = log_origin(HUB.principal, 1)
    inputs: Inputs = {
        "make": "checkpoint",
        "signer": SEED["log"],
        "origin": origin,
        "size": 1234567,
        "root": bytes(range(32)),
        "vkey": vkey_text(origin, LOG.public),
    }
    good = make_checkpoint(inputs)
    text = good.decode().split("\n\n")[0] + "\n"
    bad = {key: value for key, value in inputs.items() if key != "make"}
    cases = [
        ("checkpoint", inputs, good, "ok"),
        ("empty tree", inputs | {"size": 0}, make_checkpoint(inputs | {"size": 0}), "ok"),
        (
            "with another signature",
            bad,
            good + sign_note(text, "witness.example", STRANGER).split("\n\n")[1].encode(),
            "ok",
        ),
        (
            "other root, old signature",
            bad,
            good.replace(b"\n1234567\n", b"\n1234568\n"),
            Code.SIGNATURE_INVALID.key,
        ),
        (
            "signed by a stranger",
            bad,
            make_note(origin, 1234567, bytes(range(32)), STRANGER).encode(),
            Code.CHECKPOINT_INVALID.key,
        ),
        (
            "extension line",
            bad,
            sign_note(text + "more\n", origin, LOG).encode(),
            Code.CHECKPOINT_INVALID.key,
        ),
        (
            "other generation under this name",
            bad,
            sign_note(text.replace("/1\n", "/2\n"), origin, LOG).encode(),
            Code.CHECKPOINT_INVALID.key,
        ),
    ]
    return [dict(zip(("name", "inputs", "output", "expect"), case, strict=True)) for case in cases]


def make_receipt(inputs: Inputs) -> bytes:
    ledger = MemoryLedger(1)
    for leaf in inputs["leaves"]:
        ledger.append(leaf)
    return wire.encode(ledger.receipt(inputs["index"]))


def read_receipt(output: bytes, inputs: Inputs) -> None:
    receipt = wire.decode(output, Receipt, limit=200_000)
    leaf = verify_receipt(receipt, inputs["vkey"], inputs["agent"])
    if (1, inputs["segment"]) not in leaf.items:
        raise VerifyError(Code.PROOF_INVALID, field="segment")


def receipt_cases() -> list[Inputs]:
    segment = b"\x5e" * 32
    leaves = [event_leaf("enrolment", b"%032d" % n, b"h" * 32, NOW_US) for n in range(11)]
    leaves[6] = batch_leaf(AGENT.principal, [(1, segment)], NOW_US)
    inputs: Inputs = {
        "make": "receipt",
        "leaves": leaves,
        "index": 6,
        "vkey": vkey_text(log_origin(HUB.principal, 1), LOG.public),
        "agent": AGENT.principal,
        "segment": segment,
    }
    good = make_receipt(inputs)
    fields = wire.decode_any(good, limit=200_000)
    bad = {key: value for key, value in inputs.items() if key not in {"make", "leaves"}}

    def bent(**changes):
        return wire.encode({**fields, **changes})

    cases = [
        ("receipt", inputs, good, "ok"),
        ("path too long", bad, bent(path=[*fields["path"], bytes(32)]), Code.PROOF_INVALID.key),
        ("path too short", bad, bent(path=fields["path"][1:]), Code.PROOF_INVALID.key),
        ("other index", bad, bent(index=7), Code.PROOF_INVALID.key),
        ("other leaf", bad, bent(leaf=leaves[5]), Code.PROOF_INVALID.key),
        (
            "a leaf of another kind",
            bad,
            make_receipt(inputs | {"index": 5}),
            Code.PROOF_INVALID.key,
        ),
        (
            "a leaf of another agent",
            bad | {"agent": STRANGER.principal},
            good,
            Code.WRONG_AGENT.key,
        ),
        ("a leaf of another segment", bad | {"segment": b"\0" * 32}, good, Code.PROOF_INVALID.key),
        (
            "checkpoint of another key",
            bad | {"vkey": vkey_text(log_origin(HUB.principal, 1), STRANGER.public)},
            good,
            Code.CHECKPOINT_INVALID.key,
        ),
    ]
    return [dict(zip(("name", "inputs", "output", "expect"), case, strict=True)) for case in cases]


# --- requests ------------------------------------------------------------------------------------


def make_request(inputs: Inputs) -> bytes:
    fields = sign_request(
        inputs["method"],
        inputs["path"],
        inputs["query"],
        body=inputs["body"],
        content_type=inputs["content_type"],
        hub=HUB.principal,
        key=SigningKey(inputs["signer"]),
        created_s=inputs["created"],
        nonce=inputs["nonce"],
    )
    return "".join(f"{name}: {value}\n" for name, value in fields.items()).encode()


def read_request(output: bytes, inputs: Inputs) -> None:
    fields = [tuple(line.split(": ", 1)) for line in output.decode().splitlines()]
    public = SigningKey(inputs["signer"]).public
    found = verify_request(
        inputs["method"],
        inputs["path"],
        inputs["query"],
        fields,
        hub=HUB.principal,
        keys=only_key(public),
        now_s=inputs["now"],
        has_body=inputs["body"] is not None,
    )  # type: ignore[arg-type]
    check_request_body(found, inputs["body"] or b"")
    assert (found.key_id, found.nonce) == (key_id(public, use=Use.SIGNING), inputs["nonce"])


def request_cases() -> list[Inputs]:
    post: Inputs = {
        "make": "request",
        "signer": SEED["agent"],
        "method": "POST",
        "path": "/v1/sync",
        "query": "",
        "body": b"\x81\xa1a\x01",
        "content_type": MEDIA_TYPE,
        "created": 1_790_000_000,
        "nonce": bytes(range(16)),
        "now": 1_790_000_010,
    }
    get = post | {
        "method": "GET",
        "path": "/v1/inbox",
        "query": "after=1.5",
        "body": None,
        "content_type": None,
    }
    bad = {key: value for key, value in post.items() if key != "make"}
    good = make_request(post)
    cases = [
        ("post", post, good, "ok"),
        ("get", get, make_request(get), "ok"),
        ("other path", bad | {"path": "/v1/objects"}, good, Code.SIGNATURE_INVALID.key),
        ("body swapped", bad | {"body": b"\x80"}, good, Code.DIGEST_MISMATCH.key),
        ("a minute and a second late", bad | {"now": 1_790_000_061}, good, Code.CLOCK_SKEW.key),
        (
            "alg named",
            bad,
            good.replace(b";tag=", b';alg="ed25519";tag='),
            Code.SIGNATURE_MISSING.key,
        ),
        ("content coding", bad, good + b"Content-Encoding: gzip\n", Code.CONTENT_CODING.key),
        (
            "signature twice",
            bad,
            good + good[good.index(b"Signature: ") :],
            Code.SIGNATURE_COUNT.key,
        ),
    ]
    return [dict(zip(("name", "inputs", "output", "expect"), case, strict=True)) for case in cases]


Maker = Callable[[Inputs], bytes]
FILES: dict[str, tuple[str, Callable[[], list[Inputs]], Maker, Callable[[bytes, Inputs], None]]] = {
    "columns": (
        "Parts in clear: columns, frame, padding; fixed columns in their order.",
        column_cases,
        make_columns,
        read_columns,
    ),
    "segments": (
        "Segments, sealed and open; `signer` is an Ed25519 seed, `epoch_keys` by group.",
        segment_cases,
        make_segment,
        read_segment,
    ),
    "leaves": ("Leaves of the ledger.", leaf_cases, make_leaf, read_leaf),
    "checkpoints": (
        "Signed checkpoints; the output is the UTF-8 text of the note.",
        checkpoint_cases,
        make_checkpoint,
        read_checkpoint,
    ),
    "receipts": (
        "One leaf under one checkpoint, for one agent and one segment.",
        receipt_cases,
        make_receipt,
        read_receipt,
    ),
    "requests": (
        "Header fields of signed requests, one a line; `now` is the hub's clock.",
        request_cases,
        make_request,
        read_request,
    ),
}


def load(name: str) -> list[Inputs]:
    cases = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))["cases"]
    return [
        {
            "name": case["name"],
            "inputs": plain(case["inputs"]),
            "output": bytes.fromhex(case["output"]),
            "expect": case["expect"],
        }
        for case in cases
    ]


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, (about, cases, _, _) in FILES.items():
        listed = [
            {
                "name": case["name"],
                "inputs": jsonable(case["inputs"]),
                "output": case["output"].hex(),
                "expect": case["expect"],
            }
            for case in cases()
        ]
        text = json.dumps({"about": about, "cases": listed}, indent=1, ensure_ascii=False)
        (FOLDER / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
