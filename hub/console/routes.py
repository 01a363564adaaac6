"""The table of all pages; a handler that is not here cannot be reached."""

from typing import Final

from hub.console.pages import language_set, live_show, login, logout, static
from hub.console.visit import Page, Visitor

_FORM_BYTES: Final = 8 * 1024

PAGES: Final[tuple[Page, ...]] = (
    Page(method="GET", path="/", handler=live_show.show),
    Page(method="GET", path="/login", handler=login.show, visitor=Visitor.ANYBODY),
    Page(method="POST", path="/login", handler=login.enter, visitor=Visitor.ANYBODY,
         body_max=_FORM_BYTES),
    Page(method="POST", path="/logout", handler=logout.leave, body_max=_FORM_BYTES),
    Page(method="GET", path="/language/{language}", handler=language_set.choose,
         visitor=Visitor.ANYBODY),
    Page(method="GET", path="/static/{digest}/{name}", handler=static.serve,
         visitor=Visitor.ANYBODY, data=True),
)  # fmt: skip
