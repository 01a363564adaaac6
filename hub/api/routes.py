"""The table of all routes: path, who may call, how long a body may be, what comes and goes.

The dispatcher, the permission check, the OpenAPI document and the matrix test all read this one
table; a handler that is not here cannot be reached.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from hub.api import (
    catalog,
    enrol,
    health,
    history,
    inbox,
    log,
    notes,
    objects,
    openapi,
    segments,
    sync,
    time,
)
from hub.api.exchange import JSON, MSGPACK, OCTETS, TEXT, Call, Caller, Reply
from hub.api.views import (
    EntryPage,
    EntryView,
    Facets,
    Health,
    LedgerProof,
    Readiness,
    ResourceList,
    StreamList,
    VersionPage,
)

if TYPE_CHECKING:
    from hub.api.parts import Parts

Handler = Callable[["Parts", Call], Awaitable[Reply]]

_SYNC_BYTES_MAX: Final = 8 * 1024 * 1024
_OBJECT_BYTES_MAX: Final = 64 * 1024
_ENROL_BYTES_MAX: Final = 4 * 1024

_ANYBODY = frozenset({Caller.ANYBODY})
_AGENT = frozenset({Caller.AGENT})
_PARTIES = frozenset({Caller.AGENT, Caller.OWNER, Caller.READER})
_CATALOG = frozenset({Caller.OWNER, Caller.READER})


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method on one path."""

    method: str
    path: str  #: `{name}` is one segment of the path, `{name*}` all that follow
    handler: Handler
    callers: frozenset[Caller]
    summary: str
    body_max: int = 0  #: bytes; 0: a body is refused
    query: Mapping[str, str] = field(default_factory=dict)  #: name → what it means
    media: str = JSON  #: of the answer
    answer: Any = None  #: struct of a JSON answer
    #: A waiting or suspended agent may call it.
    any_state: bool = False


def _get(path: str, handler: Handler, callers: frozenset[Caller], summary: str,
         **more: Any) -> Route:  # fmt: skip
    return Route(method="GET", path=path, handler=handler, callers=callers, summary=summary, **more)


def _post(path: str, handler: Handler, callers: frozenset[Caller], summary: str,
          **more: Any) -> Route:  # fmt: skip
    return Route(
        method="POST", path=path, handler=handler, callers=callers, summary=summary, **more
    )


