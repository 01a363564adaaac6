"""The agent's one HTTP client: signed requests to the hub, every wait bounded, TLS always verified.

Plain HTTP goes to loopback only; the configuration refuses it elsewhere, and so does this file.
Foreign exceptions become errors of ours here and nowhere else. An answer that is not signed can
delay the agent and never decide anything, so whatever it says is tried again later.
"""

import asyncio
import io
import secrets
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import aiohttp
import msgspec

from agent.host.clock import Clock
from agent.host.settings import HubTable
from agent.link.tls import CheckedConnector, context_for
from protocol import limits, signatures
from protocol.envelope import SigningKey
from protocol.errors import (
    Code,
    RefusedError,
    ShanmenError,
    TooLargeError,
    UnavailableError,
    VerifyError,
)
from protocol.ids import PrincipalId
from protocol.messages import MEDIA_TYPE
from protocol.program.hosts import is_loopback

_ERROR_BYTES_MAX: Final = 16_384
_CHUNK: Final = 65_536
_DIGEST_INLINE_MAX: Final = 128 * 1024
#: Two heartbeats of the hub's and a little: an inbox poll silent for longer is dead.
POLL_SILENCE_S: Final = 12.0
POLL_MAX_S: Final = 120.0  # a hub ends a poll long before
_RETRY_AFTER_S_MAX: Final = 600.0


class LaterError(UnavailableError):
    """Try again, not before `after_s` seconds have passed."""

    def __init__(self, code: Code, *, after_s: float = 0.0, **about: Any) -> None:
        super().__init__(code, **about)
        self.after_s = after_s


class CertificateError(VerifyError):
    """The hub's certificate is not to be trusted; `expected` says why, in OpenSSL's words."""


class _ErrorDetail(msgspec.Struct, frozen=True, kw_only=True):
    key: str = ""
    field: str = ""
    expected: str = ""


class _ErrorAnswer(msgspec.Struct, frozen=True, kw_only=True):
    error: _ErrorDetail = _ErrorDetail()


class UnrecognisedError(VerifyError):
    """The hub says that it cannot verify us: not that its own answer does not verify."""


