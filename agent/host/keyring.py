"""Keys at rest: the root key and, sealed under it, the agent's identity.

The root key comes from a systemd credential where there is one (sealed to the TPM by
`systemd-creds encrypt --with-key=tpm2`), else from a 0600 file. A file protects copies, backups
and freed pages, not a stolen device; `doctor` says which one it is.
"""

import os
import re
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from agent.host.faults import Exit, Fault
from agent.store import files
from agent.store.rest import RootKey
from protocol.envelope import SealingKey, SigningKey
from protocol.errors import DecodeError

CREDENTIAL: Final = "shanmen-root-key"
KEY_BYTES: Final = 32
_IDENTITY: Final = b"identity"
_PSEUDONYM: Final = b"pseudonym"
_SECRET_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
PSEUDONYM: Final = "pseudonym"
_FILE_BYTES_MAX: Final = 65_536


class _Seeds(msgspec.Struct, frozen=True, kw_only=True):
    """What the identity file holds, before sealing."""

    signing: bytes  # 32, Ed25519 seed
    sealing: bytes  # 32, X25519 private key

    def __repr__(self) -> str:
        return "•••"


@dataclass(frozen=True, slots=True)
class AgentKeys:
    """The agent's own two key pairs; their own `repr` hides them."""

    signing: SigningKey
    sealing: SealingKey


class Keyring:
    """The `keys` folder of one agent (0700); all methods are blocking and small."""

    def __init__(self, folder: Path, env: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self._env = os.environ if env is None else env

    @property
    def identity_file(self) -> Path:
        """Where the sealed identity lies."""
        return self.folder / "identity"

    @property
    def root_source(self) -> str:
        """Where the root key lives: `credential` or `file`, for `doctor` and the hub."""
        return "file" if self._credential(CREDENTIAL) is None else "credential"

    def root_key(self) -> RootKey:
        """The root key, for what this keyring keeps. Raises Fault."""
        return RootKey(self.root_bytes(), secrets.token_bytes)

    def root_bytes(self) -> bytes:
        """The root key as the core wants it; made on first use where no credential gives it.

        Raises Fault if it has the wrong size or others can read its file.
        """
        credential = self._credential(CREDENTIAL)
        if credential is not None:
            return _root_bytes(credential)
        path = self.folder / "root.key"
        if not path.exists():
            if self.identity_file.exists():
                # A new root key would look like a fresh start and orphan everything sealed so far.
                raise Fault(Exit.KEYS, "root-key-missing", file=path)
            files.make_folder(self.folder)
            files.save(path, secrets.token_bytes(KEY_BYTES))
        if path.stat().st_mode & _OTHERS:
            raise Fault(Exit.KEYS, "root-key-permissions", file=path)
        return _root_bytes(path)

    def keys(self, root: RootKey) -> AgentKeys | None:
        """The agent's keys; None before the first enrolment. Raises Fault."""
        try:
            box = self.identity_file.read_bytes()[:_FILE_BYTES_MAX]
        except FileNotFoundError:
            return None
        try:
            seeds = msgspec.msgpack.decode(root.unwrap(_IDENTITY, box), type=_Seeds)
        except (DecodeError, msgspec.MsgspecError) as error:
            raise Fault(Exit.KEYS, "identity-unreadable", file=self.identity_file) from error
        return AgentKeys(SigningKey(seeds.signing), SealingKey(seeds.sealing))

    def keys_or_new(self, root: RootKey) -> AgentKeys:
        """The agent's keys, made and durable if there were none."""
        keys = self.keys(root)
        if keys is not None:
            return keys
        seeds = _Seeds(
            signing=secrets.token_bytes(KEY_BYTES), sealing=secrets.token_bytes(KEY_BYTES)
        )
        files.make_folder(self.folder)
        files.save(self.identity_file, root.wrap(_IDENTITY, msgspec.msgpack.encode(seeds)))
        return AgentKeys(SigningKey(seeds.signing), SealingKey(seeds.sealing))

    def secret(self, name: str, root: RootKey) -> str | None:
        """A secret that the configuration names, e.g. a broker's login; None if there is none.

        From the systemd credential `shanmen-<name>`, else from `keys/secrets/<name>` (0600). The
        secret `pseudonym`, the site's key for 化名, is made when first asked for and then kept.
        """
        if _SECRET_NAME.fullmatch(name) is None:
            return None
        path = self._credential(f"shanmen-{name}") or self.folder / "secrets" / name
        if path.is_file():
            if path.parent.name == "secrets" and path.stat().st_mode & _OTHERS:
                raise Fault(Exit.KEYS, "root-key-permissions", file=path)
            return path.read_bytes()[:_FILE_BYTES_MAX].decode("utf-8", "replace").rstrip("\r\n")
        return self._pseudonym(root) if name == PSEUDONYM else None

    def _pseudonym(self, root: RootKey) -> str:
        path = self.folder / PSEUDONYM
        if not path.exists():
            files.make_folder(self.folder)
            files.save(path, root.wrap(_PSEUDONYM, secrets.token_bytes(KEY_BYTES)))
        try:
            return root.unwrap(_PSEUDONYM, path.read_bytes()).hex()
        except DecodeError as error:
            raise Fault(Exit.KEYS, "identity-unreadable", file=path) from error

    def _credential(self, name: str) -> Path | None:
        folder = self._env.get("CREDENTIALS_DIRECTORY")
        if not folder:
            return None
        path = Path(folder) / name
        return path if path.is_file() else None


def _root_bytes(path: Path) -> bytes:
    key = path.read_bytes()[: KEY_BYTES + 1]
    if len(key) != KEY_BYTES:
        raise Fault(Exit.KEYS, "root-key-size", file=path, size=path.stat().st_size)
    return key
