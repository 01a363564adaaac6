"""Signed requests of an owner to one hub; TLS always verified, plain HTTP to loopback only."""

import secrets
import ssl
import time
from collections.abc import Mapping
from typing import Final, Self
from urllib.parse import urlencode, urlsplit

import aiohttp
import msgspec

from protocol import limits, signatures
from protocol.envelope import SigningKey
from protocol.errors import Code, RefusedError, ShanmenError, TooLargeError, UnavailableError
from protocol.ids import PrincipalId
from protocol.program.hosts import is_loopback

MEDIA_TYPE: Final = "application/vnd.shanmen+msgpack"
_TIMEOUT: Final = aiohttp.ClientTimeout(total=60, connect=10, sock_connect=10)
_CHUNK: Final = 64 * 1024
_ERROR_BYTES_MAX: Final = 16 * 1024


class _Detail(msgspec.Struct, frozen=True, kw_only=True):
    key: str = ""
    field: str = ""
    expected: str = ""


class _Refusal(msgspec.Struct, frozen=True, kw_only=True):
    error: _Detail = _Detail()


class Client:
    """One hub, one signing key: the owner's, or that of a token. Use as a context."""

    def __init__(self, url: str, hub: PrincipalId, key: SigningKey, *, ca: str = "") -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise RefusedError(Code.MALFORMED, field="hub", value=url, expected="https://…")
        if parts.scheme == "http" and not is_loopback(parts.hostname):
            raise RefusedError(Code.PLAIN_HTTP, field="hub", value=url, expected="https://…")
        self.url = url.rstrip("/")
        self._hub = hub
        self._key = key
        self._tls = _context(ca) if parts.scheme == "https" else None
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(limit=4, ssl=self._tls or False)
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=_TIMEOUT,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept-Encoding"),
            trust_env=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def get(
        self, path: str, query: Mapping[str, str] | None = None, *, limit: int, signed: bool = True
    ) -> bytes:
        """GET; `limit` bytes at most. Raises what `_exchange` raises."""
        return await self._exchange("GET", path, query or {}, None, limit=limit, signed=signed)

    async def post(self, path: str, body: bytes) -> bytes:
        """POST a signed object. Raises what `_exchange` raises."""
        return await self._exchange("POST", path, {}, body, limit=limits.OBJECT_BYTES_MAX)

    async def _exchange(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: bytes | None,
        *,
        limit: int,
        signed: bool = True,
    ) -> bytes:
        """One request. Raises UnavailableError, RefusedError with the hub's reason."""
        assert self._session is not None
        asked = urlencode(query)
        headers = {}
        if signed:
            headers = signatures.sign_request(
                method,
                path,
                asked,
                body=body,
                content_type=None if body is None else MEDIA_TYPE,
                hub=self._hub,
                key=self._key,
                created_s=int(time.time()),
                nonce=secrets.token_bytes(limits.NONCE_BYTES),
            )
        url = self.url + path + (f"?{asked}" if asked else "")
        try:
            async with self._session.request(
                method, url, headers=headers, data=body, allow_redirects=False
            ) as response:
                if response.status != 200:
                    raise await _refused(response)
                return await _read(response, limit)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            said = str(error) or type(error).__name__
            raise UnavailableError(
                Code.UNREACHABLE, field="hub", value=self.url, expected=said
            ) from error


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    pieces, size = [], 0
    try:
        async for piece in response.content.iter_chunked(_CHUNK):
            size += len(piece)
            if size > limit:
                raise TooLargeError(
                    Code.TOO_LARGE, field="answer", value=size, expected=f"≤ {limit}"
                )
            pieces.append(piece)
    except RuntimeError as error:
        # A connection that is lost between two reads is a bare RuntimeError of aiohttp's stream.
        raise aiohttp.ClientConnectionError(str(error)) from error
    return b"".join(pieces)


async def _refused(response: aiohttp.ClientResponse) -> ShanmenError:
    try:
        raw = await _read(response, _ERROR_BYTES_MAX)
        detail = msgspec.json.decode(raw, type=_Refusal).error
    except (msgspec.MsgspecError, TooLargeError, UnicodeDecodeError):
        detail = _Detail()
    code = Code.from_key(detail.key)
    kind = UnavailableError if response.status in {429, 503} else RefusedError
    return kind(code, field=detail.field, value=response.status, expected=detail.expected)


def _context(ca: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca or None)
    except OSError as error:  # SSLError is one
        raise RefusedError(
            Code.NOT_FOUND, field="ca", value=ca, expected="a PEM file of certificates"
        ) from error
