"""Scripts and styles."""

from hub.api.exchange import Reply
from hub.console.parts import Console
from hub.console.visit import Visit
from protocol.errors import Code, RefusedError


async def serve(console: Console, visit: Visit) -> Reply:
    """One file, for ever: another content has another name."""
    found = console.assets.find(visit.params["digest"], visit.params["name"])
    if found is None:
        raise RefusedError(Code.NOT_FOUND, field="path")
    cache = "public, max-age=31536000, immutable"
    return Reply(body=found.body, media=found.media, headers={"Cache-Control": cache})
