"""The table of all pages; a handler that is not here cannot be reached."""

from typing import Final

from hub.console.pages import (
    catalog_list,
    catalog_show,
    language_set,
    live_show,
    live_stream,
    live_view,
    login,
    logout,
    receipt_show,
    static,
)
from hub.console.visit import Page, Visitor

_FORM_BYTES: Final = 8 * 1024

PAGES: Final[tuple[Page, ...]] = (
    Page(method="GET", path="/", handler=live_show.show),
    Page(method="GET", path="/live/stream", handler=live_stream.stream, data=True),
    Page(method="POST", path="/live/view", handler=live_view.renew, body_max=_FORM_BYTES,
         data=True),
    Page(method="GET", path="/live/receipt", handler=receipt_show.newest, data=True),
    Page(method="GET", path=catalog_list.PATH, handler=catalog_list.show),
    Page(method="GET", path=catalog_list.PATH + "/{resource}", handler=catalog_show.show),
    Page(method="GET", path="/login", handler=login.show, visitor=Visitor.ANYBODY),
    Page(method="POST", path="/login", handler=login.enter, visitor=Visitor.ANYBODY,
         body_max=_FORM_BYTES),
    Page(method="POST", path="/logout", handler=logout.leave, body_max=_FORM_BYTES),
    Page(method="GET", path="/language/{language}", handler=language_set.choose,
         visitor=Visitor.ANYBODY),
    Page(method="GET", path="/static/{digest}/{name}", handler=static.serve,
         visitor=Visitor.ANYBODY, data=True),
)  # fmt: skip
