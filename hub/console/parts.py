"""What pages may use, put together in `hub/app.py` and nowhere else."""

import re
from dataclasses import dataclass
from http import HTTPStatus
from importlib import resources
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from hub.api.exchange import Reply
from hub.api.parts import Parts
from hub.console import texts
from hub.console.assets import Assets
from hub.console.cookies import SessionCookie
from hub.console.feed import Feed
from hub.console.visit import Visit
from hub.overview import Overview
from hub.people import People

_LOCAL: Final = re.compile(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]{0,1000}")  # no host, no backslash
HTML: Final = "text/html; charset=utf-8"
#: `connect-src` is for the event stream and the ledger's files; nothing comes from elsewhere.
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
        "object-src 'none'"
    ),
    # With `no-referrer` browsers send `Origin: null` with our own forms.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def environment() -> Environment:
    """Templates from this package: everything is escaped, an unknown name is an error."""
    folder = resources.files("hub.console").joinpath("templates")
    return Environment(
        loader=FileSystemLoader(str(folder)),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@dataclass(slots=True, kw_only=True)
class Console:
    """The working parts of the pages."""

    hub: Parts
    people: People
    cookie: SessionCookie
    assets: Assets
    templates: Environment
    overview: Overview
    feed: Feed

    def render(
        self, visit: Visit, template: str, *, status: int = HTTPStatus.OK, **values: Any
    ) -> Reply:
        """Fill a template, where `t(key, …)` is a text and `asset(name)` the place of a file."""

        def say(key: str, **fields: object) -> str:
            return texts.text(key, visit.language, **fields)

        body = self.templates.get_template(template).render(
            t=say,
            asset=self.assets.url,
            hub_name=self.hub.config.hub.name,
            visit=visit,
            **values,
        )
        return Reply(status=status, body=body.encode(), media=HTML)


def local(where: str) -> str:
    """A page of ours to go on to; the first one for whatever could lead elsewhere."""
    return where if _LOCAL.fullmatch(where) else "/"


def redirect(where: str, *, cookie: str = "") -> Reply:
    """Send the browser to another page of ours, by GET."""
    headers = {"Location": where} | ({"Set-Cookie": cookie} if cookie else {})
    return Reply(status=HTTPStatus.SEE_OTHER, media=HTML, headers=headers)
