"""Encryption at rest: small secrets under the root key, journal bodies under a run's journal key.

XChaCha20-Poly1305 with random nonces; the associated data names the place of the value, so that a
value moved to another row does not open. Nothing here travels.
"""

import hashlib
from typing import Final

from nacl import bindings
from nacl.exceptions import CryptoError

from agent.store.ports import Randomness
from protocol.errors import Code, DecodeError

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 24

_seal = bindings.crypto_aead_xchacha20poly1305_ietf_encrypt
_open = bindings.crypto_aead_xchacha20poly1305_ietf_decrypt


def lock(key: bytes, place: bytes, plain: bytes, random: Randomness) -> bytes:
    """Encrypt `plain` for one place; a nonce and a tag longer."""
    nonce = random(NONCE_BYTES)
    return nonce + _seal(plain, place, nonce, key)


def unlock(key: bytes, place: bytes, sealed: bytes) -> bytes:
    """What `lock` was given. Raises DecodeError if the value is damaged or belongs elsewhere."""
    try:
        return _open(sealed[NONCE_BYTES:], place, sealed[:NONCE_BYTES], key)
    except (CryptoError, ValueError, TypeError) as error:
        raise DecodeError(Code.STORAGE_DAMAGED, field="at rest", value=len(sealed)) from error


class RootKey:
    """The gateway's root key, from the keyring; wraps what the database keeps."""

    __slots__ = ("_key", "_random")

    def __init__(self, key: bytes, random: Randomness) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"root key of {len(key)} bytes")
        self._key = key
        self._random = random

    def __repr__(self) -> str:
        return "RootKey(•••)"

    def wrap(self, place: bytes, plain: bytes) -> bytes:
        """Encrypt a small value for one place, e.g. `b"run" + id`."""
        return lock(self._key, b"shanmen/rest/1\0" + place, plain, self._random)

    def unwrap(self, place: bytes, sealed: bytes) -> bytes:
        """What `wrap` was given. Raises DecodeError."""
        return unlock(self._key, b"shanmen/rest/1\0" + place, sealed)

    def derive(self, label: bytes) -> bytes:
        """A key for one purpose that must not change between starts."""
        return hashlib.blake2b(b"shanmen/rest/1\0" + label, key=self._key, digest_size=32).digest()
