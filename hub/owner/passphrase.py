"""Where a passphrase comes from: a prompt, a file or a descriptor. Never an argument."""

import getpass
import os
from pathlib import Path
from typing import Final

from protocol.errors import Code, ConfigError

_BYTES_MAX: Final = 4096


def from_file(path: Path) -> bytes:
    """The file's first line. Raises ConfigError where there is none."""
    try:
        with path.open("rb") as file:
            return _first_line(file.read(_BYTES_MAX), str(path))
    except OSError as error:
        raise ConfigError(Code.NOT_FOUND, field="passphrase-file", value=str(path)) from error


def from_descriptor(descriptor: int) -> bytes:
    """The first line of an open descriptor, read to its end. Raises ConfigError."""
    found = b""
    try:
        while len(found) < _BYTES_MAX and (more := os.read(descriptor, _BYTES_MAX)):
            found += more
    except OSError as error:
        raise ConfigError(
            Code.NOT_FOUND, field="passphrase-fd", value=descriptor, expected="an open descriptor"
        ) from error
    return _first_line(found, str(descriptor))


def from_prompt(prompt: str, again: str | None = None) -> bytes:
    """What somebody types, twice if `again` asks for it. Raises ConfigError if they differ."""
    typed = getpass.getpass(prompt)
    if again is not None and getpass.getpass(again) != typed:
        raise ConfigError(Code.CONFLICT, field="passphrase", expected="the same twice")
    return typed.encode()


def _first_line(data: bytes, where: str) -> bytes:
    line = data.split(b"\n", 1)[0].rstrip(b"\r")
    if not line:
        raise ConfigError(
            Code.MISSING_FIELD, field="passphrase", value=where, expected="a line of text"
        )
    return line
