"""What the owner's tool pinned and last saw of each hub: `<key file>.hubs.json`, 0600.

The hub's id came with a token that a person handed over; its keys were verified under that id; the
checkpoint is the newest whose consistency with all earlier ones was proven. Nothing here is secret,
and losing it loses only memory: the next reading cannot see that the ledger went back.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from hub.files import save
from protocol.checkpoint import Checkpoint, LogKey, log_origin, parse_note, verify_note
from protocol.errors import Code, ConfigError
from protocol.ids import PrincipalId

_BYTES_MAX: Final = 16 << 20


class Top(msgspec.Struct, frozen=True, kw_only=True):
    """The last segment that was shown of a stream; the hub may never show less."""

    resource: str  # shown id
    stream: bytes  # 16
    seq: int
    segment: bytes  # 32


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """One hub."""

    hub: bytes  # 16, principal id
    url: str  # where it was last reached
    ca: str = ""  # PEM file of its own certificate authority
    signing_key: bytes  # 32, verified under `hub`
    log_key: bytes  # 32, told by the hub in a signed envelope
    generation: int  # of its ledger
    checkpoint: str = ""  # newest note that was verified; empty before the first
    agents: dict[str, bytes] = {}  # shown agent id → public signing key, verified under the id
    #: "agent/generation" → leaves of that ledger whose segments were all accounted for
    scanned: dict[str, int] = {}
    tops: dict[str, Top] = {}  # "resource/stream" → its last segment that was shown

    def last(self) -> Checkpoint | None:
        """The newest checkpoint seen, verified again: files can be changed."""
        if not self.checkpoint:
            return None
        return verify_note(self.checkpoint, self.log(self.generation))

    def log(self, generation: int) -> LogKey:
        """The verifier key of one generation of the ledger."""
        return LogKey(log_origin(PrincipalId(self.hub), generation), self.log_key)


class _Hubs(msgspec.Struct, frozen=True, kw_only=True):
    hubs: list[Known] = []


class Memory:
    """The file beside the key file; commands that run at the same time do not undo each other."""

    def __init__(self, key: Path) -> None:
        self.path = key.with_name(key.name + ".hubs.json")
        self._hubs = self._read()

    def find(self, url: str | None) -> Known:
        """The hub at this address, or the only one. Raises ConfigError."""
        found = [one for one in self._hubs if url is None or one.url == url.rstrip("/")]
        if len(found) != 1:
            known = ", ".join(one.url for one in self._hubs) or "-"
            raise ConfigError(
                Code.NOT_FOUND, field="hub", value=url or "", expected=f"--hub, one of: {known}"
            )
        return found[0]

    def get(self, hub: PrincipalId) -> Known | None:
        """What is known of a hub."""
        return next((one for one in self._hubs if one.hub == hub), None)

    def put(self, known: Known) -> None:
        """Remember durably, but never an older ledger than is remembered. Raises OSError."""
        with _locked(self.path.with_name(self.path.name + ".lock")):
            self._hubs = self._read()
            before = self.get(PrincipalId(known.hub))
            if before is not None and _place(before) > _place(known):
                known = msgspec.structs.replace(
                    known, generation=before.generation, checkpoint=before.checkpoint
                )
            self._hubs = [one for one in self._hubs if one.hub != known.hub] + [known]
            data = msgspec.json.encode(_Hubs(hubs=self._hubs))
            save(self.path, msgspec.json.format(data) + b"\n")

    def _read(self) -> list[Known]:
        try:
            with self.path.open("rb") as file:
                return msgspec.json.decode(file.read(_BYTES_MAX), type=_Hubs).hubs
        except FileNotFoundError:
            return []
        except msgspec.DecodeError as error:
            raise ConfigError(
                Code.MALFORMED,
                field="hubs",
                value=str(self.path),
                expected="a file of this tool: move it away and run `shanmen principal add` again",
            ) from error


def _place(known: Known) -> tuple[int, int]:
    """How far a hub's ledger was seen."""
    return known.generation, parse_note(known.checkpoint).size if known.checkpoint else 0


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
