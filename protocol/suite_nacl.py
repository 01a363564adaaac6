"""Suite 1: Ed25519, X25519 sealed boxes, XChaCha20-Poly1305, BLAKE2b — all of libsodium.

Ed25519 is verified as libsodium does: S < L, canonical keys, no points of small order.
"""

import hashlib

import nacl.bindings as sodium
from nacl.exceptions import CryptoError

from protocol.errors import Code, DecodeError, VerifyError

_KEY = 32
_SIGNATURE = 64
_NONCE = 24
_TAG = 16
_BOX_OVERHEAD = 48
_PERSON_MAX = 16


def _sized(field: str, value: bytes, size: int) -> None:
    # PyNaCl hands some arguments to C without measuring them (crypto_sign_open's key: tried).
    if len(value) != size:
        raise DecodeError(Code.MALFORMED, field=field, value=len(value), expected=f"{size} bytes")


class SuiteNacl:
    """The algorithms of suite 1 (see `suites.Suite` for what each promises)."""

    id = 1
    nonce_bytes = _NONCE
    key_bytes = _KEY

    def hash(self, *parts: bytes | bytearray | memoryview) -> bytes:
        """Give BLAKE2b-256 of the joined parts."""
        state = hashlib.blake2b(digest_size=32)
        for part in parts:
            state.update(part)
        return state.digest()

    def kdf(self, key: bytes, label: bytes, context: bytes, size: int) -> bytes:
        """Give BLAKE2b(key = K, person = label, data = ctx) of `size` bytes (≤ 64)."""
        _sized("key", key, _KEY)
        if len(label) > _PERSON_MAX or not 1 <= size <= 64:
            raise DecodeError(Code.OUT_OF_BOUNDS, field="kdf", expected="label ≤ 16, size 1..64")
        return hashlib.blake2b(context, key=key, person=label, digest_size=size).digest()

    def signing_pair(self, seed: bytes) -> tuple[bytes, bytes]:
        """Give (public 32, secret 64) of an Ed25519 seed."""
        _sized("seed", seed, _KEY)
        public, secret = sodium.crypto_sign_seed_keypair(seed)
        return public, secret

    def sealing_public(self, private: bytes) -> bytes:
        """Give the X25519 public key."""
        _sized("private key", private, _KEY)
        return sodium.crypto_scalarmult_base(private)

    def sign(self, secret: bytes, data: bytes | bytearray | memoryview) -> bytes:
        """Sign with Ed25519: deterministic, 64 bytes."""
        _sized("secret", secret, 64)
        return sodium.crypto_sign(bytes(data), secret)[:_SIGNATURE]

    def verify(self, public: bytes, data: bytes | bytearray | memoryview, signature: bytes) -> None:
        """Raise VerifyError SIGNATURE_INVALID unless libsodium accepts the signature."""
        if len(public) != _KEY or len(signature) != _SIGNATURE:
            raise VerifyError(
                Code.SIGNATURE_INVALID, field="signature", value=signature, expected="64 bytes"
            )
        try:
            sodium.crypto_sign_open(signature + bytes(data), public)
        except CryptoError as error:
            raise VerifyError(Code.SIGNATURE_INVALID, field="signature", value=signature) from error

    def seal_box(self, data: bytes, public: bytes, ephemeral_seed: bytes) -> bytes:
        """Give libsodium's sealed box with the ephemeral key of this seed.

        epk ‖ crypto_box(nonce = BLAKE2b-192(epk ‖ pk)): `crypto_box_seal_open` opens it.
        Raises VerifyError WEAK_KEY if the shared secret would be zero.
        """
        _sized("public key", public, _KEY)
        _sized("seed", ephemeral_seed, _KEY)
        ephemeral, secret = sodium.crypto_box_seed_keypair(ephemeral_seed)
        nonce = hashlib.blake2b(ephemeral + public, digest_size=_NONCE).digest()
        try:
            shared = sodium.crypto_box_beforenm(public, secret)
        except CryptoError as error:
            raise VerifyError(Code.WEAK_KEY, field="public key", value=public) from error
        return ephemeral + sodium.crypto_box_easy_afternm(data, nonce, shared)

    def open_box(self, box: bytes, private: bytes) -> bytes:
        """Open a sealed box. Raises VerifyError AUTHENTICATION_FAILED."""
        _sized("private key", private, _KEY)
        if len(box) < _BOX_OVERHEAD:
            raise VerifyError(Code.AUTHENTICATION_FAILED, field="box", value=len(box))
        try:
            opened: bytes = sodium.crypto_box_seal_open(
                bytes(box), sodium.crypto_scalarmult_base(private), private
            )
        except CryptoError as error:
            raise VerifyError(Code.AUTHENTICATION_FAILED, field="box") from error
        return opened

    def aead_seal(
        self, key: bytes, nonce: bytes, aad: bytes, plain: bytes | bytearray | memoryview
    ) -> bytes:
        """Give XChaCha20-Poly1305(plain): 16 bytes longer."""
        _sized("key", key, _KEY)
        _sized("nonce", nonce, _NONCE)
        return sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(bytes(plain), aad, nonce, key)

    def aead_open(
        self, key: bytes, nonce: bytes, aad: bytes, sealed: bytes | bytearray | memoryview
    ) -> bytes:
        """Decrypt. Raises VerifyError AUTHENTICATION_FAILED if a bit was changed."""
        _sized("key", key, _KEY)
        if len(sealed) < _TAG or len(nonce) != _NONCE:
            raise VerifyError(Code.AUTHENTICATION_FAILED, field="sealed", value=len(sealed))
        try:
            return sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(bytes(sealed), aad, nonce, key)
        except CryptoError as error:
            raise VerifyError(Code.AUTHENTICATION_FAILED, field="sealed") from error