ROUTES: Final[tuple[Route, ...]] = (
    _get("/v1/time", time.tell, _ANYBODY, "The hub's time in a signed envelope",
         media=MSGPACK, query={"nonce": "16 random bytes as hex, returned in the envelope"}),
    _post("/v1/enrol", enrol.enrol, _ANYBODY, "Enrol an agent with a one-time token",
          body_max=_ENROL_BYTES_MAX, media=MSGPACK),
    _post("/v1/sync", sync.exchange, _AGENT, "One batch of an agent: objects and segments",
          body_max=_SYNC_BYTES_MAX, media=MSGPACK, any_state=True),
    _get("/v1/streams", sync.streams_of, _AGENT, "Heads of the agent's own streams", media=JSON,
         answer=StreamList),
    _get("/v1/inbox", inbox.poll, _AGENT, "Long poll for messages to the agent (some 8 s)",
         media=MSGPACK, any_state=True,
         query={"generation": "of the last applied message", "n": "number of the last applied",
                "report": "what waits at the gateway: base64 of `shanmen/report`, optional"}),
    _post("/v1/objects", objects.submit, frozenset({Caller.OWNER, Caller.INVITED}),
          "Hand in a signed object, e.g. an owner's principal", body_max=_OBJECT_BYTES_MAX,
          media=MSGPACK),
    _get("/v1/objects/{object}", objects.fetch, _PARTIES,
         "One signed object as received; of a principal the newest",
         media=MSGPACK, any_state=True),
    _get("/v1/wraps", objects.wraps_of, frozenset({Caller.AGENT, Caller.OWNER}),
         "Wrapped epoch keys for the caller", media=MSGPACK,
         query={"recipient": "principal id of the caller", "resource": "resource id, optional",
                "after": "cursor of the page before, optional"}),
    _get("/v1/resources", catalog.resources, _PARTIES, "Resources that the caller may read",
         answer=ResourceList),
    _get("/v1/resources/{resource}/segments", segments.listing, _PARTIES,
         "Headers of a resource's segments in order of acceptance", media=MSGPACK,
         query={"after": "cursor of the page before, optional", "limit": "1 to 1000"}),
    _get("/v1/resources/{resource}/notes", notes.listing, _PARTIES,
         "Declared loss (gap notes) and corrections of times, as received", media=MSGPACK,
         query={"after": "cursor of the page before, optional", "limit": "1 to 256"}),
    _get("/v1/segments/{segment}", segments.whole, _PARTIES,
         "One segment as received; header only where its body is not kept", media=OCTETS),
    _get("/v1/parts/{segment}/{group}", segments.part, _PARTIES,
         "One column group of a segment as stored", media=OCTETS),
    _get("/v1/entries", catalog.listing, _CATALOG, "The catalog: 数据目录, T/ADEDS 02-2023 §6.3",
         answer=EntryPage, query=catalog.FILTERS | catalog.PAGING),
    _get("/v1/facets", catalog.facets, _CATALOG,
         "How the catalog's entries spread over each dimension, under a filter", answer=Facets,
         query=catalog.FILTERS),
    _get("/v1/entries/{resource}", catalog.entry, _CATALOG,
         "One registration entry with every field of T/ADEDS 02-2023 §6.2", answer=EntryView),
    _get("/v1/entries/{resource}/versions", history.versions, _CATALOG,
         "An entry's versions, the newest first: who, when, what changed", answer=VersionPage,
         query={"after": "cursor of the page before, optional", "limit": "1 to 100"}),
    _get("/v1/entries/{resource}/proof", history.proof, _CATALOG,
         "Proof that an entry stands in the ledger: leaf, path, checkpoint", answer=LedgerProof,
         query={"object": "id of a version; without it the one in force"}),
    _get("/log/{generation}/checkpoint", log.checkpoint, _ANYBODY,
         "The ledger's newest checkpoint (C2SP tlog-checkpoint)", media=TEXT),
    _get("/log/{generation}/tile/{tile*}", log.tile, _ANYBODY,
         "Hashes and entries of the ledger (C2SP tlog-tiles)", media=OCTETS),
    _get("/healthz", health.alive, _ANYBODY, "The process answers", answer=Health),
    _get("/readyz", health.ready, _ANYBODY, "The hub can accept data", answer=Readiness),
    _get("/metrics", health.metrics, frozenset({Caller.LOOPBACK, Caller.READER}),
         "Prometheus metrics", media=TEXT),
    _get("/openapi.json", openapi.document, _CATALOG, "This document"),
)  # fmt: skip


class Routed(Protocol):
    """What a table must say of each of its rows."""

    @property
    def method(self) -> str:
        """GET or POST."""
        ...

    @property
    def path(self) -> str:
        """As in `Route`."""
        ...


R = TypeVar("R", bound=Routed)


class Router(Generic[R]):
    """Finds the route of a path; refuses what could mean two things."""

    def __init__(self, routes: tuple[R, ...]) -> None:
        self._table = [(route, route.path.strip("/").split("/")) for route in routes]

    def pattern(self, path: str) -> str | None:
        """The path as the table has it, for whatever method; None if it is not there."""
        pieces = _pieces(path)
        found = (
            route.path for route, pattern in self._table if _match(pattern, pieces) is not None
        )
        return next(found, None)

    def find(self, method: str, path: str) -> tuple[R | None, dict[str, str], list[str]]:
        """Return the route, its parameters, and the methods that the path knows."""
        pieces = _pieces(path)
        known: list[str] = []
        for route, pattern in self._table:
            params = _match(pattern, pieces)
            if params is None:
                continue
            if route.method == method:
                return route, params, []
            known.append(route.method)
        return None, {}, known


def _pieces(path: str) -> list[str]:
    """The segments of a path; none where it could mean two things.

    A path with an escape, an empty or a dotted segment matches nothing: ids, numbers and tile names
    need none, so what carries one is an attempt at another file. The one empty segment is "/".
    """
    if path == "/":
        return [""]
    pieces = path.split("/")
    if pieces[0] or "%" in path or "\\" in path or {"", ".", ".."} & set(pieces[1:]):
        return []
    return pieces[1:]


def _match(pattern: list[str], pieces: list[str]) -> dict[str, str] | None:
    params: dict[str, str] = {}
    for at, wanted in enumerate(pattern):
        if wanted.endswith("*}"):
            params[wanted[1:-2]] = "/".join(pieces[at:])
            return params if len(pieces) > at else None
        if at >= len(pieces):
            return None
        if wanted.startswith("{"):
            params[wanted[1:-1]] = pieces[at]
        elif wanted != pieces[at]:
            return None
    return params if len(pieces) == len(pattern) else None
