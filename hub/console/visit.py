"""What passes between the front and a page: a visit that was let in, and who may visit."""

import enum
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from multidict import CIMultiDictProxy

from hub.api.exchange import Reply
from hub.people import Session
from protocol.program.messages import Language

if TYPE_CHECKING:
    from hub.console.parts import Console


class Visitor(enum.Enum):
    """Who may visit a page."""

    ANYBODY = "anybody"
    STAFF = "staff"  #: whoever is logged in
    ADMIN = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One request for a page."""

    method: str
    target: str  #: path and query, as sent
    params: Mapping[str, str]  #: from the path
    query: Mapping[str, str]  #: decoded, no name twice
    form: Mapping[str, str]  #: decoded fields of a POST, no name twice; checked against forgery
    cookies: Mapping[str, str]
    headers: CIMultiDictProxy[str]
    session: Session | None  #: there wherever the page asks for one
    language: Language
    address: str
    request_id: str
    now_us: int


Handler = Callable[["Console", Visit], Awaitable[Reply]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One method on one path."""

    method: str
    path: str  #: as in the api's table: `{name}` is one segment of the path
    handler: Handler
    visitor: Visitor = Visitor.STAFF
    body_max: int = 0  #: bytes of a form; 0: a body is refused
    #: Asked for by a script: whoever is not logged in gets 401 instead of the login page.
    data: bool = False
