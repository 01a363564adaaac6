"""The way in: what every request passes before a handler sees it, and the last-resort error.

Order matters and costs little first: route, declared length, credentials (the signature before
the body), memory for the body, the body itself, its digest, only then the handler, which decodes.
Here is the one `except Exception` of the hub (docs/decisions/0010).
"""

import asyncio
import hashlib
import logging
import secrets
from collections.abc import Mapping
from typing import Final, Protocol

from hub.api import refusal
from hub.api.body import declared_length, pace_of, read_body
from hub.api.credentials import Checked, Credentials
from hub.api.errors import LaterError, error_reply
from hub.api.exchange import MSGPACK, Call, Incoming, Reply
from hub.api.parts import Parts
from hub.api.query import read_query
from hub.api.routes import ROUTES, Route, Router
from protocol.errors import Code, DecodeError, RefusedError, ShanmenError, UnavailableError
from protocol.program.messages import Language
from protocol.signatures import check_body

log = logging.getLogger(__name__)

_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}
_TARGET_MAX: Final = 2048


class Face(Protocol):
    """Another way to answer a part of the paths: the pages, with HTML and sessions."""

    def knows(self, path: str) -> str | None:
        """The path in its own table, or None if it is not its own."""
        ...

    async def serve(self, incoming: Incoming, request_id: str) -> Reply:
        """Answer one request. Raises ShanmenError."""
        ...

    def refuse(self, error: ShanmenError, incoming: Incoming, request_id: str) -> Reply:
        """Answer with what went wrong."""
        ...


class Gate:
    """Lets requests in."""

    def __init__(
        self, parts: Parts, routes: tuple[Route, ...] = ROUTES, *, pages: Face | None = None
    ) -> None:
        self._parts = parts
        self._pages = pages
        self._router = Router(routes)
        self._credentials = Credentials(parts)
        self._pace = pace_of(parts.config)

    async def serve(self, incoming: Incoming) -> Reply:
        """Answer a request, whatever it is; cancellation passes through."""
        request_id = secrets.token_hex(8)
        started = asyncio.get_running_loop().time()
        seen: list[str] = []
        pages = self._pages_for(incoming, seen)
        try:
            if pages is not None:
                reply = await pages.serve(incoming, request_id)
            else:
                reply = await self._pass(incoming, request_id, seen)
            if reply.stream is not None:
                reply.body = await anext(reply.stream)  # it begins here, where it may still fail
        except ShanmenError as error:
            reply = self._refuse(error, request_id, incoming, pages)
        except Exception:
            log.exception("request failed", extra={"request_id": request_id})
            reply = self._refuse(_InternalError(), request_id, incoming, pages)
        route = seen[0] if seen else "none"
        self._count(route, incoming.method, reply, asyncio.get_running_loop().time() - started)
        reply.headers = _HEADERS | {"X-Request-Id": request_id} | reply.headers
        reply.headers.setdefault("Cache-Control", "no-store")
        return reply

    def _pages_for(self, incoming: Incoming, seen: list[str]) -> Face | None:
        """The pages, if it is theirs; `seen` gets the path as it is counted."""
        page = None if self._pages is None else self._pages.knows(incoming.target.partition("?")[0])
        if page is None:
            return None
        seen.append(page)
        return self._pages

    def _count(self, route: str, method: str, reply: Reply, seconds: float) -> None:
        metrics = self._parts.metrics
        name = method if method in {"GET", "POST"} else "other"
        metrics.requests.labels(route, name, str(reply.status)).inc()
        metrics.seconds.labels(route).observe(seconds)

    def _refuse(
        self, error: ShanmenError, request_id: str, incoming: Incoming, pages: Face | None
    ) -> Reply:
        self._parts.metrics.refusals.labels(error.code.key).inc()
        log.info(
            "request refused",
            extra={"reason": error.code.key, "field": error.field, "request_id": request_id},
        )
        if pages is not None:
            return pages.refuse(error, incoming, request_id)
        wait_s = error.retry_after_s if isinstance(error, LaterError) else 0.0
        now_us = self._parts.clock_us()
        reply = error_reply(error, request_id=request_id, now_us=now_us, retry_after_s=wait_s)
        if refusal.is_wanted(incoming.headers):
            hub = self._parts.keys.signing
            return refusal.signed(reply, error.code.key, incoming.headers, hub=hub, now_us=now_us)
        return reply

    async def _pass(self, incoming: Incoming, request_id: str, seen: list[str]) -> Reply:
        path, _, query = incoming.target.partition("?")
        if len(incoming.target) > _TARGET_MAX or not incoming.target.startswith("/"):
            raise DecodeError(Code.MALFORMED, field="path", expected="an absolute path")
        route, params, methods = self._router.find(incoming.method, path)
        if route is None:
            if methods:
                raise RefusedError(Code.METHOD, field="method", expected=", ".join(methods))
            raise RefusedError(Code.NOT_FOUND, field="path", expected="a path of /openapi.json")
        seen.append(route.path)
        length = declared_length(incoming, route.body_max)
        _check_media(incoming, route, length)
        if self._parts.stopping and route.method == "POST":
            raise UnavailableError(Code.STOPPING)
        checked = await self._credentials.check(incoming, route, path, query)
        with self._parts.pool.held(length):
            body = await read_body(incoming, length, self._pace)
            self._parts.metrics.bytes_in.inc(length)
            if checked.verified is not None:
                check_body(checked.verified, body)
            call = Call(
                params=params,
                query=read_query(query),
                headers=incoming.headers,
                body=body,
                body_sha256=_digest_of(checked, body),
                who=checked.who,
                address=incoming.address,
                loopback=incoming.loopback,
                request_id=request_id,
                language=_language(incoming.headers, self._parts.language),
                now_us=self._parts.clock_us(),
            )
            return await route.handler(self._parts, call)


class _InternalError(ShanmenError):
    """What the caller is told when the hub itself is wrong."""

    def __init__(self) -> None:
        super().__init__(Code.INTERNAL)


def _digest_of(checked: Checked, body: bytes) -> bytes:
    """SHA-256 of the body: the one that was signed and held against it, else made here."""
    signed = None if checked.verified is None else checked.verified.digest
    return signed or hashlib.sha256(body).digest()


def _check_media(incoming: Incoming, route: Route, length: int) -> None:
    """A body of ours has one media type; another is not guessed at."""
    if length and route.body_max:
        media = incoming.headers.getall("Content-Type", [])
        if media != [MSGPACK]:
            raise DecodeError(Code.MEDIA_TYPE, field="content-type", expected=MSGPACK)


def _language(headers: Mapping[str, str], default: Language) -> Language:
    wanted = headers.get("Accept-Language", "").strip().lower()
    if wanted.startswith("zh"):
        return "zh"
    return "en" if wanted.startswith("en") else default
