r"""Checkpoints: the ledger's size and root in a C2SP signed note (tlog-checkpoint).

    origin \n size \n base64 root \n        the text, no extension lines
    \n
    — name base64(key hash 4 ‖ signature)\n   one or more signature lines

The origin's last component is the ledger's generation, `…/7`. A log signs under its origin's name,
so a key's hash belongs to one generation; the key itself stays. Signature type 0x01, Ed25519.
Lines of keys that we do not know are ignored, as the note format asks.
"""

import base64
import binascii
import re
from dataclasses import dataclass
from hashlib import sha256

from msgspec import Struct

from protocol.envelope import SigningKey
from protocol.errors import Code, DecodeError, TooLargeError, VerifyError
from protocol.ids import PrincipalId, show
from protocol.limits import NOTE_BYTES_MAX
from protocol.merkle import HASH_BYTES
from protocol.suites import suite

_ED25519 = 0x01
_SIGNATURES_MAX = 16
_SIZE_MAX = 2**63 - 1
_HASH_TEXT = re.compile(r"[0-9a-f]{8}", re.ASCII)
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


class Checkpoint(Struct, frozen=True, kw_only=True):
    """The state of a ledger at one moment, and the note that says so."""

    origin: str  # which ledger
    size: int  # leaves
    root: bytes  # 32
    generation: int  # last component of the origin
    text: str  # the whole signed note


@dataclass(frozen=True, slots=True)
class LogKey:
    """A note's verifier key: `name+hash+base64(type ‖ public key)`."""

    name: str
    public: bytes  # Ed25519, 32

    @property
    def hash(self) -> bytes:
        """First 4 bytes of SHA-256(name ‖ 0x0A ‖ type ‖ public key)."""
        return sha256(self.name.encode() + b"\n" + bytes([_ED25519]) + self.public).digest()[:4]

    @property
    def text(self) -> str:
        """The verifier key as people pass it on."""
        key = base64.b64encode(bytes([_ED25519]) + self.public).decode()
        return f"{self.name}+{self.hash.hex()}+{key}"

    @classmethod
    def parse(cls, text: str) -> "LogKey":
        """Read a verifier key. Raises DecodeError, also if its hash is another key's."""
        parts = text.split("+", 2)
        if len(parts) != 3 or not _is_name(parts[0]) or not _HASH_TEXT.fullmatch(parts[1]):
            raise DecodeError(Code.MALFORMED, field="log key", value=text)
        raw = _base64(parts[2], "log key")
        if len(raw) != 33 or raw[0] != _ED25519:
            raise DecodeError(Code.MALFORMED, field="log key", value=text, expected="Ed25519")
        key = cls(parts[0], raw[1:])
        if key.hash.hex() != parts[1]:
            raise DecodeError(Code.CHECKSUM, field="log key", value=text)
        return key


def log_origin(hub: PrincipalId, generation: int) -> str:
    """The origin of a hub's ledger: needs no domain name, and no two hubs share it."""
    return f"shanmen-hub/{show(hub)}/{generation}"


def vkey_text(origin: str, public: bytes) -> str:
    """The verifier key of the log that signs as `origin` with this Ed25519 key."""
    return LogKey(origin, public).text


def generation_of(origin: str) -> int:
    """The ledger's generation, the origin's last component. Raises DecodeError."""
    base, _, last = origin.rpartition("/")
    if not base or not _NUMBER.fullmatch(last):
        raise DecodeError(Code.MALFORMED, field="origin", value=origin, expected="…/generation")
    return int(last)


def same_log(origin: str, other: str) -> bool:
    """Whether two origins are generations of one ledger."""
    return origin.rpartition("/")[0] == other.rpartition("/")[0]


