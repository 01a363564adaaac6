"""The way to a page: what every visit passes before a handler sees it.

Order: page, declared length, language, session, permission, the form itself, forgery. What goes
wrong becomes a page in the visitor's language, or a short JSON for a script.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final
from urllib.parse import quote

from multidict import CIMultiDictProxy

from hub.api.body import declared_length, pace_of, read_body
from hub.api.errors import LaterError, error_reply
from hub.api.exchange import Incoming, Reply
from hub.api.query import read_query
from hub.api.routes import Router
from hub.console import cookies, forms, texts
from hub.console.parts import HEADERS, Console, redirect
from hub.console.routes import PAGES
from hub.console.visit import Page, Visit, Visitor
from hub.domain.users import Role
from hub.messages import text as hub_text
from hub.people import Session
from protocol.errors import (
    Code,
    DecodeError,
    RefusedError,
    ShanmenError,
    UnavailableError,
    VerifyError,
)

_TARGET_MAX: Final = 2048
_NOBODY: Final = Code.UNKNOWN_KEY  # who has no session that counts; its status is 401


class Front:
    """Serves the pages; `Gate` hands over what `knows` says is one."""

    def __init__(self, console: Console, pages: tuple[Page, ...] = PAGES) -> None:
        self._console = console
        self._router = Router(pages)
        self._pace = pace_of(console.hub.config)

    def knows(self, path: str) -> str | None:
        """The path in the table, for whatever method; None if it is no page."""
        return self._router.pattern(path)

    async def serve(self, incoming: Incoming, request_id: str) -> Reply:
        """Answer a visit. Raises ShanmenError, which `refuse` makes a page of."""
        reply = await self._pass(incoming, request_id)
        reply.headers = HEADERS | reply.headers
        return reply

    def refuse(self, error: ShanmenError, incoming: Incoming, request_id: str) -> Reply:
        """Answer with what went wrong."""
        path = incoming.target.partition("?")[0]
        page, _, _ = self._router.find(incoming.method, path)
        if error.code is _NOBODY and page is not None and not page.data:
            here = incoming.target if incoming.method == "GET" else "/"
            return self._dressed(redirect("/login?next=" + quote(here, safe="/")))
        wait_s = error.retry_after_s if isinstance(error, LaterError) else 0.0
        now_us = self._console.hub.clock_us()
        reply = error_reply(error, request_id=request_id, now_us=now_us, retry_after_s=wait_s)
        if page is None or not page.data:
            jar = cookies.read(incoming.headers)
            visit = self._visit(incoming, request_id, jar=jar)
            said = self._console.render(
                visit, "error.html", status=reply.status,
                said=hub_text(f"code.{error.code.key}", visit.language),
                retry=reply.headers.get("Retry-After", ""),
            )  # fmt: skip
            said.headers |= {
                k: v for k, v in reply.headers.items() if k in {"Allow", "Retry-After"}
            }
            reply = said
        return self._dressed(reply)

    @staticmethod
    def _dressed(reply: Reply) -> Reply:
        reply.headers = HEADERS | reply.headers
        return reply

    async def _pass(self, incoming: Incoming, request_id: str) -> Reply:
        hub = self._console.hub
        path, _, query = incoming.target.partition("?")
        if len(incoming.target) > _TARGET_MAX:
            raise DecodeError(Code.TOO_LARGE, field="path")
        page, params, methods = self._router.find(incoming.method, path)
        if page is None:
            raise RefusedError(Code.METHOD, field="method", expected=", ".join(methods))
        length = declared_length(incoming, page.body_max)
        if hub.stopping:
            raise UnavailableError(Code.STOPPING)
        is_form = page.method == "POST"
        if is_form:
            forms.check_origin(incoming.headers, hub.config.listen.url)
        jar = cookies.read(incoming.headers)
        session = await self._session(page, jar)
        form: Mapping[str, str] = {}
        if is_form:
            with hub.pool.held(length):
                body = await read_body(incoming, length, self._pace)
            form = forms.read(body, incoming.headers)
            if session is not None and page.visitor is not Visitor.ANYBODY:
                forms.check_token(incoming.headers, form, session)
        visit = self._visit(
            incoming,
            request_id,
            jar=jar,
            params=params,
            query=read_query(query),
            form=form,
            session=session,
        )
        return await page.handler(self._console, visit)

    async def _session(self, page: Page, jar: Mapping[str, str]) -> Session | None:
        token = jar.get(self._console.cookie.name, "")
        session = await self._console.people.session(token) if token else None
        if page.visitor is Visitor.ANYBODY:
            return session
        if session is None:
            raise VerifyError(_NOBODY, field="session", expected="a login")
        if page.visitor is Visitor.ADMIN and session.role is not Role.ADMIN:
            raise RefusedError(Code.NOT_ALLOWED, field="role", expected=Role.ADMIN.value)
        return session

    def _visit(
        self,
        incoming: Incoming,
        request_id: str,
        *,
        jar: Mapping[str, str],
        params: Mapping[str, str] = MappingProxyType({}),
        query: Mapping[str, str] = MappingProxyType({}),
        form: Mapping[str, str] = MappingProxyType({}),
        session: Session | None = None,
    ) -> Visit:
        headers: CIMultiDictProxy[str] = incoming.headers
        return Visit(
            method=incoming.method,
            target=incoming.target,
            params=params,
            query=query,
            form=form,
            cookies=jar,
            headers=headers,
            session=session,
            language=texts.language_of(jar, headers.get("Accept-Language", "")),
            address=incoming.address,
            request_id=request_id,
            now_us=self._console.hub.clock_us(),
        )
