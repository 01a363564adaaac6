"""Envelopes: every signed object but segments.

    [suite, kind, payload bin, [[key id, signature], …]]

Signatures are over tag ‖ suite ‖ len(kind) ‖ kind ‖ payload as they arrived; nothing is ever
encoded again to be verified. One signature an object, but two on an enrolment.
"""

from collections.abc import Callable, Mapping
from typing import Final, NoReturn, TypeAlias, TypeVar

from msgspec import Struct

from protocol import limits, tags, wire
from protocol.errors import Code, DecodeError, TooLargeError, VerifyError
from protocol.ids import KeyId, ObjectId, PrincipalId, Use, key_id
from protocol.suites import suite as suite_of

T = TypeVar("T")

#: Gives the public signing key of a key id, or None if it is not known.
KeyLookup: TypeAlias = Callable[[KeyId], bytes | None]

#: Kinds of objects (a closed list) and the longest envelope of each, bytes.
KINDS: Final[Mapping[str, int]] = {
    "principal": limits.OBJECT_BYTES_MAX,
    "enrolment": limits.ENROLMENT_BYTES_MAX,
    "enrolled": limits.OBJECT_BYTES_MAX,
    "review": limits.OBJECT_BYTES_MAX,  # a hub admin's decision about the object it names
    "registration": limits.OBJECT_BYTES_MAX,
    "description": limits.OBJECT_BYTES_MAX,  # the same fields for 完全开放级
    "wrap": limits.OBJECT_BYTES_MAX,
    "gap": limits.OBJECT_BYTES_MAX,
    "correction": limits.OBJECT_BYTES_MAX,
    "inbox": limits.INBOX_BYTES_MAX,
    "answer": limits.ANSWER_BYTES_MAX,
    "time": limits.OBJECT_BYTES_MAX,
}

_TWO_SIGNATURES = frozenset({"enrolment"})


class SigningKey:
    """A private signing key; its repr and pickle give nothing away.

    seed: 32 bytes. Raises DecodeError if it is not.
    """

    __slots__ = ("_secret", "key_id", "principal", "public", "suite")

    def __init__(self, seed: bytes, *, suite: int = 1) -> None:
        self.suite = suite
        self.public, self._secret = suite_of(suite).signing_pair(seed)
        self.key_id = key_id(self.public, use=Use.SIGNING, suite=suite)
        self.principal = PrincipalId(self.key_id)  # of the principal whose first key this is

    def sign(self, data: bytes) -> bytes:
        """Sign bytes that start with a domain tag (or are a note or request base)."""
        return suite_of(self.suite).sign(self._secret, data)

    def __repr__(self) -> str:
        return f"SigningKey(•••, {self.key_id.hex()})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("private keys are not pickled")


class SealingKey:
    """A private sealing key: opens what was sealed to its public half.

    private: 32 bytes. Raises DecodeError if it is not.
    """

    __slots__ = ("_private", "key_id", "public", "suite")

    def __init__(self, private: bytes, *, suite: int = 1) -> None:
        self.suite = suite
        self._private = bytes(private)
        self.public = suite_of(suite).sealing_public(private)
        self.key_id = key_id(self.public, use=Use.SEALING, suite=suite)

    def open(self, box: bytes) -> bytes:
        """Open a sealed box. Raises VerifyError."""
        return suite_of(self.suite).open_box(box, self._private)

    def __repr__(self) -> str:
        return f"SealingKey(•••, {self.key_id.hex()})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("private keys are not pickled")


