"""The hub's own keys: signing, sealing, log; files of mode 0600 in a folder of mode 0700.

`hub` signs envelopes, `log` signs checkpoints, `sealing` opens what is sealed to the hub as an
ordinary grantee. One line a file: format, use, base64 of 32 bytes. They never stand in the
database, in a log line or in an answer.
"""

import base64
import binascii
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from protocol.envelope import SealingKey, SigningKey
from protocol.errors import Code, ConfigError
from protocol.ids import PrincipalId

FOLDER: Final = "keys"
_FORMAT: Final = "SMHK1"
_USES: Final = ("signing", "sealing", "log")


@dataclass(frozen=True, slots=True, kw_only=True)
class HubKeys:
    """What the hub signs and opens with; `repr` shows ids only."""

    signing: SigningKey
    sealing: SealingKey
    log: SigningKey = field(repr=False)

    @property
    def hub(self) -> PrincipalId:
        """The hub's principal id: that of its first signing key."""
        return self.signing.principal


def _write(path: Path, use: str, seed: bytes) -> None:
    """Write one key durably: open O_EXCL 0600, write, fsync; the caller syncs the folder."""
    line = f"{_FORMAT} {use} {base64.b64encode(seed).decode()}\n".encode()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(handle, line)
        os.fsync(handle)
    finally:
        os.close(handle)


def make(data: Path, random: Callable[[int], bytes]) -> HubKeys:
    """Make and write new keys. Raises ConfigError if any exist: keys are never overwritten.

    data: the hub's data folder. random: source of secret bytes (`secrets.token_bytes`).
    """
    folder = data / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    for use in _USES:
        path = folder / f"{use}.key"
        if path.exists():
            raise ConfigError(
                Code.CONFIG_INVALID, field=str(path), expected="no key: this folder has a hub"
            )
    for use in _USES:
        _write(folder / f"{use}.key", use, random(32))
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    return read(data)


def _read(path: Path, use: str) -> bytes:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        words = path.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            Code.CONFIG_INVALID, field=str(path), expected="a readable key file (see `init`)"
        ) from error
    if mode & 0o077:
        raise ConfigError(
            Code.CONFIG_INVALID, field=str(path), value=f"{mode:04o}", expected="mode 0600"
        )
    try:
        name, found, text = words
        seed = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        name, found, seed = "", "", b""
    if (name, found) != (_FORMAT, use) or len(seed) != 32:
        raise ConfigError(
            Code.CONFIG_INVALID, field=str(path), expected=f"`{_FORMAT} {use} <base64>`"
        )
    return seed


def read(data: Path) -> HubKeys:
    """Read the keys of a data folder. Raises ConfigError: missing, damaged, readable by others."""
    seeds = {use: _read(data / FOLDER / f"{use}.key", use) for use in _USES}
    return HubKeys(
        signing=SigningKey(seeds["signing"]),
        sealing=SealingKey(seeds["sealing"]),
        log=SigningKey(seeds["log"]),
    )