class HubClient:
    """One session with one hub; `open` before use, `close` after."""

    def __init__(
        self,
        table: HubTable,
        clock: Clock,
        *,
        hub: PrincipalId,
        key: SigningKey | None,
    ) -> None:
        parts = urlsplit(table.url)
        if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            raise RefusedError(Code.PLAIN_HTTP, field="hub.url", value=table.url, expected="https")
        self._base = table.url.rstrip("/")
        self._table = table
        self._clock = clock
        self._hub = hub
        self._key = key
        self._session: aiohttp.ClientSession | None = None
        self._under_way: Counter[aiohttp.ClientSession] = Counter()  # exchanges of each session
        self.connected = False  # the last request reached the hub
        #: When the certificate of the last TLS connection expires, seconds since 1970.
        self.certificate_ends_s: float | None = None

    async def open(self) -> None:
        """Prepare the session; connects later. Raises CaFileError if `hub.ca` is unusable."""
        self._session = await self._new_session()

    async def _new_session(self, *, asks_time: bool = False) -> aiohttp.ClientSession:
        context: ssl.SSLContext | bool = False
        if self._base.startswith("https:"):
            # Reading the system's certificates takes 20 ms on a small machine.
            context = await asyncio.to_thread(context_for, self._table.ca, self._clock)
        connector = CheckedConnector(
            self._clock,
            asks_time=asks_time,
            note_end=self._note_end,
            ssl=context,
            limit=4,
            keepalive_timeout=50,
        )
        return aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(
                total=self._table.request_timeout.seconds,
                connect=self._table.connect_timeout.seconds,
                sock_connect=self._table.connect_timeout.seconds,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            trust_env=False,
        )

    def _note_end(self, ends_s: float) -> None:
        self.certificate_ends_s = ends_s

    async def close(self) -> None:
        """Close all connections. What is under way must have been cancelled."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def renew(self) -> None:
        """Forget all connections, so that the next one is judged by what is known now.

        What is under way ends where it began: aiohttp wakes nobody who reads from a connection that
        its session closes, and drops the time limit of the read too.
        """
        new = await self._new_session()
        old, self._session = self._session, new
        if old is not None and not self._under_way[old]:
            await old.close()

    async def sync(self, body: bytes) -> bytes:
        """POST one batch; returns the answer's envelope as received."""
        return await self._whole("POST", "/v1/sync", body=body, limit=limits.ANSWER_BYTES_MAX)

    async def enrol(self, body: bytes) -> bytes:
        """POST the enrolment; it carries its own signatures."""
        return await self._whole(
            "POST", "/v1/enrol", body=body, limit=limits.OBJECT_BYTES_MAX, signed=False
        )

    async def time(self, nonce: bytes) -> bytes:
        """GET the hub's time, an envelope that repeats the nonce; no signature needed.

        Over a connection of its own, which is not judged by what the hub said before.
        """
        query = {"nonce": nonce.hex()}
        async with (
            await self._new_session(asks_time=True) as session,
            self._request(
                "GET", "/v1/time", query=query, signed=False, session=session
            ) as response,
        ):
            return await _read(response, limits.OBJECT_BYTES_MAX)

    async def get(self, path: str, query: Mapping[str, str] | None = None, *, limit: int) -> bytes:
        """GET anything that the agent may read, signed."""
        return await self._whole("GET", path, query=query or {}, limit=limit)

    async def poll(self, query: Mapping[str, str]) -> AsyncIterator[bytes]:
        """GET the inbox: an empty piece when the poll stands, then what arrives.

        Raises UnavailableError when nothing came for POLL_SILENCE_S, or the end not in POLL_MAX_S.
        """
        timeout = aiohttp.ClientTimeout(
            total=POLL_MAX_S,
            connect=self._table.connect_timeout.seconds,
            sock_connect=self._table.connect_timeout.seconds,
            sock_read=POLL_SILENCE_S,
        )
        async with self._request("GET", "/v1/inbox", query=query, timeout=timeout) as response:
            yield b""  # the link is up
            async for piece in _pieces(response.content.iter_any()):
                yield piece

    async def _whole(
        self,
        method: str,
        path: str,
        *,
        limit: int,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        signed: bool = True,
    ) -> bytes:
        request = self._request(method, path, query=query or {}, body=body, signed=signed)
        async with request as response:
            return await _read(response, limit)

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str],
        body: bytes | None = None,
        signed: bool = True,
        timeout: aiohttp.ClientTimeout | None = None,
        session: aiohttp.ClientSession | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One exchange; yields a response with status 200, everything else is raised."""
        session = session or self._session
        assert session is not None
        self._under_way[session] += 1
        try:
            async with self._exchange(
                session, method, path, query=query, body=body, signed=signed, timeout=timeout
            ) as response:
                yield response
        finally:
            self._under_way[session] -= 1
            if not self._under_way[session]:
                del self._under_way[session]
                if session is not self._session:
                    await session.close()

    @asynccontextmanager
    async def _exchange(
        self,
        session: aiohttp.ClientSession,
        method: str,
        path: str,
        *,
        query: Mapping[str, str],
        body: bytes | None,
        signed: bool,
        timeout: aiohttp.ClientTimeout | None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        asked = urlencode(query)
        make = partial(self._headers, method, path, asked, body, signed=signed)
        # The digest of a full batch takes longer than anything else may wait on the loop.
        large = body is not None and len(body) > _DIGEST_INLINE_MAX
        headers = await asyncio.to_thread(make) if large else make()
        more: dict[str, Any] = {} if timeout is None else {"timeout": timeout}
        # A file-like body is written in pieces; plain bytes of this size would block the loop.
        data = None if body is None else io.BytesIO(body)
        url = self._base + path + (f"?{asked}" if asked else "")
        try:
            async with session.request(
                method, url, headers=headers, data=data, allow_redirects=False, **more
            ) as response:
                if response.status != 200:
                    raise await _refusal(response)
                self.connected = True
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self.connected = False
            raise translated(error, self._base) from error

    def _headers(
        self, method: str, path: str, query: str, body: bytes | None, *, signed: bool
    ) -> dict[str, str]:
        content_type = None if body is None else MEDIA_TYPE
        if not signed or self._key is None:
            return {} if content_type is None else {"Content-Type": content_type}
        return signatures.sign_request(
            method,
            path,
            query,
            body=body,
            content_type=content_type,
            hub=self._hub,
            key=self._key,
            created_s=self._clock.hub_us() // 1_000_000,
            nonce=secrets.token_bytes(limits.NONCE_BYTES),
        )


async def _pieces(read: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """A body in pieces.

    A connection that is lost between two reads is a bare RuntimeError of aiohttp's stream; here it
    is what every other loss is: a ClientError.
    """
    try:
        async for piece in read:
            yield piece
    except RuntimeError as error:
        raise aiohttp.ClientConnectionError(str(error)) from error


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The whole body; a longer one than `limit` is refused before it is read on."""
    declared = response.content_length
    if declared is not None and declared > limit:
        raise TooLargeError(Code.TOO_LARGE, field="answer", value=declared, expected=str(limit))
    pieces, size = [], 0
    async for piece in _pieces(response.content.iter_chunked(_CHUNK)):
        size += len(piece)
        if size > limit:
            raise TooLargeError(Code.TOO_LARGE, field="answer", value=size, expected=str(limit))
        pieces.append(piece)
    return b"".join(pieces)


