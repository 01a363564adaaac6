"""Request signatures: one profile of RFC 9421, and digests of RFC 9530.

Label `sm`, exactly these components and parameters in this order, no `alg`, one signature, no
content coding; GET without digest and type:

    ("@method" "@path" "@query" "content-digest" "content-type" "shanmen-hub")
    ;created=…;expires=…;nonce="…";keyid="…";tag="shanmen-request-1"

`shanmen-hub` is the hub's id, because proxies rewrite authorities. A profile this narrow is two
strings: what does not match them letter by letter is refused. The order is the law: signature
(over the digest that arrived) before the body is read, digest before it is parsed, and the nonce
into the same transaction as what the request does.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256

from msgspec import Struct

from protocol.envelope import SigningKey
from protocol.errors import Code, DecodeError, VerifyError
from protocol.ids import KeyId, PrincipalId, Use, key_id, parse, show
from protocol.limits import NONCE_BYTES, REQUEST_VALID_S
from protocol.suites import suite

TAG = "shanmen-request-1"

_WITH_BODY = '("@method" "@path" "@query" "content-digest" "content-type" "shanmen-hub")'
_WITHOUT_BODY = '("@method" "@path" "@query" "shanmen-hub")'
_INPUT = re.compile(
    r"sm=(\([^()]*\));created=([1-9]\d{0,14});expires=([1-9]\d{0,14})"
    r';nonce="([A-Za-z0-9+/]{22}==)";keyid="([a-z2-7-]{34})";tag="shanmen-request-1"',
    re.ASCII,
)
_SIGNATURE = re.compile(r"sm=:([A-Za-z0-9+/]{86}==):", re.ASCII)
_DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/]{43}=):", re.ASCII)
_FIELDS = (
    "signature-input",
    "signature",
    "content-digest",
    "content-type",
    "shanmen-hub",
    "content-encoding",
)


class Verified(Struct, frozen=True, kw_only=True):
    """Who signed a request, and what must still be held against it."""

    key_id: KeyId
    nonce: bytes  # 16; goes under a unique index in the request's own transaction
    created_s: int
    expires_s: int
    digest: bytes | None  # SHA-256 of the body, to be compared by `check_body`; None: no body
    content_type: str | None


def content_digest(body: bytes) -> str:
    """The `Content-Digest` field of a body (RFC 9530, SHA-256)."""
    return f"sha-256=:{base64.b64encode(sha256(body).digest()).decode()}:"


def sign_request(
    method: str,
    path: str,
    query: str,
    *,
    body: bytes | None,
    content_type: str | None,
    hub: PrincipalId,
    key: SigningKey,
    created_s: int,
    nonce: bytes,
    valid_s: int = REQUEST_VALID_S,
) -> dict[str, str]:
    """The header fields of a signed request (Content-Type and Content-Digest included).

    query: without "?"; path as it goes over the wire. body: None for requests without one. nonce:
    16 random bytes, never used twice. created_s: the sender's clock, corrected to the hub's.
    """
    if len(nonce) != NONCE_BYTES or (body is None) != (content_type is None):
        raise DecodeError(Code.MALFORMED, field="nonce", value=len(nonce), expected="16 bytes")
    fields = {"Shanmen-Hub": show(hub)}
    if body is not None and content_type is not None:
        fields |= {"Content-Type": content_type, "Content-Digest": content_digest(body)}
    parameters = (
        f"{_WITHOUT_BODY if body is None else _WITH_BODY};created={created_s};expires="
        f'{created_s + valid_s};nonce="{base64.b64encode(nonce).decode()}"'
        f';keyid="{show(key.key_id)}";tag="{TAG}"'
    )
    lower = {name.lower(): value for name, value in fields.items()}
    signature = key.sign(_base(method, path, query, lower, parameters))
    fields["Signature-Input"] = f"sm={parameters}"
    fields["Signature"] = f"sm=:{base64.b64encode(signature).decode()}:"
    return fields


def verify_request(
    method: str,
    path: str,
    query: str,
    headers: Mapping[str, str] | Iterable[tuple[str, str]],
    *,
    hub: PrincipalId,
    keys: Callable[[KeyId], bytes | None],
    now_s: int,
    has_body: bool,
) -> Verified:
    """Verify a request's signature before its body is read.

    headers: all fields as they arrived, repeated ones too. keys: public signing key of an id.
    has_body: what the request has; one that signs no body must have none. Raises VerifyError with
    the code that the answer names (CLOCK_SKEW: send the hub's time along), DecodeError.
    """
    fields = _only_ours(headers)
    if "content-encoding" in fields:
        raise DecodeError(Code.CONTENT_CODING, field="content-encoding", expected="none")
    found = _INPUT.fullmatch(fields.get("signature-input", ""))
    signature = _SIGNATURE.fullmatch(fields.get("signature", ""))
    if not found or not signature:
        raise VerifyError(
            Code.SIGNATURE_MISSING, field="signature", value=fields.get("signature-input")
        )
    components = _WITH_BODY if has_body else _WITHOUT_BODY
    if found[1] != components:
        raise VerifyError(Code.SIGNATURE_MISSING, field="components", value=found[1])
    digest = _digest(fields) if has_body else None
    if fields.get("shanmen-hub") != show(hub):
        raise VerifyError(Code.WRONG_HUB, field="shanmen-hub", value=fields.get("shanmen-hub"))
    created_s, expires_s = int(found[2]), int(found[3])
    signer = KeyId(parse(found[5]))
    public = keys(signer)
    if public is None or key_id(public, use=Use.SIGNING) != signer or show(signer) != found[5]:
        raise VerifyError(Code.UNKNOWN_KEY, field="keyid", value=found[5])
    parameters = fields["signature-input"].removeprefix("sm=")
    base = _base(method, path, query, fields, parameters)
    suite(1).verify(public, base, _decoded(signature[1]))
    _check_times(created_s, expires_s, now_s)
    return Verified(
        key_id=signer,
        nonce=_decoded(found[4]),
        created_s=created_s,
        expires_s=expires_s,
        digest=digest,
        content_type=fields.get("content-type") if has_body else None,
    )


def check_body(verified: Verified, body: bytes) -> None:
    """Hold the body against the digest that was signed, before it is parsed. Raises VerifyError."""
    if verified.digest is None:
        if body:
            raise VerifyError(Code.DIGEST_MISMATCH, field="content-digest", expected="no body")
    elif sha256(body).digest() != verified.digest:
        raise VerifyError(Code.DIGEST_MISMATCH, field="content-digest")


def _base(method: str, path: str, query: str, fields: Mapping[str, str], parameters: str) -> bytes:
    """The signature base of RFC 9421 §2.5 for this profile's components."""
    lines = [f'"@method": {method}', f'"@path": {path}', f'"@query": ?{query}']
    if parameters.startswith(_WITH_BODY):
        lines += [f'"{name}": {fields[name]}' for name in ("content-digest", "content-type")]
    lines += [f'"shanmen-hub": {fields["shanmen-hub"]}', f'"@signature-params": {parameters}']
    text = "\n".join(lines)
    # A line break inside a value could make one request's base look like another's.
    if text.count("\n") != len(lines) - 1 or not text.isascii():
        raise DecodeError(Code.MALFORMED, field="signature base", expected="ASCII, no line breaks")
    return text.encode()


def _only_ours(headers: Mapping[str, str] | Iterable[tuple[str, str]]) -> dict[str, str]:
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    fields: dict[str, str] = {}
    for name, value in pairs:
        lower = name.lower()
        if lower not in _FIELDS:
            continue
        if lower in fields:
            raise VerifyError(Code.SIGNATURE_COUNT, field=lower, expected="one field of this name")
        fields[lower] = value.strip(" \t")
    return fields


def _digest(fields: Mapping[str, str]) -> bytes:
    found = _DIGEST.fullmatch(fields.get("content-digest", ""))
    if not found or "content-type" not in fields:
        raise VerifyError(Code.DIGEST_MISMATCH, field="content-digest", expected="sha-256=:…:")
    return _decoded(found[1])


def _decoded(text: str) -> bytes:
    """Base64 in its one spelling: no unused bit set."""
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise DecodeError(Code.MALFORMED, field="base64", value=text) from error
    if base64.b64encode(raw).decode() != text:
        raise DecodeError(Code.MALFORMED, field="base64", value=text)
    return raw


def _check_times(created_s: int, expires_s: int, now_s: int) -> None:
    if not 0 < expires_s - created_s <= REQUEST_VALID_S:
        raise VerifyError(
            Code.EXPIRED, field="expires", value=expires_s - created_s, expected="1..60 s valid"
        )
    if abs(created_s - now_s) > REQUEST_VALID_S:
        raise VerifyError(
            Code.CLOCK_SKEW, field="created", value=created_s, expected=f"within 60 s of {now_s}"
        )
    if expires_s < now_s:
        raise VerifyError(Code.EXPIRED, field="expires", value=expires_s, expected=f"≥ {now_s}")
