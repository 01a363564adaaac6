"""Errors by who must act, and one table of codes.

    ShanmenError
    ├── ConfigError        the technician: configuration, packs, commands
    ├── DecodeError        the peer's data cannot be read
    │   └── TooLargeError  … because a bound is exceeded
    ├── VerifyError        the peer's data can be read and must not be believed
    ├── RefusedError       the other side said no, for good, with a reason
    ├── UnavailableError   try later: nothing is wrong with the data
    └── FatalError         state unknown: stop, reload, look

Retry looks at the class, never at a message. Texts for people are looked up by `Code.key`.
"""

import re
from enum import Enum
from typing import NamedTuple


class CodeInfo(NamedTuple):
    """What a code means outside: its number, its HTTP status, its message key."""

    number: int  # stable for ever; 1xx configuration, 2xx decode, 3xx verify, 4xx refused, …
    http_status: int  # what the hub answers when this is the outcome of a request
    key: str  # lower case with dashes: in answers, and in the message catalogues


class Code(Enum):
    """Every machine-readable reason there is."""

    # 1xx: the technician's
    CONFIG_INVALID = CodeInfo(101, 400, "config-invalid")  # a key, type or value of a file
    PACK_INVALID = CodeInfo(102, 400, "pack-invalid")  # a domain pack contradicts itself
    COMMAND_INVALID = CodeInfo(103, 400, "command-invalid")  # arguments of a command
    # 2xx: cannot be read
    MALFORMED = CodeInfo(201, 400, "malformed")  # not what the format says
    TOO_LARGE = CodeInfo(202, 413, "too-large")  # a bound of limits.py
    TOO_DEEP = CodeInfo(203, 400, "too-deep")  # msgpack deeper than DEPTH_MAX
    DUPLICATE_KEY = CodeInfo(204, 400, "duplicate-key")  # one key twice in a map
    NOT_FINITE = CodeInfo(205, 400, "not-finite")  # NaN or an infinity
    INVALID_UTF8 = CodeInfo(206, 400, "invalid-utf8")
    TRAILING_BYTES = CodeInfo(207, 400, "trailing-bytes")  # something after the object
    EXTENSION_TYPE = CodeInfo(208, 400, "extension-type")  # msgpack extension or timestamp
    WRONG_TYPE = CodeInfo(209, 400, "wrong-type")  # a field is not what its struct says
    UNKNOWN_FIELD = CodeInfo(210, 400, "unknown-field")  # in a signed object
    MISSING_FIELD = CodeInfo(211, 400, "missing-field")
    UNKNOWN_KIND = CodeInfo(212, 400, "unknown-kind")  # kind outside the closed list
    UNKNOWN_SUITE = CodeInfo(213, 400, "unknown-suite")
    UNKNOWN_VERSION = CodeInfo(214, 400, "unknown-version")  # of a format
    CHECKSUM = CodeInfo(215, 400, "checksum")  # mistyped id or token
    OUT_OF_BOUNDS = CodeInfo(216, 400, "out-of-bounds")  # a number outside its range
    CONTENT_CODING = CodeInfo(217, 415, "content-coding")  # the protocol has none
    MEDIA_TYPE = CodeInfo(218, 415, "media-type")
    # 3xx: must not be believed
    SIGNATURE_INVALID = CodeInfo(301, 401, "signature-invalid")
    UNKNOWN_KEY = CodeInfo(302, 401, "unknown-key")  # no such key id here
    WRONG_SIGNER = CodeInfo(303, 401, "wrong-signer")  # a good signature of somebody else
    SIGNATURE_COUNT = CodeInfo(304, 400, "signature-count")  # too few, too many, the same twice
    WEAK_KEY = CodeInfo(305, 400, "weak-key")  # small order, all zero
    HASH_MISMATCH = CodeInfo(306, 400, "hash-mismatch")
    AUTHENTICATION_FAILED = CodeInfo(307, 400, "authentication-failed")  # AEAD or sealed box
    COMMITMENT_MISMATCH = CodeInfo(308, 400, "commitment-mismatch")  # another key than declared
    BINDING_MISMATCH = CodeInfo(309, 400, "binding-mismatch")  # parts of one object disagree
    PROOF_INVALID = CodeInfo(310, 400, "proof-invalid")  # Merkle path
    CHECKPOINT_INVALID = CodeInfo(311, 400, "checkpoint-invalid")  # signed note
    CONSISTENCY_INVALID = CodeInfo(312, 400, "consistency-invalid")  # ledger was rewritten
    TREE_SMALLER = CodeInfo(313, 400, "tree-smaller")  # older checkpoint of the same generation
    GENERATION_UNKNOWN = CodeInfo(314, 400, "generation-unknown")
    ANSWER_FOR_OTHER_REQUEST = CodeInfo(315, 400, "answer-for-other-request")
    WRONG_HUB = CodeInfo(316, 421, "wrong-hub")  # meant for another hub
    WRONG_AGENT = CodeInfo(317, 400, "wrong-agent")
    EXPIRED = CodeInfo(318, 401, "expired")
    CLOCK_SKEW = CodeInfo(319, 401, "clock-skew")  # created too far from the hub's time
    REPLAYED = CodeInfo(320, 401, "replayed")  # nonce or number used before
    DIGEST_MISMATCH = CodeInfo(321, 400, "digest-mismatch")  # content-digest and body
    SIGNATURE_MISSING = CodeInfo(322, 401, "signature-missing")
    # 4xx: no
    TOKEN_UNKNOWN = CodeInfo(401, 403, "token-unknown")
    TOKEN_USED = CodeInfo(402, 409, "token-used")
    TOKEN_EXPIRED = CodeInfo(403, 403, "token-expired")
    UNKNOWN_RESOURCE = CodeInfo(404, 404, "unknown-resource")
    UNKNOWN_AGENT = CodeInfo(405, 403, "unknown-agent")
    AGENT_WAITING = CodeInfo(406, 403, "agent-waiting")  # not approved yet
    AGENT_SUSPENDED = CodeInfo(407, 403, "agent-suspended")
    GRADE_FORBIDDEN = CodeInfo(408, 403, "grade-forbidden")  # table 7-2 says no
    NOT_OWNER = CodeInfo(409, 403, "not-owner")
    NOT_ALLOWED = CodeInfo(410, 403, "not-allowed")
    NOT_FOUND = CodeInfo(411, 404, "not-found")
    FORK = CodeInfo(412, 409, "fork")  # used seq with another id
    OVERLAP = CodeInfo(413, 409, "overlap")  # rows that another segment has
    GAP = CodeInfo(414, 409, "gap")  # seq beyond the next
    ENTRY_MISMATCH = CodeInfo(415, 409, "entry-mismatch")  # grade or suite differs from the entry
    SECRECY_FORBIDDEN = CodeInfo(416, 403, "secrecy-forbidden")  # above 公开 never enters
    OWNER_UNCONFIRMED = CodeInfo(417, 403, "owner-unconfirmed")
    VERSION_UNSUPPORTED = CodeInfo(418, 426, "version-unsupported")  # both versions are named
    PLAIN_HTTP = CodeInfo(419, 403, "plain-http")
    CLONE_SUSPECTED = CodeInfo(420, 409, "clone-suspected")  # two runs alternate
    METHOD = CodeInfo(421, 405, "method")
    CONFLICT = CodeInfo(422, 409, "conflict")  # another version is in force
    STREAM_UNKNOWN = CodeInfo(423, 409, "stream-unknown")
    # 5xx: later
    BUSY = CodeInfo(501, 503, "busy")
    RATE_LIMITED = CodeInfo(502, 429, "rate-limited")
    DISK_FULL = CodeInfo(503, 503, "disk-full")
    UNREACHABLE = CodeInfo(504, 503, "unreachable")
    TIMEOUT = CodeInfo(505, 408, "timeout")
    STOPPING = CodeInfo(506, 503, "stopping")
    TOO_SLOW = CodeInfo(507, 408, "too-slow")  # a sender below the floor
    # 9xx: state unknown
    INTERNAL = CodeInfo(901, 500, "internal")
    STORAGE_UNKNOWN = CodeInfo(902, 503, "storage-unknown")  # a COMMIT or fsync failed
    STORAGE_DAMAGED = CodeInfo(903, 503, "storage-damaged")

    @property
    def number(self) -> int:
        """The stable number of this code."""
        return self.value.number

    @property
    def http_status(self) -> int:
        """The HTTP status that the hub answers with."""
        return self.value.http_status

    @property
    def key(self) -> str:
        """The key of its text in the message catalogues."""
        return self.value.key

    @classmethod
    def from_key(cls, key: str) -> "Code":
        """Give the code of a key that a peer sent; an unknown key is `MALFORMED`."""
        return _BY_KEY.get(key, cls.MALFORMED)


