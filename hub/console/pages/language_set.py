"""Choosing a language: a link on each page."""

from hub.api.exchange import Reply
from hub.console import cookies
from hub.console.parts import Console, local, redirect
from hub.console.visit import Visit
from protocol.errors import Code, RefusedError
from protocol.program.messages import LANGUAGES


async def choose(console: Console, visit: Visit) -> Reply:  # noqa: ARG001 every handler's signature
    """Keep the choice for a year and go back to where the link stood."""
    wanted = visit.params["language"]
    if wanted not in LANGUAGES:
        raise RefusedError(Code.NOT_FOUND, field="language", expected=" or ".join(LANGUAGES))
    return redirect(local(visit.query.get("next", "")), cookie=cookies.language(wanted))