def make_note(origin: str, size: int, root: bytes, signer: SigningKey) -> str:
    """Sign a checkpoint under the origin's name. Deterministic: any process makes the same note."""
    note = sign_note(f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n", origin, signer)
    parse_note(note)
    return note


def sign_note(text: str, name: str, signer: SigningKey) -> str:
    """A signed note of any text that ends in a line feed. Raises DecodeError for a bad text."""
    _check_text(text)
    line = base64.b64encode(LogKey(name, signer.public).hash + signer.sign(text.encode())).decode()
    return f"{text}\n— {name} {line}\n"


def parse_note(note: str) -> Checkpoint:
    """Read a checkpoint; believe nothing of it yet. Raises DecodeError."""
    text, _ = _split(note)
    lines = text.split("\n")
    if len(lines) != 4:
        raise DecodeError(Code.CHECKPOINT_INVALID, field="note", value=text, expected="3 lines")
    origin, size, root, _ = lines
    if not _is_name(origin) or not _NUMBER.fullmatch(size) or int(size) > _SIZE_MAX:
        raise DecodeError(Code.CHECKPOINT_INVALID, field="size", value=size)
    digest = _base64(root, "root")
    if len(digest) != HASH_BYTES:
        raise DecodeError(Code.CHECKPOINT_INVALID, field="root", value=root)
    return Checkpoint(
        origin=origin, size=int(size), root=digest, generation=generation_of(origin), text=note
    )


def verify_note(note: str, vkey: str | LogKey, *, origin: str | None = None) -> Checkpoint:
    """A checkpoint that this log signed. Raises VerifyError, DecodeError.

    origin: what it must be; by default the verifier key's name.
    """
    key = LogKey.parse(vkey) if isinstance(vkey, str) else vkey
    open_note(note, key)
    checkpoint = parse_note(note)
    if checkpoint.origin != (key.name if origin is None else origin):
        raise VerifyError(Code.CHECKPOINT_INVALID, field="origin", value=checkpoint.origin)
    return checkpoint


def open_note(note: str, vkey: str | LogKey) -> str:
    """The text of a note that this key signed; lines of other keys are ignored.

    Raises VerifyError, DecodeError.
    """
    key = LogKey.parse(vkey) if isinstance(vkey, str) else vkey
    text, signatures = _split(note)
    ours = [raw[4:] for name, raw in signatures if name == key.name and raw[:4] == key.hash]
    if not ours:
        raise VerifyError(Code.CHECKPOINT_INVALID, field="signature", expected=f"by {key.name}")
    for signature in ours:
        suite(1).verify(key.public, text.encode(), signature)
    return text


def _split(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    """Text and signatures (name, key hash ‖ signature) of a note."""
    if len(note) > NOTE_BYTES_MAX:
        raise TooLargeError(
            Code.TOO_LARGE, field="note", value=len(note), expected=f"≤ {NOTE_BYTES_MAX}"
        )
    text, gap, lines = note.rpartition("\n\n")
    text += "\n"
    if not gap or not lines.endswith("\n"):
        raise DecodeError(Code.CHECKPOINT_INVALID, field="note", expected="text and signatures")
    _check_text(text)
    signatures = [_signature(line) for line in lines[:-1].split("\n")]
    if len(signatures) > _SIGNATURES_MAX:
        raise TooLargeError(Code.TOO_LARGE, field="signatures", value=len(signatures))
    return text, signatures


def _signature(line: str) -> tuple[str, bytes]:
    mark, _, rest = line.partition(" ")
    name, _, coded = rest.partition(" ")
    raw = _base64(coded, "signature")
    if mark != "—" or not _is_name(name) or len(raw) < 5:
        raise DecodeError(Code.CHECKPOINT_INVALID, field="signature", value=line)
    return name, raw


def _check_text(text: str) -> None:
    controls = any(c < " " and c != "\n" for c in text)
    if not text.endswith("\n") or controls or not _is_utf8(text):
        raise DecodeError(Code.CHECKPOINT_INVALID, field="text", expected="lines of plain text")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_name(name: str) -> bool:
    return bool(name) and "+" not in name and not any(c.isspace() for c in name) and _is_utf8(name)


def _base64(text: str, field: str) -> bytes:
    """Standard base64 with padding, in the one spelling there is."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DecodeError(Code.MALFORMED, field=field, value=text, expected="base64") from error
    if base64.b64encode(raw).decode() != text:
        raise DecodeError(Code.MALFORMED, field=field, value=text, expected="base64")
    return raw