_BY_KEY = {code.value.key: code for code in Code}

_LINE_MAX = 300
_TEXT_SHOWN_MAX = 80
# An enrolment token, or what is left of one, pasted in the wrong place.
_TOKEN = re.compile(r"SM1-?[A-Z2-7]{8,}", re.IGNORECASE)
_BYTES_SHOWN_MAX = 16


def shown(value: object) -> str:
    """Give a value as it may stand in a log line: short, on one line, and never of a secret's type.

    Texts are quoted and escaped (no line break or control character survives), bytes are hex.
    Anything but plain values shows its type only, so that no key object can print itself.
    """
    if value is None or isinstance(value, bool | int | float):
        return repr(value)[:_TEXT_SHOWN_MAX]
    if isinstance(value, str):
        value = _TOKEN.sub("SM1-•••", value)
        cut = value[:_TEXT_SHOWN_MAX]
        return ascii(cut) if not cut.isprintable() else repr(cut) + ("…" * (len(value) > len(cut)))
    if isinstance(value, bytes | bytearray | memoryview):
        head = bytes(value[:_BYTES_SHOWN_MAX]).hex()
        return head if len(value) <= _BYTES_SHOWN_MAX else f"{head}… ({len(value)} bytes)"
    if isinstance(value, list | tuple | dict | set | frozenset):
        return f"{type(value).__name__} of {len(value)}"
    return type(value).__name__