class Signature(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One signature and the id of its key."""

    key_id: KeyId
    value: bytes


class Envelope(Struct, frozen=True, kw_only=True):
    """A signed object as it arrived; `parse` made it, `verify` has not been asked yet."""

    suite: int
    kind: str
    payload: bytes  # msgpack, not decoded
    signatures: tuple[Signature, ...]
    raw: bytes  # the whole envelope

    @property
    def signed_fields(self) -> bytes:
        """Suite, kind and payload as they are signed and hashed, without a tag."""
        kind = self.kind.encode()
        return bytes((self.suite, len(kind))) + kind + self.payload

    @property
    def object_id(self) -> ObjectId:
        """The object's id: the same whoever signed it."""
        return ObjectId(suite_of(self.suite).hash(tags.OBJECT, self.signed_fields))

    @property
    def record_hash(self) -> bytes:
        """The hash of the whole envelope, as it stands in leaves."""
        return suite_of(self.suite).hash(tags.RECORD, self.raw)

    @property
    def signer(self) -> KeyId:
        """The key id of the (first) signature."""
        return self.signatures[0].key_id


def make(kind: str, payload: Struct | Mapping[str, object], *signers: SigningKey) -> Envelope:
    """Sign a payload: one signer, for an enrolment two (agent key, token key).

    Raises DecodeError or TooLargeError if a strict reader would refuse the result.
    """
    suite = signers[0].suite if signers else 1
    body = wire.encode(payload)
    signed = bytes((suite, len(kind))) + kind.encode() + body
    signatures = [[key.key_id, key.sign(tags.ENVELOPE + signed)] for key in signers]
    made = parse(wire.encode([suite, kind, body, signatures]))
    wire.decode_any(body, limit=len(body))
    return made


def parse(raw: bytes) -> Envelope:
    """Read an envelope: strict, bounded, kinds of the closed list only. Verifies nothing yet.

    Raises DecodeError, TooLargeError, VerifyError SIGNATURE_COUNT.
    """
    outer = wire.decode_any(raw, limit=limits.ANSWER_BYTES_MAX)
    if not isinstance(outer, list) or len(outer) != 4:
        raise DecodeError(Code.MALFORMED, field="envelope", expected="an array of four")
    suite, kind, payload, signatures = outer
    if type(suite) is not int:
        raise DecodeError(Code.WRONG_TYPE, field="suite", value=suite, expected="int")
    suite_of(suite)
    if type(kind) is not str or kind not in KINDS:
        raise DecodeError(Code.UNKNOWN_KIND, field="kind", value=kind, expected=", ".join(KINDS))
    if len(raw) > KINDS[kind]:
        raise TooLargeError(
            Code.TOO_LARGE, field=kind, value=len(raw), expected=f"≤ {KINDS[kind]} bytes"
        )
    if type(payload) is not bytes:
        raise DecodeError(Code.WRONG_TYPE, field="payload", value=payload, expected="bytes")
    return Envelope(
        suite=suite,
        kind=kind,
        payload=payload,
        signatures=_signatures(kind, signatures),
        raw=bytes(raw),
    )


def _signatures(kind: str, given: object) -> tuple[Signature, ...]:
    wanted = 2 if kind in _TWO_SIGNATURES else 1
    if not isinstance(given, list) or len(given) != wanted:
        raise VerifyError(
            Code.SIGNATURE_COUNT, field="signatures", value=given, expected=f"exactly {wanted}"
        )
    found = wire.convert(given, tuple[Signature, ...])
    for signature in found:
        if len(signature.key_id) != 16 or len(signature.value) != limits.SIGNATURE_BYTES:
            raise DecodeError(
                Code.MALFORMED, field="signatures", expected="key id of 16, signature of 64 bytes"
            )
    if len({signature.key_id for signature in found}) != wanted:
        raise VerifyError(Code.SIGNATURE_COUNT, field="signatures", expected="different signers")
    return found


def verify(envelope: Envelope, keys: KeyLookup) -> None:
    """Verify every signature over the bytes that arrived.

    keys: gives the public signing key of an id, or None. Raises VerifyError UNKNOWN_KEY or
    SIGNATURE_INVALID.
    """
    suite = suite_of(envelope.suite)
    signed = tags.ENVELOPE + envelope.signed_fields
    for signature in envelope.signatures:
        public = keys(signature.key_id)
        if public is None:
            raise VerifyError(Code.UNKNOWN_KEY, field="key id", value=signature.key_id)
        if key_id(public, use=Use.SIGNING, suite=envelope.suite) != signature.key_id:
            raise VerifyError(Code.WRONG_SIGNER, field="key id", value=signature.key_id)
        suite.verify(public, signed, signature.value)


def open_as(
    envelope: Envelope,
    kind: str,
    type: type[T],  # noqa: A002
    keys: KeyLookup,
) -> T:
    """Verify, then decode the payload as a struct of this kind.

    Raises VerifyError, DecodeError (also for another kind).
    """
    expect_kind(envelope, kind)
    verify(envelope, keys)
    return decode_payload(envelope, type)


def expect_kind(envelope: Envelope, *kinds: str) -> None:
    """Raise DecodeError UNKNOWN_KIND unless the envelope is of one of these kinds."""
    if envelope.kind not in kinds:
        raise DecodeError(
            Code.UNKNOWN_KIND, field="kind", value=envelope.kind, expected=" or ".join(kinds)
        )


def decode_payload(envelope: Envelope, type: type[T]) -> T:  # noqa: A002
    """Decode a payload strictly, whether verified or not; structs of ours refuse unknown keys.

    For the objects that carry their own key (principal, enrolment): the caller verifies with the
    key that it finds, before it believes anything else.
    """
    return wire.decode(envelope.payload, type, limit=len(envelope.payload))


def only_key(public: bytes, *, suite: int = 1) -> KeyLookup:
    """Give the key lookup that knows exactly this public signing key."""
    known = key_id(public, use=Use.SIGNING, suite=suite)
    return lambda wanted: public if wanted == known else None
