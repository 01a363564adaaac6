"""The OpenAPI 3.1 document, made from the table of routes and the structs of the answers."""

from typing import Any, Final

import msgspec

from hub.api.errors import ErrorAnswer
from hub.api.exchange import JSON, Call, Caller, Reply, json_reply
from hub.api.parts import Parts
from hub.version import version

_SCHEMES: Final[dict[str, Any]] = {
    "signature": {
        "type": "apiKey", "in": "header", "name": "Signature",
        "description": "RFC 9421 request signature, label sm, tag shanmen-request-1: of an agent,"
                       " an owner, or the key of a one-time token",
    },
    "bearer": {
        "type": "http", "scheme": "bearer",
        "description": "made by `shanmen-hub token new --read`",
    },
}  # fmt: skip
_BEARERS: Final = frozenset({Caller.READER})
_SIGNERS: Final = frozenset({Caller.AGENT, Caller.OWNER, Caller.INVITED})
_ERRORS: Final = {
    "400": "Cannot be read", "401": "No or bad credentials", "403": "Not allowed",
    "404": "Not there", "408": "Too slow", "409": "In conflict with what is recorded",
    "413": "Too large", "415": "A content coding or another media type",
    "429": "Too many attempts", "503": "Try later",
}  # fmt: skip


def _operation(route: Any, schemas: dict[Any, Any]) -> dict[str, Any]:
    """Describe one route."""
    names = [one[1:-1].rstrip("*") for one in route.path.split("/") if one.startswith("{")]
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in names
    ] + [
        {"name": name, "in": "query", "description": meaning, "schema": {"type": "string"}}
        for name, meaning in route.query.items()
    ]
    schema = schemas.get(route.answer, {})
    content = {route.media.split(";")[0]: {"schema": schema} if schema else {}}
    errors = {
        status: {"description": text, "content": {JSON: {"schema": schemas[ErrorAnswer]}}}
        for status, text in _ERRORS.items()
    }
    operation: dict[str, Any] = {
        "operationId": f"{route.handler.__module__.rsplit('.', 1)[-1]}_{route.handler.__name__}",
        "summary": route.summary,
        "parameters": parameters,
        "responses": {"200": {"description": "Done", "content": content}} | errors,
        "security": _security(route.callers),
    }
    if route.body_max:
        operation["requestBody"] = {
            "required": True,
            "description": f"at most {route.body_max} bytes, no content coding",
            "content": {"application/vnd.shanmen+msgpack": {}},
        }
    return operation


def _security(callers: frozenset[Caller]) -> list[dict[str, list[str]]]:
    if Caller.ANYBODY in callers:
        return []
    found: list[dict[str, list[str]]] = []
    if callers & _SIGNERS:
        found.append({"signature": []})
    if callers & _BEARERS:
        found.append({"bearer": []})
    return found


def make(routes: tuple[Any, ...], *, release: str) -> dict[str, Any]:
    """Build the document. routes: of `hub.api.routes`; release: of the hub."""
    types = [ErrorAnswer, *dict.fromkeys(one.answer for one in routes if one.answer is not None)]
    made, components = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    schemas = dict(zip(types, made, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = route.path.replace("*}", "}")
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Shanmen hub",
            "version": release,
            "description": "Registry, catalog and ledger of culture and tourism data"
                           " (T/ADEDS 02-2023).",
        },
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": _SCHEMES},
    }  # fmt: skip


async def document(parts: Parts, call: Call) -> Reply:  # noqa: ARG001  # every handler's signature
    """The document of this hub."""
    from hub.api.routes import ROUTES  # the table imports this module

    return json_reply(make(ROUTES, release=version()))
