"""Crypto suites behind one interface; an entry states its suite, and a header repeats it."""

from typing import Protocol

from protocol.errors import Code, DecodeError
from protocol.suite_nacl import SuiteNacl

Data = bytes | bytearray | memoryview


class Suite(Protocol):
    """The algorithms of one suite. Deterministic: nonces and seeds are arguments."""

    @property
    def id(self) -> int:
        """The suite's number in preludes, envelopes and entries."""

    @property
    def nonce_bytes(self) -> int:
        """Length of an AEAD nonce."""

    @property
    def key_bytes(self) -> int:
        """Length of an AEAD key."""

    def hash(self, *parts: Data) -> bytes:
        """Give H of the joined parts, 32 bytes."""

    def kdf(self, key: bytes, label: bytes, context: bytes, size: int) -> bytes:
        """Derive `size` bytes from a 32-byte key, for one label (≤ 16 bytes) and context."""

    def signing_pair(self, seed: bytes) -> tuple[bytes, bytes]:
        """Give (public, secret) of the signing key with this 32-byte seed."""

    def sealing_public(self, private: bytes) -> bytes:
        """Give the public key of a sealing key."""

    def sign(self, secret: bytes, data: Data) -> bytes:
        """Sign; `secret` is the second half of `signing_pair`. 64 bytes."""

    def verify(self, public: bytes, data: Data, signature: bytes) -> None:
        """Raise VerifyError unless this is the key's signature over exactly these bytes."""

    def seal_box(self, data: bytes, public: bytes, ephemeral_seed: bytes) -> bytes:
        """Seal to a sealing key; the 32-byte seed must be random and never used again.

        Raises VerifyError if the key is weak.
        """

    def open_box(self, box: bytes, private: bytes) -> bytes:
        """Open what `seal_box` made. Raises VerifyError."""

    def aead_seal(self, key: bytes, nonce: bytes, aad: bytes, plain: Data) -> bytes:
        """Encrypt and authenticate; the nonce must never be used again with this key."""

    def aead_open(self, key: bytes, nonce: bytes, aad: bytes, sealed: Data) -> bytes:
        """Decrypt. Raises VerifyError if anything was changed."""


_SUITES: dict[int, Suite] = {1: SuiteNacl()}


def suite(number: int) -> Suite:
    """Give the suite of this number. Raises DecodeError UNKNOWN_SUITE."""
    found = _SUITES.get(number)
    if found is None:
        raise DecodeError(Code.UNKNOWN_SUITE, field="suite", value=number, expected="one of 1")
    return found