async def _refusal(response: aiohttp.ClientResponse) -> ShanmenError:
    """What a status other than 200 means; nothing of it is ever permanent."""
    detail = _ErrorDetail()
    try:
        raw = await _read(response, _ERROR_BYTES_MAX)
        detail = msgspec.json.decode(raw, type=_ErrorAnswer).error
    except (msgspec.MsgspecError, TooLargeError, UnicodeDecodeError):
        pass
    after_s = _retry_after(response.headers.get("Retry-After", ""))
    code = Code.from_key(detail.key)
    about: dict[str, Any] = {
        "field": detail.field[:100],
        "value": response.status,
        "expected": detail.expected[:200],
    }
    if response.status == 429 or response.status >= 500:
        if code is Code.MALFORMED:
            code = Code.RATE_LIMITED if response.status == 429 else Code.BUSY
        return LaterError(code, after_s=after_s, **about)
    if 300 <= code.number < 400:
        return UnrecognisedError(code, **about)
    if code is Code.AGENT_WAITING:
        return LaterError(code, after_s=after_s, **about)
    return RefusedError(code, **about)


def _retry_after(text: str) -> float:
    return min(float(text), _RETRY_AFTER_S_MAX) if text.isascii() and text.isdigit() else 0.0


def translated(error: Exception, where: str) -> ShanmenError:
    """Name a failure of link, name or certificate in our words."""
    cause: BaseException = error
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause = error.certificate_error
    elif isinstance(error, aiohttp.ClientOSError) and isinstance(error.__cause__, ssl.SSLError):
        cause = error.__cause__  # from our own look at the dates
    if isinstance(cause, ssl.SSLCertVerificationError):
        reason = getattr(cause, "verify_message", "") or str(cause.args[-1])
        return CertificateError(
            Code.SIGNATURE_INVALID, field="certificate", value=where, expected=reason
        )
    if isinstance(error, TimeoutError):
        return LaterError(Code.TIMEOUT, field="hub", value=where)
    return LaterError(Code.UNREACHABLE, field="hub", value=where, expected=_short(error))


def _short(error: BaseException) -> str:
    inner = getattr(error, "os_error", None) or error
    return (getattr(inner, "strerror", None) or type(inner).__name__)[:100]
