"""What passes between the listening side and a handler: a call that was let in, and its reply.

Handlers see neither aiohttp nor sockets, so tests and the fuzzer call the same path in process.
"""

import enum
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
from multidict import CIMultiDictProxy

from protocol.program.messages import Language

MSGPACK = "application/vnd.shanmen+msgpack"
JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
OCTETS = "application/octet-stream"


class Incoming(Protocol):
    """A request as it arrived: header read, body not yet."""

    method: str
    target: str  #: path and query as sent, undecoded
    headers: CIMultiDictProxy[str]
    address: str  #: of the peer; empty for a unix socket
    loopback: bool  #: the peer is this machine and no proxy stands between

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes."""
        ...


class Caller(enum.Enum):
    """Who may call a route."""

    ANYBODY = "anybody"  #: no credentials asked for, none looked at
    AGENT = "agent"  #: request signed by an enrolled agent's key
    OWNER = "owner"  #: request signed by the signing key of a principal that the hub keeps
    INVITED = "invited"  #: request signed with the key of a one-time owner's token
    READER = "reader"  #: bearer token made by `shanmen-hub token new --read`
    LOOPBACK = "loopback"  #: a process on this machine, where the settings allow it


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a call is from, after its credentials were checked."""

    caller: Caller
    subject: bytes = b""  #: agent, principal or token id
    key_id: bytes = b""  #: of the key that signed the request; empty for bearer tokens
    nonce: bytes = b""  #: of the request signature
    row: Any = None  #: the store's row of the agent, principal or token


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request that was let in."""

    params: Mapping[str, str]  #: from the path
    query: Mapping[str, str]  #: decoded, no name twice
    headers: CIMultiDictProxy[str]
    body: bytes
    body_sha256: bytes
    who: Identity
    address: str
    loopback: bool
    request_id: str
    language: Language
    now_us: int


@dataclass(slots=True, kw_only=True)
class Reply:
    """What goes back: a body at once, or a stream of pieces."""

    status: int = 200
    body: bytes = b""
    media: str = JSON
    headers: dict[str, str] = field(default_factory=dict)
    #: Pieces after `body`. It has begun (the first piece is in `body`), so closing it ends it.
    stream: AsyncGenerator[bytes, None] | None = None


def json_reply(value: object, *, status: int = 200) -> Reply:
    """Answer with JSON; structs are encoded as msgspec does."""
    return Reply(status=status, body=msgspec.json.encode(value))


def raw_reply(body: bytes, *, media: str = MSGPACK, cache: str = "no-store") -> Reply:
    """Answer with bytes as they are."""
    return Reply(body=body, media=media, headers={"Cache-Control": cache})


def compact(value: object) -> str:
    """Return JSON for a person at a terminal: readable, Chinese left as it is."""
    return json.dumps(msgspec.to_builtins(value), ensure_ascii=False, indent=2)
