"""The owner's key file: signing and sealing key under a passphrase (Argon2id), 0600.

    {"format": "shanmen-owner-key/1", "name", "principal", "object", "kdf", "nonce", "box"}

JSON with base64, so that it can be printed and typed in again. `object` is the owner's signed
principal, public as a whole, made once with the keys: `show` and pinning need no passphrase. `box`
holds both private keys; everything else in the file is its associated data.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import nacl.exceptions
from nacl.pwhash import argon2id

from hub.files import create as create_file
from protocol import wire
from protocol.envelope import SealingKey, SigningKey, parse
from protocol.errors import Code, ConfigError, VerifyError
from protocol.ids import PrincipalId, show
from protocol.principal import Principal, make_principal, open_principal
from protocol.suites import suite

FORMAT: Final = "shanmen-owner-key/1"
_TAG: Final = b"shanmen/keyfile/1\0"
_SUITE: Final = 1
_FILE_BYTES_MAX: Final = 64 * 1024
_BOX_BYTES: Final = 64 + 16  # two private keys and the authentication tag

#: A file that asks for more is not one of ours: 1 GiB and 16 passes take a minute.
_MEMORY_BYTES_MAX: Final = 1 << 30
_PASSES_MAX: Final = 16

#: Shortest passphrase that `key new` takes, in characters.
PASSPHRASE_CHARS_MIN: Final = 10

Randomness = Callable[[int], bytes]


class Cost(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one guess of the passphrase costs."""

    name: str = "argon2id"
    passes: int = argon2id.OPSLIMIT_MODERATE
    memory_bytes: int = argon2id.MEMLIMIT_MODERATE  # 256 MiB: about 0.7 s
    salt: bytes = b""  # 16


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: str
    name: str
    principal: str
    object: bytes
    kdf: Cost
    nonce: bytes
    box: bytes


@dataclass(frozen=True, slots=True)
class OwnerKeys:
    """An owner's private keys, in memory only. The owner is a principal: 权属主体."""

    signing: SigningKey
    sealing: SealingKey
    principal: Principal
    envelope: bytes = field(repr=False)  # the signed principal object, as it travels

    @property
    def owner(self) -> PrincipalId:
        """The owner's id, as gateways pin it."""
        return self.principal.principal


def create(
    path: Path,
    name: str,
    passphrase: bytes,
    *,
    randomness: Randomness,
    cost: Cost | None = None,
) -> OwnerKeys:
    """Make new keys and write them durably; never over an existing file.

    Raises FileExistsError, OSError.
    """
    seed, private = randomness(32), randomness(32)
    signing, sealing = SigningKey(seed), SealingKey(private)
    envelope = make_principal(signing, sealing.public, kind="owner", nonce=randomness(16))
    keys = OwnerKeys(signing, sealing, _opened(envelope.raw, signing.principal), envelope.raw)
    chosen = cost or Cost()
    kdf = Cost(passes=chosen.passes, memory_bytes=chosen.memory_bytes, salt=randomness(16))
    nonce = randomness(suite(_SUITE).nonce_bytes)
    shown = show(keys.owner)
    bare = _File(
        format=FORMAT,
        name=name,
        principal=shown,
        object=envelope.raw,
        kdf=kdf,
        nonce=nonce,
        box=b"",
    )
    box = suite(_SUITE).aead_seal(_stretch(passphrase, kdf), nonce, _bound(bare), seed + private)
    sealed = msgspec.structs.replace(bare, box=box)
    create_file(path, msgspec.json.format(msgspec.json.encode(sealed)) + b"\n")
    return keys


def read_public(path: Path) -> tuple[str, Principal]:
    """The name and the verified principal of a key file; needs no passphrase.

    Raises ConfigError where there is no key file of ours, VerifyError where it was changed.
    """
    found = _read(path)
    principal = _opened(found.object, None)
    if show(principal.principal) != found.principal:
        raise VerifyError(Code.BINDING_MISMATCH, field="principal", value=found.principal)
    return found.name, principal


def read_object(path: Path) -> bytes:
    """The owner's signed principal object as it travels; needs no passphrase. Raises as above."""
    read_public(path)
    return _read(path).object


def unlock(path: Path, passphrase: bytes) -> OwnerKeys:
    """Open a key file.

    Raises VerifyError AUTHENTICATION_FAILED for a wrong passphrase or a changed file, ConfigError.
    """
    found = _read(path)
    _, principal = read_public(path)
    key = _stretch(passphrase, found.kdf)
    bare = msgspec.structs.replace(found, box=b"")
    plain = suite(_SUITE).aead_open(key, found.nonce, _bound(bare), found.box)
    signing, sealing = SigningKey(plain[:32]), SealingKey(plain[32:])
    if signing.public != principal.signing_key or sealing.public != principal.sealing_key:
        raise VerifyError(Code.BINDING_MISMATCH, field="principal", value=found.principal)
    return OwnerKeys(signing, sealing, principal, found.object)


def copy(path: Path, target: Path, passphrase: bytes) -> None:
    """Copy a key file to another place after opening it, and open the copy: 备份.

    Raises what `unlock` raises, FileExistsError, OSError.
    """
    unlock(path, passphrase)
    create_file(target, path.read_bytes())
    unlock(target, passphrase)


def _opened(raw: bytes, pin: PrincipalId | None) -> Principal:
    """The principal in an envelope, verified under the id that it claims or that is pinned."""
    envelope = parse(raw)
    return open_principal(envelope, pin if pin is not None else PrincipalId(envelope.signer))


def _read(path: Path) -> _File:
    try:
        with path.open("rb") as file:
            data = file.read(_FILE_BYTES_MAX + 1)
        found = msgspec.json.decode(data, type=_File)
    except FileNotFoundError:
        raise ConfigError(Code.NOT_FOUND, field="key", value=str(path)) from None
    except msgspec.DecodeError as error:
        raise ConfigError(Code.MALFORMED, field="key", value=str(path), expected=FORMAT) from error
    good = (
        len(data) <= _FILE_BYTES_MAX
        and found.format == FORMAT
        and found.kdf.name == "argon2id"
        and len(found.kdf.salt) == argon2id.SALTBYTES
        and 1 <= found.kdf.passes <= _PASSES_MAX
        and argon2id.MEMLIMIT_MIN <= found.kdf.memory_bytes <= _MEMORY_BYTES_MAX
        and len(found.nonce) == suite(_SUITE).nonce_bytes
        and len(found.box) == _BOX_BYTES
    )
    if not good:
        raise ConfigError(Code.MALFORMED, field="key", value=str(path), expected=FORMAT)
    return found


def _bound(bare: _File) -> bytes:
    """Everything in the file but the box, as associated data."""
    return _TAG + wire.encode(bare)


def _stretch(passphrase: bytes, cost: Cost) -> bytes:
    try:
        return argon2id.kdf(
            suite(_SUITE).key_bytes,
            passphrase,
            cost.salt,
            opslimit=cost.passes,
            memlimit=cost.memory_bytes,
        )
    except (nacl.exceptions.CryptoError, MemoryError) as error:
        raise ConfigError(
            Code.OUT_OF_BOUNDS, field="kdf", value=cost.memory_bytes, expected="free memory"
        ) from error


__all__ = [
    "PASSPHRASE_CHARS_MIN",
    "Cost",
    "OwnerKeys",
    "copy",
    "create",
    "read_object",
    "read_public",
    "unlock",
]