def one_line(text: str) -> str:
    """Give a text that may hold a peer's words as one short printable line: no log injection."""
    if len(text) > _LINE_MAX:
        text = text[:_LINE_MAX] + "…"
    return text if text.isprintable() else ascii(text)[1:-1]


class ShanmenError(Exception):
    """The base of all errors of ours: what is wrong, where, with which value, what would be right.

    code: the reason; field: path of the field ("" for the whole); value: kept short by `shown`;
    expected: in words.
    """

    def __init__(
        self, code: Code, *, field: str = "", value: object = None, expected: str = ""
    ) -> None:
        self.code = code
        self.field = one_line(field)  # keys of a peer's map stand in it
        self.value = shown(value)
        self.expected = one_line(expected)
        super().__init__(code, self.field, self.value, self.expected)

    def __str__(self) -> str:
        parts = [self.code.key]
        if self.field:
            parts.append(f"at {self.field}")
        if self.value != "None":
            parts.append(f"got {self.value}")
        if self.expected:
            parts.append(f"expected {self.expected}")
        return ": ".join((parts[0], ", ".join(parts[1:]))) if parts[1:] else parts[0]


class ConfigProblem(NamedTuple):
    """One mistake in a configuration or pack."""

    path: str  # key path, "fields[3].codes"
    value: str  # as `shown` gives it
    expected: str  # what would be right


class ConfigError(ShanmenError):
    """The technician must act: a file or command is wrong; `problems` lists all of it at once."""

    def __init__(
        self,
        code: Code,
        *,
        field: str = "",
        value: object = None,
        expected: str = "",
        problems: tuple[ConfigProblem, ...] = (),
    ) -> None:
        super().__init__(code, field=field, value=value, expected=expected)
        given = problems or (ConfigProblem(field, self.value, expected),)
        self.problems = tuple(ConfigProblem(*map(one_line, problem)) for problem in given)

    def __str__(self) -> str:
        listed = "; ".join(f"{p.path} = {p.value}: {p.expected}" for p in self.problems)
        return f"{self.code.key}: {listed}"


class DecodeError(ShanmenError):
    """The peer's data cannot be read; sending the same bytes again will not help."""


class TooLargeError(DecodeError):
    """A declared or real length is over its bound in `limits`."""


class VerifyError(ShanmenError):
    """The peer's data can be read and must not be believed."""


class RefusedError(ShanmenError):
    """The other side (or a rule of ours) said no, for good."""


class UnavailableError(ShanmenError):
    """Not now: link, load, disk. Never a reason to drop anything."""


class FatalError(ShanmenError):
    """State unknown (a COMMIT or fsync failed): stop, reload, compare."""
